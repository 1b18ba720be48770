//! `docs/format.md` section 10: a snapshot and its confirmation.
//!
//! ```text
//! preamble 32 | writer 16 | sequence u64 | salt 32 | data key length u16, data key | body length u32, body sealed | signature 64
//! ```

use super::FormatError;
use super::cbor::{Cbor, Out, Written, encode};
use super::envelope::ObjectKind;
use super::node::Totals;
use super::postgres::PostgresBackup;
use super::sealed::{SealedForm, SealedObject, padded_body};
use super::tree::TreeRef;
use super::wire::Reader;
use crate::id::{ChunkId, ObjectHash, RepositoryId, RunId, SnapshotId, WriterId};

/// How a snapshot object is sealed.
pub const SNAPSHOT: SealedForm = SealedForm { kind: ObjectKind::Snapshot, section: "10", max: 4 << 20 };
const TEXT_MAX: usize = 64 << 10;
const LIST_MAX: u64 = 16 << 10;
/// Longest name of an origin: of its kind, its repository and its snapshot.
const ORIGIN_MAX: usize = 256;

/// One saved state: the plaintext of a snapshot's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When the run began, nanoseconds since 1970, as the writer's clock had it.
    pub time: i64,
    /// How long it took, in nanoseconds.
    pub duration: u64,
    /// Name of the machine; raw bytes.
    pub host: Vec<u8>,
    /// Name of the user; raw bytes.
    pub user: Vec<u8>,
    /// The job: what retention and `latest` go by.
    pub job: Vec<u8>,
    /// The sources as given.
    pub paths: Vec<Vec<u8>>,
    /// Tags, `key` or `key=value`.
    pub tags: Vec<String>,
    /// The root directory; `None` if nothing at all was saved.
    pub root: Option<TreeRef>,
    /// Totals of the root directory.
    pub totals: Totals,
    /// Bytes that were new to the repository, before compression.
    pub new_bytes: u64,
    /// Bytes these took in the store.
    pub stored_bytes: u64,
    /// Entries that could not be saved in full.
    pub problems: u64,
    /// The horizon the writer started from.
    pub horizon: u64,
    /// The writer's heads when it began: its latest snapshots.
    pub parents: Vec<SnapshotId>,
    /// The run.
    pub run: RunId,
    /// Version of the program.
    pub program: String,
    /// Where it was brought from by `copy` or `import`; counts only if a maintainer signed the snapshot.
    pub origin: Option<Origin>,
    /// What a restore has to know of a base backup of PostgreSQL.
    pub postgres: Option<PostgresBackup>,
}

/// Where a snapshot came from that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What kind of repository that was: [`Origin::COPY`], or the name of another tool.
    pub kind: String,
    /// What names the repository there.
    pub repository: Vec<u8>,
    /// What names the snapshot there.
    pub snapshot: Vec<u8>,
    /// When that repository's store got it, or when it was made if nobody knows better; nanoseconds since 1970.
    pub time: i64,
    /// Entries, and parts of directories, that were saved there and could not be brought in full.
    pub missing: u64,
}

impl Origin {
    /// Kind of a repository of this format.
    pub const COPY: &'static str = "lifeboat";

    fn encode(&self, e: &mut Out<'_>) -> Written {
        e.map(4 + u64::from(self.missing != 0))?;
        e.u8(0)?.str(&self.kind)?;
        e.u8(1)?.bytes(&self.repository)?;
        e.u8(2)?.bytes(&self.snapshot)?;
        e.u8(3)?.i64(self.time)?;
        if self.missing != 0 {
            e.u8(4)?.u64(self.missing)?;
        }
        Ok(())
    }

    fn decode(d: &mut Cbor<'_>) -> Result<Self, FormatError> {
        let (mut kind, mut repository, mut snapshot, mut time, mut missing) = (None, None, None, None, 0);
        d.map(|d, key| {
            match key {
                0 => kind = Some(d.text(ORIGIN_MAX)?),
                1 => repository = Some(d.bytes(ORIGIN_MAX)?),
                2 => snapshot = Some(d.bytes(ORIGIN_MAX)?),
                3 => time = Some(d.i64()?),
                4 => missing = d.u64()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        match (kind, repository, snapshot, time) {
            (Some(kind), Some(repository), Some(snapshot), Some(time)) => {
                Ok(Self { kind, repository, snapshot, time, missing })
            }
            _ => Err(d.value("origin")),
        }
    }
}

impl Snapshot {
    /// The plaintext of the body: length, CBOR value, zeroes up to a PADME length.
    pub fn encode_body(&self) -> Vec<u8> {
        padded_body(&encode(|e| self.encode_fields(e)))
    }

    fn encode_fields(&self, e: &mut Out<'_>) -> Written {
        let optional = [self.root.is_some(), self.origin.is_some(), self.postgres.is_some()];
        e.map(15 + optional.into_iter().map(u64::from).sum::<u64>())?;
        e.u8(0)?.i64(self.time)?;
        e.u8(1)?.u64(self.duration)?;
        e.u8(2)?.bytes(&self.host)?;
        e.u8(3)?.bytes(&self.user)?;
        e.u8(4)?.bytes(&self.job)?;
        e.u8(5)?.array(self.paths.len() as u64)?;
        for path in &self.paths {
            e.bytes(path)?;
        }
        e.u8(6)?.array(self.tags.len() as u64)?;
        for tag in &self.tags {
            e.str(tag)?;
        }
        if let Some(root) = &self.root {
            e.u8(7)?.array(3)?.u8(root.level)?.bytes(root.id.as_bytes())?.u32(root.len)?;
        }
        e.u8(8)?.array(3)?.u64(self.totals.entries)?.u64(self.totals.files)?.u64(self.totals.bytes)?;
        e.u8(9)?.u64(self.new_bytes)?;
        e.u8(10)?.u64(self.stored_bytes)?;
        e.u8(11)?.u64(self.problems)?;
        e.u8(12)?.u64(self.horizon)?;
        e.u8(13)?.array(self.parents.len() as u64)?;
        for parent in &self.parents {
            e.bytes(parent.as_bytes())?;
        }
        e.u8(14)?.bytes(self.run.as_bytes())?;
        e.u8(15)?.str(&self.program)?;
        if let Some(origin) = &self.origin {
            e.u8(16)?;
            origin.encode(e)?;
        }
        if let Some(postgres) = &self.postgres {
            e.u8(17)?;
            postgres.encode(e)?;
        }
        Ok(())
    }

    /// Reads the plaintext of a body.
    pub fn decode_body(bytes: &[u8]) -> Result<Self, FormatError> {
        let value = SNAPSHOT.value(bytes)?;
        let mut snapshot = Self::empty();
        let mut d = Cbor::new(value, SNAPSHOT.section, "snapshot");
        d.map(|d, key| decode_field(&mut snapshot, d, key))?;
        d.finish(value.len())?;
        Ok(snapshot)
    }

    /// Demands that a reader accepts what [`Self::encode_body`] makes of this.
    pub fn check(&self) -> Result<(), FormatError> {
        let body = self.encode_body();
        if body.len() > SNAPSHOT.body_max() {
            return Err(SNAPSHOT.broken("length of the snapshot"));
        }
        Self::decode_body(&body).map(|_| ())
    }

    /// A snapshot of nothing.
    pub fn empty() -> Self {
        Self {
            time: 0,
            duration: 0,
            host: Vec::new(),
            user: Vec::new(),
            job: Vec::new(),
            paths: Vec::new(),
            tags: Vec::new(),
            root: None,
            totals: Totals::default(),
            new_bytes: 0,
            stored_bytes: 0,
            problems: 0,
            horizon: 0,
            parents: Vec::new(),
            run: RunId::new([0; 16]),
            program: String::new(),
            origin: None,
            postgres: None,
        }
    }
}

fn decode_field(snapshot: &mut Snapshot, d: &mut Cbor<'_>, key: u32) -> Result<bool, FormatError> {
    match key {
        0 => snapshot.time = d.i64()?,
        1 => snapshot.duration = d.u64()?,
        2 => snapshot.host = d.bytes(TEXT_MAX)?,
        3 => snapshot.user = d.bytes(TEXT_MAX)?,
        4 => snapshot.job = d.bytes(TEXT_MAX)?,
        5 => snapshot.paths = d.array(LIST_MAX, |d| d.bytes(TEXT_MAX))?,
        6 => snapshot.tags = d.array(LIST_MAX, |d| d.text(TEXT_MAX))?,
        7 => snapshot.root = Some(decode_root(d)?),
        8 => {
            let totals = d.array(3, Cbor::u64)?;
            let [entries, files, bytes] = totals.try_into().map_err(|_| d.value("totals"))?;
            snapshot.totals = Totals { entries, files, bytes };
        }
        9 => snapshot.new_bytes = d.u64()?,
        10 => snapshot.stored_bytes = d.u64()?,
        11 => snapshot.problems = d.u64()?,
        12 => snapshot.horizon = d.u64()?,
        13 => snapshot.parents = d.array(LIST_MAX, |d| Ok(SnapshotId::new(d.fixed()?)))?,
        14 => snapshot.run = RunId::new(d.fixed()?),
        15 => snapshot.program = d.text(TEXT_MAX)?,
        16 => snapshot.origin = Some(Origin::decode(d)?),
        17 => snapshot.postgres = Some(PostgresBackup::decode(d)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn decode_root(d: &mut Cbor<'_>) -> Result<TreeRef, FormatError> {
    let mut root = TreeRef { level: 0, id: ChunkId::new([0; 32]), len: 0 };
    let mut field = 0;
    d.array(3, |d| {
        match field {
            0 => root.level = d.u8()?,
            1 => root.id = ChunkId::new(d.fixed()?),
            _ => root.len = d.u32()?,
        }
        field += 1;
        Ok(())
    })?;
    if field == 3 { Ok(root) } else { Err(d.value("root")) }
}

/// A snapshot object taken apart; nothing in it may be believed before the signature is checked.
#[derive(Debug, Clone)]
pub struct SnapshotObject<'a> {
    /// Who wrote it.
    pub writer: WriterId,
    /// Its number among the writer's snapshots.
    pub sequence: u64,
    /// The rest, which a reader of the repository can open.
    pub sealed: SealedObject<'a>,
}

impl<'a> SnapshotObject<'a> {
    /// The bytes to sign.
    pub fn encode_unsigned(&self, repository: RepositoryId) -> Vec<u8> {
        self.sealed.encode_unsigned(repository, &[self.writer.as_bytes(), &self.sequence.to_le_bytes()])
    }

    /// Takes an object apart.
    pub fn decode(bytes: &'a [u8], repository: &RepositoryId) -> Result<Self, FormatError> {
        let head = |reader: &mut Reader<'_>| Ok((WriterId::new(reader.array()?), reader.u64()?));
        let ((writer, sequence), sealed) = SealedObject::decode(SNAPSHOT, bytes, repository, head)?;
        Ok(Self { writer, sequence, sealed })
    }
}

/// The value of a confirmation, a signed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// Whose snapshot.
    pub writer: WriterId,
    /// Its number.
    pub sequence: u64,
    /// Its hash.
    pub snapshot: ObjectHash,
}

impl Confirmation {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(3)?;
            e.u8(0)?.bytes(self.writer.as_bytes())?;
            e.u8(1)?.u64(self.sequence)?;
            e.u8(2)?.bytes(self.snapshot.as_bytes())?;
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut writer, mut sequence, mut snapshot) = (None, None, None);
        let mut d = Cbor::new(bytes, "10", "confirmation");
        d.map(|d, field| {
            match field {
                0 => writer = Some(WriterId::new(d.fixed()?)),
                1 => sequence = Some(d.u64()?),
                2 => snapshot = Some(ObjectHash::new(d.fixed()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let missing = d.value("confirmation");
        d.finish(bytes.len())?;
        match (writer, sequence, snapshot) {
            (Some(writer), Some(sequence), Some(snapshot)) => Ok(Self { writer, sequence, snapshot }),
            _ => Err(missing),
        }
    }
}
