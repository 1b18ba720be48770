//! What goes wrong in the command line itself. Everything else is the library's error.

use std::io;
use std::path::PathBuf;

use lifeboat::class::Class;
use lifeboat::crypto::CryptoError;
use lifeboat::error::Error;
use lifeboat::filter::FilterError;
use lifeboat::serve::door::ServeError;
use lifeboat::serve::listen::ListenError;
use lifeboat::store::StoreError;

use super::config::{Fault, Unsafe};

/// A failure of a run, with what `report` needs to suggest the next step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The library failed.
    #[error(transparent)]
    Library(#[from] Error),
    /// The configuration is wrong, in one place or in several.
    #[error("the configuration is wrong: {}", several(faults))]
    Config { faults: Vec<Fault> },
    /// A configuration that is not to be trusted.
    #[error(transparent)]
    UnsafeConfig(Unsafe),
    /// There is no such job in the configuration.
    #[error("the configuration has no job {name:?}")]
    NoJob { name: String, nearest: Option<String> },
    /// Jobs are to be run, and there are none.
    #[error("there is no job to run")]
    NoJobs,
    /// A job says itself where it is saved to.
    #[error("--repo says nothing to `run`: each job names its repository")]
    RepositoryOfJobs,
    /// A hook of a job failed.
    #[error("the hook `{hook}` ended with {status}")]
    Hook { hook: &'static str, status: std::process::ExitStatus },
    /// A hook of a job could not be started.
    #[error("cannot run the hook `{hook}`")]
    HookStart {
        hook: &'static str,
        #[source]
        source: io::Error,
    },
    /// A hook of a job took too long.
    #[error("the hook `{hook}` took longer than {limit:?}, and was ended")]
    HookTime { hook: &'static str, limit: std::time::Duration },
    /// An option that what is installed would not have.
    #[error("{option} would not hold for the jobs that are started later")]
    NotCarried { option: &'static str },
    /// A unit that starts the jobs in another way.
    #[error("{} starts the jobs in another way: {there}", path.display())]
    OtherUnit { path: PathBuf, there: String },
    /// A token that would be sent to several servers.
    #[error("{given} would be sent to each https:// server of the configuration")]
    TokenOfSeveral { given: &'static str },
    /// A unit of this name that somebody else wrote.
    #[error("{} was not written by this program", path.display())]
    ForeignUnit { path: PathBuf },
    /// systemd was not to be told.
    #[error("`{call}` failed: {why}")]
    Systemctl { call: String, why: String },
    /// What is remembered of a job cannot be kept.
    #[error("cannot keep the state of {kind} {name}")]
    State {
        kind: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
    /// Another run of the job is at work.
    #[error("another run of {kind} {name} is at work")]
    AtWork { kind: &'static str, name: String },
    /// The keys of a job do not go together.
    #[error("job {name} cannot run: {why}")]
    BadJob { name: String, why: String },
    /// Several repositories are configured, and none is named.
    #[error("no repository is named, and the configuration has several: {}", names.join(", "))]
    WhichRepository { names: Vec<String> },
    /// A systemd credential is asked for outside of a unit that has it.
    #[error("there is no credential {name:?}, because CREDENTIALS_DIRECTORY is not set")]
    NoCredential { name: String },
    /// No directory for something, because there is no home directory.
    #[error("there is no {what}, because HOME is not set")]
    NoHome { what: &'static str, option: &'static str },
    /// What a bucket was is only read.
    #[error("`{verb}` stores or deletes something, and what the repository was before cannot be changed")]
    PastIsReadOnly { verb: &'static str },
    /// `init` must be told where.
    #[error("no repository is named")]
    NoRepositoryNamed,
    /// `copy` must be told where to.
    #[error("no repository to copy to is named")]
    NoOtherRepository,
    /// A second repository could not be opened.
    #[error("cannot open the other repository, {place}")]
    OfOther {
        place: String,
        #[source]
        error: Box<CliError>,
    },
    /// The repository of another tool could not be opened.
    #[error("cannot open the restic repository, {place}")]
    OfForeign {
        place: String,
        #[source]
        error: Box<CliError>,
    },
    /// Nothing is named, and the default repository was not made yet.
    #[error("no repository is named, and the default one, {}, does not exist", place.display())]
    NoDefaultRepository { place: PathBuf },
    /// The default repository is gone and its key is not.
    #[error("the key {} is there, but its repository {} is not", key_file.display(), place.display())]
    DefaultRepositoryGone { place: PathBuf, key_file: PathBuf },
    /// More than one way to open the repository.
    #[error("{first} and {second} cannot be used together")]
    TwoSecrets { first: &'static str, second: &'static str },
    /// An anchor is required of a repository that is not opened.
    #[error("--require-anchor is for verbs that open the repository: this one compares nothing with it")]
    AnchorNotChecked,
    /// No way to open the repository, and nobody to ask.
    #[error("no password and no key is given, and there is no terminal to ask at")]
    NoSecret,
    /// The wrong kind of secret for a new repository.
    #[error("{option} cannot make a repository")]
    NotForInit { option: &'static str },
    /// A password that cannot be one.
    #[error("the password of {origin} {fault}")]
    BadPassword { origin: String, fault: &'static str },
    /// Two different passwords were typed.
    #[error("the two passwords are not the same")]
    PasswordsDiffer,
    /// The repository has no recovery words, or the key is not an admin's.
    #[error("this key knows no recovery words")]
    NoRecoveryWords,
    /// The words that this key knows open nothing any more.
    #[error("the recovery words that this key knows were replaced")]
    WordsReplaced,
    /// New recovery words must go somewhere.
    #[error("there is no terminal to show recovery words at")]
    NoWordsPlace,
    /// Nothing to check.
    #[error("no recovery words are given, and there is no terminal to ask at")]
    NoWordsToCheck,
    /// The words that were typed are no recovery words.
    #[error("these are no recovery words")]
    BadWords(#[source] CryptoError),
    /// Words that were shown were not typed back.
    #[error("the words were not typed back, so nothing was changed")]
    WordsNotConfirmed,
    /// A file with a key or recovery words cannot be understood.
    #[error("cannot use {}", path.display())]
    BadKey {
        path: PathBuf,
        #[source]
        source: CryptoError,
    },
    /// A variable of the environment has a value that means nothing.
    #[error("{name} is not {wanted}")]
    BadVariable { name: &'static str, wanted: &'static str },
    /// A file with a secret cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The command that should print the password did not.
    #[error("the password command ended with {status}")]
    PasswordCommand { status: std::process::ExitStatus },
    /// The command that should print the password could not be started.
    #[error("cannot run the password command")]
    PasswordCommandStart(#[source] io::Error),
    /// The password could not be asked for.
    #[error("cannot ask for the password")]
    Prompt(#[source] io::Error),
    /// A key file stands where a new one should be made.
    #[error("{} exists already", path.display())]
    KeyFileExists { path: PathBuf },
    /// The new key file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The repository was made, but its only key could not be kept.
    #[error("the repository at {place} was made, but its key could not be written to {}", path.display())]
    KeyLost {
        place: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Standard input together with something else.
    #[error("`-` for standard input must be the only source")]
    StdinNotAlone,
    /// A dump of a server that is not the one of this machine, and no name for the job.
    #[error("{by} says which server is dumped, so the job needs a name: two servers would be one job")]
    UnnamedServer { by: String },
    /// Standard input is a terminal.
    #[error("standard input is a terminal, so there is nothing to save")]
    StdinIsTerminal,
    /// `restore --to-file` with what cannot be the name of a file.
    #[error("{} is not the name of a file", path.display())]
    NoFileName { path: PathBuf },
    /// `cat` without a path.
    #[error("a path is missing after the snapshot")]
    NoPath,
    /// `serve` started by hand.
    #[error("standard input is a terminal, and serve speaks to a program: sshd starts it")]
    ServeAtTerminal,
    /// The door was not opened, or not closed in good order.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Nobody can come to the server, or no token can be made.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The output could not be written; `BrokenPipe` when the reader went away.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The run's threads or signals could not be set up.
    #[error("cannot set up the run")]
    Setup(#[source] io::Error),
}

impl CliError {
    /// What kind of failure this is.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Library(error) => error.class(),
            Self::OfOther { error, .. } | Self::OfForeign { error, .. } => error.class(),
            Self::NoHome { .. }
            | Self::Config { .. }
            | Self::UnsafeConfig(_)
            | Self::NoJob { .. }
            | Self::BadJob { .. }
            | Self::NoJobs
            | Self::RepositoryOfJobs
            | Self::NotCarried { .. }
            | Self::TokenOfSeveral { .. }
            | Self::WhichRepository { .. }
            | Self::NoCredential { .. }
            | Self::PastIsReadOnly { .. }
            | Self::NoRepositoryNamed
            | Self::NoOtherRepository
            | Self::TwoSecrets { .. }
            | Self::NoSecret
            | Self::AnchorNotChecked
            | Self::NotForInit { .. }
            | Self::BadPassword { .. }
            | Self::PasswordsDiffer
            | Self::NoRecoveryWords
            | Self::WordsReplaced
            | Self::NoWordsPlace
            | Self::NoWordsToCheck
            | Self::BadWords(_)
            | Self::StdinNotAlone
            | Self::UnnamedServer { .. }
            | Self::StdinIsTerminal
            | Self::NoPath
            | Self::NoFileName { .. }
            | Self::ServeAtTerminal
            | Self::BadVariable { .. }
            | Self::Read { .. } => Class::Usage,
            Self::NoDefaultRepository { .. } | Self::DefaultRepositoryGone { .. } => Class::NoRepository,
            Self::BadKey { source, .. } => source.class(),
            Self::Serve(error) => error.class(),
            Self::Listen(error) => error.class(),
            Self::PasswordCommand { .. }
            | Self::PasswordCommandStart(_)
            | Self::Hook { .. }
            | Self::HookStart { .. }
            | Self::HookTime { .. }
            | Self::Systemctl { .. }
            | Self::Prompt(_)
            | Self::Setup(_) => Class::Failed,
            Self::KeyFileExists { .. }
            | Self::WordsNotConfirmed
            | Self::ForeignUnit { .. }
            | Self::OtherUnit { .. } => Class::Refused,
            Self::AtWork { .. } => Class::Busy,
            Self::State { source, .. }
            | Self::Write { source, .. }
            | Self::KeyLost { source, .. }
            | Self::Output(source) => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::NoSpace,
                _ => Class::Failed,
            },
        }
    }

    /// Whether nobody reads the output any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Output(error) | Self::Library(Error::Output(error)) => {
                error.kind() == io::ErrorKind::BrokenPipe
            }
            _ => false,
        }
    }
}

fn several(faults: &[Fault]) -> String {
    let first = faults.first().map(ToString::to_string).unwrap_or_default();
    match faults.len() {
        0 | 1 => first,
        2 => format!("{first} (and one more)"),
        count => format!("{first} (and {} more)", count - 1),
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self::Library(error.into())
    }
}

impl From<FilterError> for CliError {
    fn from(error: FilterError) -> Self {
        Self::Library(error.into())
    }
}
