//! Listing: every plain file below a prefix, links not followed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;

use super::super::key::RESERVED;
use super::disk::{Disk, Kind, Name};
use super::read::meta;
use super::{Inner, LocalError, Step};
use crate::format::layout::PACKS;

/// What a walk found.
#[derive(Default)]
pub(super) struct Found {
    /// Plain files whose names are UTF-8, in the order of their keys.
    pub(super) objects: Vec<ObjectMeta>,
    /// Links, devices, names that are not UTF-8.
    pub(super) foreign: Vec<PathBuf>,
}

impl<D: Disk> Inner<D> {
    /// Everything below `prefix`, a directory relative to the root. A missing directory is empty, a missing root is an error.
    pub(super) fn walk(&self, prefix: &str) -> Result<Found, LocalError> {
        let top = self.root.join(prefix);
        let mut found = Found::default();
        if !prefix.is_empty() && !self.is_directory(&top)? {
            return Ok(found);
        }
        let all_packs = prefix == PACKS.trim_end_matches('/');
        let mut pending = vec![(top, prefix.to_owned())];
        while let Some((directory, key)) = pending.pop() {
            // A pack is relied on when an index object names it, which was put after the pack was durable; or when it was
            // looked for by its own name. To sync 256 directories in every run would buy nothing.
            if !all_packs || key == prefix {
                self.listed.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.clone());
            }
            let failed = |error| LocalError::io(Step::Look, &directory, error);
            for name in self.disk.names(&directory).map_err(failed)? {
                let name = name.map_err(failed)?;
                if let Some(next) = look(&name, (&directory, &key), &mut found)? {
                    pending.push((directory.join(name.name()), next));
                }
            }
        }
        found.objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// Whether a directory stands there that is reached through no link; missing is `false` only below a root that is there.
    pub(super) fn is_directory(&self, top: &Path) -> Result<bool, LocalError> {
        let mut path = top;
        while path != self.root {
            match self.disk.stat_link(path) {
                Ok(stat) if stat.kind == Kind::Directory => {}
                Ok(_) => return Err(LocalError::Foreign { path: path.to_owned() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return self.check_root().map(|()| false);
                }
                Err(error) => return Err(LocalError::io(Step::Look, path, error)),
            }
            match path.parent() {
                Some(parent) => path = parent,
                None => break,
            }
        }
        Ok(true)
    }
}

/// Notes an entry, or returns the key of a directory to go into.
fn look(
    entry: &impl Name,
    (directory, parent): (&Path, &str),
    found: &mut Found,
) -> Result<Option<String>, LocalError> {
    let name = entry.name();
    let path = || directory.join(&name);
    let key = match name.to_str() {
        Some(name) if parent.is_empty() => name.to_owned(),
        Some(name) => format!("{parent}/{name}"),
        None => {
            found.foreign.push(path());
            return Ok(None);
        }
    };
    // `lost+found` is there when the root is the top of a file system; often it may not be read.
    if parent.is_empty() && (key == RESERVED || key == "lost+found") {
        return Ok(None);
    }
    let failed = |error| LocalError::io(Step::Look, &path(), error);
    match entry.kind() {
        Ok(Kind::Directory) => return Ok(Some(key)),
        Ok(Kind::File) => {}
        // A file system that names no kinds is asked for each, and it may be gone by then: as below.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(Kind::Other) => {
            found.foreign.push(path());
            return Ok(None);
        }
    }
    match (entry.stat(), ObjectPath::parse(&key)) {
        // Deleted by another process meanwhile, as in the listing of any store.
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {}
        (Err(error), _) => return Err(failed(error)),
        (Ok(_), Err(_)) => found.foreign.push(path()),
        (Ok(stat), Ok(location)) => found.objects.push(meta(location, stat.len, stat.modified)),
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::disk::Stat;
    use super::*;

    /// A name that is gone by the time somebody asks what it stands for.
    struct Gone(io::ErrorKind);

    impl Name for Gone {
        fn name(&self) -> OsString {
            "gone".into()
        }

        fn kind(&self) -> io::Result<Kind> {
            Err(self.0.into())
        }

        fn stat(&self) -> io::Result<Stat> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_name_that_goes_while_it_is_listed_is_passed_by() {
        let mut found = Found::default();
        let place = (Path::new("/r"), "packs");
        assert!(look(&Gone(io::ErrorKind::NotFound), place, &mut found).unwrap().is_none());
        assert!(found.objects.is_empty() && found.foreign.is_empty());
        assert!(look(&Gone(io::ErrorKind::PermissionDenied), place, &mut found).is_err());
    }
}
