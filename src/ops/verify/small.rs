//! Small objects, each read in full: the hash in its name, its signature, its fields.

use crate::crypto::sign::VerifyingKey;
use crate::format::FormatError;
use crate::format::config::{Config, WriterEntry};
use crate::format::envelope::{ObjectKind, Preamble};
use crate::format::keyslot::{KeySlot, SLOT_MAX};
use crate::format::layout::ObjectName;
use crate::format::signed::{SIGNED_MAX, Signed};
use crate::repo::{RepoError, Repository};

/// How a small object is.
pub(super) enum Checked {
    /// As it should be.
    Good,
    /// Whole, but of another repository.
    Foreign,
}

/// Reads one object that is neither a pack, an index object nor a snapshot.
pub(super) async fn check(repo: &Repository, name: ObjectName) -> Result<Checked, RepoError> {
    let max = if matches!(name, ObjectName::KeySlot(_)) { SLOT_MAX } else { SIGNED_MAX };
    let bytes = repo.get_object(name, max as u64).await?;
    let key = name.key();
    let at = || RepoError::at(&key);
    if Preamble::decode(&bytes).map_err(at())?.repository != repo.id() {
        return Ok(Checked::Foreign);
    }
    match name {
        ObjectName::KeySlot(_) => {
            KeySlot::decode(&bytes).map_err(at())?;
        }
        ObjectName::Config(..) => {
            let value = root_signed(repo, &key, &bytes, ObjectKind::Config)?;
            let config = Config::decode(value).map_err(at())?;
            if config.repository != repo.id() || config.root != repo.config().root {
                return Err(at()(FormatError::Value { section: "9", what: "repository or root key" }));
            }
        }
        ObjectName::Writer(id, ..) => {
            let value = root_signed(repo, &key, &bytes, ObjectKind::Writer)?;
            let entry = WriterEntry::decode(value).map_err(at())?;
            VerifyingKey::from_bytes(entry.key)?;
            if entry.writer != id {
                return Err(at()(FormatError::Value { section: "9", what: "writer" }));
            }
        }
        ObjectName::Cluster(..) => repo.check_cluster(name).await?,
        ObjectName::Labels(..) if repo.secrets().metadata.is_none() => repo.check_labels(name).await?,
        _ => repo.check_said(name).await?,
    }
    Ok(Checked::Good)
}

fn root_signed<'a>(
    repo: &Repository,
    key: &str,
    bytes: &'a [u8],
    kind: ObjectKind,
) -> Result<&'a [u8], RepoError> {
    let (_, signed) = Signed::decode(bytes, kind, Some(&repo.id())).map_err(RepoError::at(key))?;
    let root = VerifyingKey::from_bytes(repo.config().root)?;
    match root.verify(signed.message, &signed.signature) {
        Ok(()) => Ok(signed.value),
        Err(_) => Err(RepoError::BadSignature { key: key.to_owned() }),
    }
}
