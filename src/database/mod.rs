//! Servers of databases: a connection to one of PostgreSQL, and what lies in its data directory.
//!
//! | file | what |
//! |---|---|
//! | [`connection`], `wire`, `login` | simple queries over a Unix socket or TCP |
//! | [`passfile`] | passwords as PostgreSQL's own clients keep them |
//! | [`lsn`] | positions in the log, and the segments that hold them |
//! | [`files`] | what of a data directory a base backup holds |
//! | [`page`] | checksums of pages |
//! | [`control`] | the control file |
//! | [`label`] | the label and the tablespace map of a backup |
//! | [`manifest`] | the manifest that `pg_verifybackup` reads |
//! | [`conf`] | lines of a configuration file |
//!
//! # Invariants
//! What a server sends, or a file holds, is hostile until it was checked: lengths are bounded before anything is allocated.
//! A password is never part of a message, an error or an argument.
//!
//! # Must not
//! Know of repositories.

pub mod conf;
pub mod connection;
pub mod control;
mod error;
pub mod files;
pub mod label;
mod login;
pub mod lsn;
pub mod manifest;
pub mod page;
pub mod passfile;
mod wire;

pub use error::PgError;
