//! Lifeboat: backup, deduplication and disaster recovery.
//!
//! The map of the house. A room imports rooms of a lower layer only; `tests/tidy/` fails on anything else.
//!
//! | layer | room | what it is |
//! |---|---|---|
//! | 4 | [`ops`] | what the tool does: backup, restore, archive, copy, import, verify, snapshots, ls, diff, find, why, cat, stats, init, keys, rekey |
//! | 4 | [`serve`] | a repository shown to other programs: the mount; a directory opened to other machines: the door |
//! | 4 | [`error`] | the one error of public operations |
//! | 3 | [`repo`] | a repository: open, commit, read chunks, write packs |
//! | 3 | [`index`] | chunk id to location: immutable sorted tables, memory-mapped |
//! | 3 | [`policy`] | permissions of stores, made from what each role asks of one |
//! | 3 | [`restic`] | reading repositories of restic |
//! | 2 | [`store`] | object storage: typed keys, durable PUT, exact reads, retry |
//! | 2 | [`source`] | what is backed up, and where it is restored to |
//! | 2 | [`database`] | servers of databases: asking them, and the files of their data directories |
//! | 2 | [`seal`] | segment: chunks compressed and encrypted together, opened and compared |
//! | 1 | [`mod@format`] | the stored format: bytes to values and back, without I/O and without keys |
//! | 1 | [`crypto`] | ids, encryption, sealing to public keys, signatures, key derivation |
//! | 1 | [`chunk`] | cutting content into chunks |
//! | 1 | [`compress`] | zstd, and telling what cannot be compressed |
//! | 1 | [`filter`] | include and exclude rules |
//! | 1 | [`postgres`] | what PostgreSQL writes: pages and records of its log, histories of timelines |
//! | 1 | [`dumps`] | how dumps of databases end |
//! | 1 | [`retention`] | which snapshots a policy keeps, and why |
//! | 1 | [`schedule`] | when a job is due, and whether it missed its time |
//! | 0 | [`id`] [`class`] [`event`] [`clock`] [`random`] [`cancel`] [`units`] | the words everyone uses |
//!
//! The words are defined in `docs/architecture.md`; the stored bytes in `docs/format.md`.

pub mod cancel;
pub mod class;
pub mod clock;
pub mod event;
pub mod id;
pub mod random;
pub mod units;

pub mod chunk;
pub mod compress;
pub mod crypto;
pub mod dumps;
pub mod filter;
pub mod format;
pub mod postgres;
pub mod retention;
pub mod schedule;

pub mod database;
pub mod seal;
pub mod source;
pub mod store;

pub mod index;
pub mod policy;
pub mod repo;
pub mod restic;

pub mod error;
pub mod ops;
pub mod serve;
