//! Writing an object as its bytes arrive: to `tmp/`, synced, and named only if nothing has the name.
//!
//! # Crash
//! As everywhere in this room: a file in `tmp/`, or the whole object. Who gives up takes the file away at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::disk::Disk;
use super::{Inner, LocalError, Step};

/// An object that is being written. Dropped before [`Upload::commit`], nothing of it stays.
pub(super) struct Upload<D: Disk> {
    inner: Arc<Inner<D>>,
    file: D::File,
    path: PathBuf,
    len: u64,
    named: bool,
}

impl<D: Disk> Drop for Upload<D> {
    fn drop(&mut self) {
        if !self.named {
            // What stays behind is swept later.
            let _ = self.inner.disk.remove(&self.path);
        }
    }
}

impl<D: Disk> Upload<D> {
    /// Makes the temporary file. What was listed until now is durable then.
    pub(super) fn begin(inner: &Arc<Inner<D>>) -> Result<Self, LocalError> {
        inner.settle()?;
        let path = inner.temporary_path()?;
        let file = match inner.disk.create(&path, false) {
            // `tmp/` was known and is gone: make it anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                inner.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
                inner.temporary_path()?;
                inner.disk.create(&path, false)
            }
            result => result,
        };
        let file = file.map_err(|error| LocalError::io(Step::Create, &path, error))?;
        Ok(Self { inner: Arc::clone(inner), file, path, len: 0, named: false })
    }

    /// Adds to its end.
    pub(super) fn write(&mut self, part: &[u8]) -> Result<(), LocalError> {
        let written = self.inner.disk.write_at(&self.file, part, self.len);
        written.map_err(|error| LocalError::io(Step::Write, &self.path, error))?;
        self.len += part.len() as u64;
        Ok(())
    }

    /// Makes it durable under its name; `false` if something has the name already, and that is durable then.
    pub(super) fn commit(mut self, target: &Path) -> Result<bool, LocalError> {
        self.inner.sync_file(&self.path, &self.file)?;
        match self.name(target) {
            // A directory that was known is gone: learn them anew.
            Err(error) if error.is_missing() => {
                self.inner.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.name(target)
            }
            result => result,
        }
    }

    fn name(&mut self, target: &Path) -> Result<bool, LocalError> {
        let parent = target.parent().unwrap_or(&self.inner.root);
        self.inner.ensure_directory(parent)?;
        match self.inner.disk.rename_new(&self.path, target) {
            Ok(()) => self.named = true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(LocalError::io(Step::Rename, target, error)),
        }
        self.inner.sync_directory(parent)?;
        Ok(self.named)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::hooked::{Hook, Hooked};
    use super::super::{LocalOptions, LocalStore};
    use super::*;
    use crate::clock::SystemClock;
    use crate::store::tests::env_with;

    type Steps = Arc<Mutex<Vec<(Step, PathBuf)>>>;

    /// A store whose steps are noted, and one of which fails.
    fn noted(root: &Path, fails: Option<Step>) -> (LocalStore<Hooked>, Steps) {
        let steps = Steps::default();
        let note = Arc::clone(&steps);
        let hook: Hook = Arc::new(move |step, path| {
            note.lock().unwrap().push((step, path.to_owned()));
            if Some(step) == fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
        });
        let env = env_with(SystemClock::new()).0;
        let store = LocalStore::on_disk(Hooked(hook), root.to_owned(), LocalOptions::default(), &env);
        (store.unwrap(), steps)
    }

    #[test]
    fn content_is_durable_before_its_name_and_the_name_before_it_is_told() {
        let place = tempfile::tempdir().unwrap();
        let (store, steps) = noted(place.path(), None);
        let target = place.path().join("packs/ab/x");
        for wanted in [true, false] {
            steps.lock().unwrap().clear();
            let mut upload = Upload::begin(&store.0).unwrap();
            upload.write(b"content").unwrap();
            assert_eq!(upload.commit(&target).unwrap(), wanted);
            let steps = steps.lock().unwrap();
            let at = |step, path: &Path| {
                steps.iter().rposition(|noted| *noted == (step, path.to_owned())).unwrap()
            };
            let synced = steps.iter().position(|(step, _)| *step == Step::SyncFile).unwrap();
            let named = at(Step::Rename, &target);
            let last = at(Step::SyncDirectory, &place.path().join("packs/ab"));
            assert!(synced < named && named < last, "{steps:?}");
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"content");
        assert_eq!(std::fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_step_that_fails_shows_and_leaves_nothing() {
        for step in [Step::Create, Step::Write, Step::SyncFile, Step::Rename] {
            let place = tempfile::tempdir().unwrap();
            let (store, _) = noted(place.path(), Some(step));
            let stored = Upload::begin(&store.0).and_then(|mut upload| {
                upload.write(b"content")?;
                upload.commit(&place.path().join("x"))
            });
            assert!(stored.is_err() && !place.path().join("x").exists(), "{step}");
            assert_eq!(std::fs::read_dir(place.path().join("tmp")).unwrap().count(), 0, "{step}");
        }
    }
}
