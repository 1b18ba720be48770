//! Listing: every plain file below a prefix, in the order of keys, links not followed.

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

/// What a walk comes upon.
#[derive(Debug)]
pub(super) enum Met {
    /// A plain file whose name is UTF-8.
    Object(ObjectMeta),
    /// A link, a device, a name that is not UTF-8.
    Foreign(PathBuf),
}

/// What an entry of a directory is to a walk.
enum Entry {
    Met(Met),
    /// With its key.
    Directory(String),
    Nothing,
}

/// A directory that is being gone through; its names last first, each with what it sorts by.
struct Level<N> {
    directory: PathBuf,
    key: String,
    names: Vec<(Vec<u8>, N)>,
}

/// A walk over everything below a prefix. It holds the names of one directory a level, never those of all objects.
pub(super) struct Walk<D: Disk> {
    levels: Vec<Level<D::Name>>,
    /// The directory of all packs, if that is what is walked.
    all_packs: Option<PathBuf>,
    /// Keys up to this one are passed by.
    after: String,
}

impl<D: Disk> Walk<D> {
    /// Begins at `prefix`, a directory relative to the root, behind the key `after`. A missing directory is empty, a missing
    /// root is an error.
    pub(super) fn new(inner: &Inner<D>, prefix: &str, after: &str) -> Result<Self, LocalError> {
        let top = inner.root.join(prefix);
        let all_packs = (prefix == PACKS.trim_end_matches('/')).then(|| top.clone());
        let mut walk = Self { levels: Vec::new(), all_packs, after: after.to_owned() };
        if prefix.is_empty() || inner.is_directory(&top)? {
            walk.enter(inner, top, prefix.to_owned())?;
        }
        Ok(walk)
    }

    /// What comes next; `None` at the end.
    pub(super) fn next(&mut self, inner: &Inner<D>) -> Result<Option<Met>, LocalError> {
        while let Some(level) = self.levels.last_mut() {
            let Some((_, name)) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            match look(&name, (&level.directory, &level.key))? {
                Entry::Met(met) => return Ok(Some(met)),
                Entry::Nothing => {}
                Entry::Directory(key) => {
                    let directory = level.directory.join(name.name());
                    self.enter(inner, directory, key)?;
                }
            }
        }
        Ok(None)
    }

    fn enter(&mut self, inner: &Inner<D>, directory: PathBuf, key: String) -> Result<(), LocalError> {
        // A pack is relied on when an index object names it, which was put after the pack was durable; or when it was
        // looked for by its own name. To sync 256 directories in every run would buy nothing.
        if self.all_packs.as_ref().is_none_or(|top| *top == directory) {
            inner.listed.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.clone());
        }
        let failed = |error| LocalError::io(Step::Look, &directory, error);
        let mut names = Vec::new();
        for name in inner.disk.names(&directory).map_err(failed)? {
            let name = name.map_err(failed)?;
            let mut sort = name.name().into_encoded_bytes();
            // What is in a directory sorts by its key, in which a slash follows the name.
            let is_directory = matches!(name.kind(), Ok(Kind::Directory));
            if is_directory {
                sort.push(b'/');
            }
            if self.is_wanted(&key, &sort) {
                names.push((sort, name));
            }
        }
        names.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        self.levels.push(Level { directory, key, names });
        Ok(())
    }

    /// Whether something behind `after` may be found there.
    fn is_wanted(&self, parent: &str, sort: &[u8]) -> bool {
        let mut key = parent.as_bytes().to_vec();
        if !parent.is_empty() {
            key.push(b'/');
        }
        key.extend_from_slice(sort);
        let after = self.after.as_bytes();
        key.as_slice() > after || (sort.ends_with(b"/") && after.starts_with(&key))
    }
}

impl<D: Disk> Inner<D> {
    /// Everything below `prefix`, as [`Walk::new`] takes it.
    pub(super) fn walk(&self, prefix: &str) -> Result<Found, LocalError> {
        let mut walk = Walk::new(self, prefix, "")?;
        let mut found = Found::default();
        while let Some(met) = walk.next(self)? {
            match met {
                Met::Object(meta) => found.objects.push(meta),
                Met::Foreign(path) => found.foreign.push(path),
            }
        }
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

/// What an entry is.
fn look(entry: &impl Name, (directory, parent): (&Path, &str)) -> Result<Entry, LocalError> {
    let name = entry.name();
    let path = || directory.join(&name);
    let foreign = || Ok(Entry::Met(Met::Foreign(path())));
    let key = match name.to_str() {
        Some(name) if parent.is_empty() => name.to_owned(),
        Some(name) => format!("{parent}/{name}"),
        None => return foreign(),
    };
    // `lost+found` is there when the root is the top of a file system; often it may not be read.
    if parent.is_empty() && (key == RESERVED || key == "lost+found") {
        return Ok(Entry::Nothing);
    }
    let failed = |error| LocalError::io(Step::Look, &path(), error);
    match entry.kind() {
        Ok(Kind::Directory) => return Ok(Entry::Directory(key)),
        Ok(Kind::File) => {}
        // A file system that names no kinds is asked for each, and it may be gone by then: as below.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entry::Nothing),
        Err(error) => return Err(failed(error)),
        Ok(Kind::Other) => return foreign(),
    }
    match (entry.stat(), ObjectPath::parse(&key)) {
        // Deleted by another process meanwhile, as in the listing of any store.
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Ok(Entry::Nothing),
        (Err(error), _) => Err(failed(error)),
        (Ok(_), Err(_)) => foreign(),
        (Ok(stat), Ok(location)) => Ok(Entry::Met(Met::Object(meta(location, stat.len, stat.modified)))),
    }
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
        let place = (Path::new("/r"), "packs");
        assert!(matches!(look(&Gone(io::ErrorKind::NotFound), place), Ok(Entry::Nothing)));
        assert!(look(&Gone(io::ErrorKind::PermissionDenied), place).is_err());
    }
}
