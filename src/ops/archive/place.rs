//! The file an archive is written into, or what else stands there.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ArchiveOutput;
use crate::error::Error;
use crate::repo::RepoError;

/// Names that are tried for the file before it is complete.
const SPARE_NAMES: u32 = 1000;

/// What has to be done when the archive is complete. Dropped before that, nothing is left of a file.
pub(super) struct Place {
    spare: Option<Spare>,
}

struct Spare {
    file: File,
    /// Its name until then.
    spare: PathBuf,
    path: PathBuf,
    done: bool,
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Local { path: path.to_owned(), source }
}

impl Place {
    /// Opens it.
    pub(super) fn open(output: ArchiveOutput) -> Result<(Box<dyn Write + Send>, Self), Error> {
        let path = match output {
            ArchiveOutput::Stream(out) => return Ok((out, Self { spare: None })),
            ArchiveOutput::File(path) => path,
        };
        match std::fs::metadata(&path) {
            Ok(there) if there.is_file() => {
                let path = path.canonicalize().map_err(|error| failed(&path, error))?;
                Self::replace(path)
            }
            Ok(there) if there.is_dir() => Err(failed(&path, io::ErrorKind::IsADirectory.into())),
            Ok(there) => {
                let file =
                    OpenOptions::new().write(true).open(&path).map_err(|error| failed(&path, error))?;
                if there.file_type().is_char_device() && rustix::termios::isatty(&file) {
                    return Err(Error::OutputIsTerminal { path });
                }
                Ok((Box::new(file), Self { spare: None }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::replace(path),
            Err(error) => Err(failed(&path, error)),
        }
    }

    fn replace(path: PathBuf) -> Result<(Box<dyn Write + Send>, Self), Error> {
        let directory = directory_of(&path);
        for number in 0..SPARE_NAMES {
            let spare = directory.join(format!(".lifeboat-{}-{number}", std::process::id()));
            // It holds what may be nobody else's business.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&spare) {
                Ok(file) => {
                    let out = file.try_clone().map_err(|error| failed(&path, error))?;
                    return Ok((
                        Box::new(out),
                        Self { spare: Some(Spare { file, spare, path, done: false }) },
                    ));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(&path, error)),
            }
        }
        Err(failed(&path, io::ErrorKind::AlreadyExists.into()))
    }

    /// Gives a complete archive its name, when it is on the disk.
    pub(super) async fn commit(self) -> Result<(), Error> {
        let Some(spare) = self.spare else { return Ok(()) };
        let commit = move || {
            let path = spare.path.clone();
            spare.commit().map_err(|error| failed(&path, error))
        };
        tokio::task::spawn_blocking(commit).await.map_err(|_| RepoError::Task)?
    }
}

impl Spare {
    fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.spare, &self.path)?;
        self.done = true;
        File::open(directory_of(&self.path))?.sync_all()
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed now is an unfinished file that nothing reads.
            let _ = std::fs::remove_file(&self.spare);
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[tokio::test]
    async fn a_file_is_replaced_when_the_new_one_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, b"old").unwrap();
        let (mut out, place) = Place::open(ArchiveOutput::File(path.clone())).unwrap();
        out.write_all(b"half").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop((out, place));
        assert_eq!(names(dir.path()), ["a.tar"]);
        let (mut out, place) = Place::open(ArchiveOutput::File(path.clone())).unwrap();
        out.write_all(b"whole").unwrap();
        drop(out);
        place.commit().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["a.tar"]);
    }

    #[test]
    fn a_directory_and_a_missing_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("no/such")] {
            let opened = Place::open(ArchiveOutput::File(path));
            assert!(matches!(opened, Err(Error::Local { .. })));
        }
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("real"), b"").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let (_, place) = Place::open(ArchiveOutput::File(dir.path().join("link"))).unwrap();
        let expected = dir.path().canonicalize().unwrap().join("real");
        assert_eq!(place.spare.as_ref().map(|spare| spare.path.clone()), Some(expected));
    }
}
