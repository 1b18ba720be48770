//! Dumps of databases: what is run for a server, as the streams of a backup.
//!
//! # Invariants
//! Every stream knows how a whole one ends. The connection comes from the environment and the option files of the server's
//! own tools, which nothing here reads.
//!
//! # Must not
//! Ask for a password, or put one into an argument.

mod listing;
mod plan;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use listing::Listed;
pub use plan::DumpKind;

use super::backup::StreamSource;
use crate::error::Error;
use crate::event::Event;
use crate::repo::Env;
use crate::source::SourceError;
use crate::source::stream::{CommandStream, Step, Stream, wait_for};

/// Bytes of a list of databases; no server has as many.
const LIST_MAX: usize = 16 << 20;
/// What a list is called in messages.
const LIST: &str = "the list of databases";

/// A dump of everything that one server holds.
#[derive(Debug)]
pub struct DumpOptions {
    /// Which kind of server.
    pub kind: DumpKind,
    /// Arguments for every tool that is run, before those that are always given.
    pub arguments: Vec<OsString>,
    /// Names of variables that no tool gets to see.
    pub withheld: Vec<OsString>,
}

/// Asks the server which databases there are, and gives the streams that hold all of them.
///
/// # Errors
/// [`Error::CommandFailed`] if the server cannot be asked, gives no list, or does not let its account read everything.
pub async fn streams(env: &Env, options: DumpOptions) -> Result<Vec<StreamSource>, Error> {
    let env = env.clone();
    let work = tokio::task::spawn_blocking(move || {
        let DumpOptions { kind, arguments, withheld } = &options;
        let listed = match listing::question(*kind, arguments) {
            Some(command) => {
                let answer = read_list(&env, &command, withheld)?;
                listing::answer(*kind, &answer).map_err(failed)?
            }
            None => Listed::default(),
        };
        for name in &listed.broken {
            let name = String::from_utf8_lossy(name);
            let message = format!(
                "database {name} is left out: the server was stopped while it dropped it, and nothing can be read of it; drop it again"
            );
            env.observer.observe(&Event::Warning { message: &message });
        }
        Ok(plan::streams(*kind, arguments, &listed.databases))
    });
    work.await.map_err(|_| Error::from(crate::repo::RepoError::Task))?
}

/// Streams in the places that a dump of this kind takes whatever the server holds, to be compared with other places before
/// anybody is asked.
pub fn places(kind: DumpKind) -> Vec<StreamSource> {
    // No database is called so.
    plan::streams(kind, &[], &[vec![0]])
}

fn failed(source: SourceError) -> Error {
    match source {
        SourceError::Cancelled => Error::Cancelled,
        source => Error::CommandFailed { name: PathBuf::from(LIST), source: Box::new(source) },
    }
}

fn read_list(env: &Env, command: &[OsString], withheld: &[OsString]) -> Result<Vec<u8>, Error> {
    let (program, args) = command.split_first().ok_or(SourceError::NoInput)?;
    let started = CommandStream::start(Path::new(program), args, withheld);
    let mut stream = Stream::Command(started.map_err(failed)?);
    let mut say = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        env.observer.observe(&Event::Said { name: Path::new(LIST), line: &line });
    };
    let (mut listed, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        if env.cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        let ready = wait_for(std::iter::once(&stream))?.pop().unwrap_or_default();
        match stream.step(ready, env.clock.monotonic(), &mut buffer, &mut say).map_err(failed)? {
            Step::Bytes(len) if listed.len() + len <= LIST_MAX => listed.extend_from_slice(&buffer[..len]),
            Step::Bytes(_) => return Err(failed(SourceError::BadList)),
            Step::Nothing => {}
            Step::End => return Ok(listed),
        }
    }
}
