//! The environment of the process, read once, so that everything else can be tested with another one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use lifeboat::store::Environment;

/// What the process was started with.
#[derive(Clone, Default)]
pub(crate) struct Surroundings {
    variables: BTreeMap<OsString, OsString>,
    /// Whether the process runs as root, whose files lie elsewhere.
    pub(crate) is_root: bool,
    /// The directory that relative paths start from.
    pub(crate) directory: PathBuf,
}

impl Surroundings {
    /// Reads them.
    pub(crate) fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            is_root: rustix::process::geteuid().is_root(),
            directory: std::env::current_dir().unwrap_or_default(),
        }
    }

    /// A variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that is set, empty or not.
    pub(crate) fn get_even_empty(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// A variable that holds an absolute path; a relative one counts as not set, as the XDG specification says.
    pub(crate) fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The variables that hold a secret of this program, or say where one is: no command that is saved needs to see them.
    pub(crate) fn secrets(&self) -> Vec<OsString> {
        self.variables.keys().filter(|name| is_own_secret(name.as_bytes())).cloned().collect()
    }

    /// The variables for a command around a job: besides [`Self::secrets`], none of a cloud, and none that would tell another
    /// call of this program what was meant for this one.
    pub(crate) fn without_secrets(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        let withheld = |name: &OsStr| {
            let starts = ["LIFEBOAT_", "AWS_", "AZURE_", "GOOGLE_", "RESTIC_"];
            let name = name.as_bytes();
            is_own_secret(name) || starts.iter().any(|start| name.starts_with(start.as_bytes()))
        };
        let all = self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
        all.filter(move |(name, _)| !withheld(name))
    }

    /// What the chains of cloud credentials may look at.
    pub(crate) fn for_store(&self) -> Environment {
        let utf8 = |(name, value): (&OsString, &OsString)| {
            Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()))
        };
        Environment {
            variables: self.variables.iter().filter_map(utf8).collect(),
            home: self.absolute("HOME"),
            terminal: std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, is_root: false, directory: PathBuf::from("/somewhere") }
    }
}

/// Whether a variable holds what opens a repository, or says where it is: a secret of this program, a password of restic for
/// `import`, or the directory of systemd's credentials.
fn is_own_secret(name: &[u8]) -> bool {
    if name == b"CREDENTIALS_DIRECTORY" || name.starts_with(b"RESTIC_PASSWORD") {
        return true;
    }
    let name = name.strip_prefix(b"LIFEBOAT_").unwrap_or_default();
    [&b"PASSWORD"[..], b"KEY", b"WORDS", b"TOKEN"].iter().any(|word| {
        [&b""[..], b"_FILE", b"_COMMAND"]
            .iter()
            .any(|end| name.strip_suffix(*end).is_some_and(|rest| rest.ends_with(word)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_is_known_and_nothing_else() {
        let secret = [
            "CREDENTIALS_DIRECTORY",
            "LIFEBOAT_FROM_PASSWORD_COMMAND",
            "LIFEBOAT_KEY_FILE",
            "LIFEBOAT_PASSWORD",
            "LIFEBOAT_PASSWORD_FILE",
            "LIFEBOAT_TOKEN",
            "LIFEBOAT_TO_TOKEN_FILE",
            "LIFEBOAT_WORDS_FILE",
            "RESTIC_PASSWORD",
            "RESTIC_PASSWORD_COMMAND",
            "RESTIC_PASSWORD_FILE",
        ];
        let meant_for_this_run = [
            "AWS_SECRET_ACCESS_KEY",
            "AZURE_STORAGE_ACCOUNT",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "LIFEBOAT_REPO",
            "LIFEBOAT_SSH_COMMAND",
            "RESTIC_REPOSITORY",
        ];
        let other = ["MYLIFEBOAT_PASSWORD", "MY_CREDENTIALS_DIRECTORY", "PATH", "PGPASSWORD"];
        let all: Vec<_> =
            secret.iter().chain(&meant_for_this_run).chain(&other).map(|name| (*name, "x")).collect();
        let around = Surroundings::of(&all);
        assert_eq!(around.secrets(), secret);
        assert!(around.without_secrets().map(|(name, _)| name).eq(other));
    }
}
