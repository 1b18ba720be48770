//! A log that is shown only if something went wrong: standard output and standard error of this process and of all it starts
//! go to files without a name, and come back when that is known. So a log of any length takes no memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::stdio::{dup2_stderr, dup2_stdout};

/// Both outputs, held back. Dropped before it is told that all went well, as in a panic, it shows the log.
#[derive(Debug)]
pub(crate) struct Held {
    out: Stream,
    err: Stream,
    show: bool,
}

#[derive(Debug)]
struct Stream {
    real: OwnedFd,
    log: File,
}

impl Held {
    /// Holds both back from now on.
    pub(crate) fn begin() -> io::Result<Self> {
        let out = Stream { real: io::stdout().as_fd().try_clone_to_owned()?, log: nameless()? };
        let err = Stream { real: io::stderr().as_fd().try_clone_to_owned()?, log: nameless()? };
        dup2_stdout(&out.log)?;
        dup2_stderr(&err.log)?;
        Ok(Self { out, err, show: true })
    }

    /// Gives both back, and shows what they got if something went wrong.
    pub(crate) fn end(mut self, good: bool) {
        self.show = !good;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What cannot be shown any more helps nobody: the exit code tells.
        let _ = io::stdout().flush();
        let _ = dup2_stderr(&self.err.real);
        let _ = dup2_stdout(&self.out.real);
        if self.show {
            let _ = copy(&mut self.err.log, &mut io::stderr().lock());
            let _ = copy(&mut self.out.log, &mut io::stdout().lock());
        }
    }
}

fn copy(log: &mut File, to: &mut impl Write) -> io::Result<()> {
    log.seek(SeekFrom::Start(0))?;
    io::copy(log, to)?;
    to.flush()
}

/// A file that is gone when it is closed, in the directory for temporary files.
fn nameless() -> io::Result<File> {
    let directory = std::env::temp_dir();
    for number in 0..1000 {
        let path = directory.join(format!(".lifeboat-log-{}-{number}", std::process::id()));
        match OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
