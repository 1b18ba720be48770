//! How the repository is opened: choosing one source of the secret, and reading it.
//!
//! # Invariants
//! * Options count before the environment; two sources on one level are an error, never a silent choice.
//! * Exactly one trailing newline of a password is not part of it; nothing else is changed.
//! * Nobody is asked anything unless standard input and standard error are terminals.

mod key;
mod new;
mod password;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lifeboat::cancel::Cancel;
use lifeboat::crypto::slot::Unlock;
use lifeboat::crypto::{SecretKey, words};
use zeroize::Zeroizing;

use super::args::GlobalArgs;
use super::config::Section;
use super::environment::Surroundings;
use super::error::CliError;
pub(crate) use key::{NewKeyFile, create_private_dir};
pub(crate) use new::NewSecret;
pub(crate) use password::is_person;

/// Where the secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    /// A file with a password.
    PasswordFile(PathBuf),
    /// A command that prints a password.
    PasswordCommand(OsString),
    /// A password in the environment, with the name of its variable.
    Password(Zeroizing<Vec<u8>>, &'static str),
    /// A key file.
    KeyFile(PathBuf),
    /// A file with recovery words.
    WordsFile(PathBuf),
    /// Nothing is given.
    Ask,
}

/// What was typed to open a repository.
pub(crate) struct Typed {
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) password_command: Option<OsString>,
    pub(crate) words_file: Option<PathBuf>,
}

/// What options and variables are called: of a key file, a password file, a password command, recovery words, a password.
struct Names {
    options: [&'static str; 4],
    variables: [&'static str; 5],
}

macro_rules! names {
    ($option:literal, $variable:literal) => {
        Names {
            options: [
                concat!("--", $option, "key-file"),
                concat!("--", $option, "password-file"),
                concat!("--", $option, "password-command"),
                concat!("--", $option, "words-file"),
            ],
            variables: [
                concat!("LIFEBOAT_", $variable, "KEY_FILE"),
                concat!("LIFEBOAT_", $variable, "PASSWORD_FILE"),
                concat!("LIFEBOAT_", $variable, "PASSWORD_COMMAND"),
                concat!("LIFEBOAT_", $variable, "WORDS_FILE"),
                concat!("LIFEBOAT_", $variable, "PASSWORD"),
            ],
        }
    };
}

const OWN: Names = names!("", "");
const OTHER: Names = names!("to-", "TO_");
/// Of another tool's repository.
const FOREIGN: Names = names!("from-", "FROM_").of_password_only();

impl Names {
    /// Without those of key files and recovery words: no variable has an empty name.
    const fn of_password_only(self) -> Self {
        let [_, file, command, _] = self.options;
        let [_, file_variable, command_variable, _, password] = self.variables;
        Self {
            options: ["", file, command, ""],
            variables: ["", file_variable, command_variable, "", password],
        }
    }
}

impl Secret {
    /// Chooses by options, then by environment.
    pub(crate) fn choose(args: &GlobalArgs, around: &Surroundings) -> Result<Self, CliError> {
        let typed = Typed {
            key_file: args.key_file.clone(),
            password_file: args.password_file.clone(),
            password_command: args.password_command.clone(),
            words_file: args.words_file.clone(),
        };
        Self::choose_by(&OWN, typed, around)
    }

    /// The same for a second repository.
    pub(crate) fn choose_other(typed: Typed, around: &Surroundings) -> Result<Self, CliError> {
        Self::choose_by(&OTHER, typed, around)
    }

    /// The same for another tool's repository.
    pub(crate) fn choose_foreign(typed: Typed, around: &Surroundings) -> Result<Self, CliError> {
        Self::choose_by(&FOREIGN, typed, around)
    }

    /// What the configuration says of a repository; nothing is asked of the file that it names yet.
    pub(crate) fn of_file(repository: &Section, around: &Surroundings) -> Result<Self, CliError> {
        let path = |key: &str| repository.text(key).map(PathBuf::from);
        let credential = |key: &str| -> Result<Option<PathBuf>, CliError> {
            let Some(name) = repository.text(key) else { return Ok(None) };
            let directory = around.absolute("CREDENTIALS_DIRECTORY");
            let directory = directory.ok_or_else(|| CliError::NoCredential { name: name.to_owned() })?;
            Ok(Some(directory.join(name)))
        };
        let key = path("key-file").or(credential("key-credential")?).map(Self::KeyFile);
        let password = path("password-file").or(credential("password-credential")?).map(Self::PasswordFile);
        let command = repository.text("password-command").map(|text| Self::PasswordCommand(text.into()));
        let words = path("words-file").map(Self::WordsFile);
        Ok(key.or(password).or(command).or(words).unwrap_or(Self::Ask))
    }

    fn choose_by(names: &Names, typed: Typed, around: &Surroundings) -> Result<Self, CliError> {
        let Names { options, variables } = names;
        let typed = only_one([
            (options[0], typed.key_file.map(Self::KeyFile)),
            (options[1], typed.password_file.map(Self::PasswordFile)),
            (options[2], typed.password_command.map(Self::PasswordCommand)),
            (options[3], typed.words_file.map(Self::WordsFile)),
            ("", None),
        ])?;
        if let Some(secret) = typed {
            return Ok(secret);
        }
        let path = |name: &str| around.get(name).map(PathBuf::from);
        let password = around.get_even_empty(variables[4]);
        let password = password.map(|p| Zeroizing::new(p.as_encoded_bytes().to_vec()));
        let command = around.get(variables[2]).map(ToOwned::to_owned);
        let found = only_one([
            (variables[0], path(variables[0]).map(Self::KeyFile)),
            (variables[1], path(variables[1]).map(Self::PasswordFile)),
            (variables[2], command.map(Self::PasswordCommand)),
            (variables[3], path(variables[3]).map(Self::WordsFile)),
            (variables[4], password.map(|bytes| Self::Password(bytes, variables[4]))),
        ])?;
        Ok(found.unwrap_or(Self::Ask))
    }

    /// Whether something is given.
    pub(crate) fn is_given(&self) -> bool {
        *self != Self::Ask
    }

    /// What opens an existing repository, which a question calls by `name`. Warnings go to `warn`; a raised `cancel` ends a
    /// question.
    pub(crate) async fn unlock(
        &self,
        name: &str,
        warn: &dyn Fn(&str),
        cancel: &Cancel,
    ) -> Result<Unlock, CliError> {
        match self {
            Self::KeyFile(path) => key::read_key_file(path, warn).map(Unlock::KeyFile),
            Self::WordsFile(path) => key::read_words(path, warn).map(Unlock::Words),
            _ => match self.password(warn)? {
                Some(password) => Ok(Unlock::Passphrase(password)),
                None => password::ask(name, cancel).await.map(Unlock::Passphrase),
            },
        }
    }

    /// The password of something that a question calls by `name`, as [`Self::unlock`].
    pub(crate) async fn passphrase(
        &self,
        name: &str,
        warn: &dyn Fn(&str),
        cancel: &Cancel,
    ) -> Result<Zeroizing<String>, CliError> {
        match self.password(warn)? {
            Some(password) => Ok(password),
            None => password::ask(name, cancel).await,
        }
    }

    /// The password of a new repository; a terminal is asked twice.
    pub(crate) async fn new_password(
        &self,
        warn: &dyn Fn(&str),
        cancel: &Cancel,
    ) -> Result<Zeroizing<String>, CliError> {
        match self {
            Self::KeyFile(_) => Err(CliError::NotForInit { option: "an existing key file" }),
            Self::WordsFile(_) => Err(CliError::NotForInit { option: "a file of recovery words" }),
            _ => match self.password(warn)? {
                Some(password) => Ok(password),
                None => password::ask_twice("the new repository", cancel).await,
            },
        }
    }

    /// The given password; `None` if a person must be asked.
    fn password(&self, warn: &dyn Fn(&str)) -> Result<Option<Zeroizing<String>>, CliError> {
        match self {
            Self::PasswordFile(path) => password::read_file(path, warn).map(Some),
            Self::PasswordCommand(command) => password::run_command(command).map(Some),
            Self::Password(bytes, variable) => password::check(bytes.clone(), variable).map(Some),
            _ => Ok(None),
        }
    }
}

/// Asks a person for recovery words.
///
/// # Errors
/// [`CliError::BadWords`] if what was typed is none.
pub(crate) async fn ask_words(question: &str, cancel: &Cancel) -> Result<SecretKey, CliError> {
    let typed = password::ask_line(question, cancel).await?;
    words::decode(&typed).map_err(CliError::BadWords)
}

fn only_one(choices: [(&'static str, Option<Secret>); 5]) -> Result<Option<Secret>, CliError> {
    let mut found: Option<(&'static str, Secret)> = None;
    for (name, secret) in choices {
        match (secret, found.take()) {
            (Some(_), Some((first, _))) => return Err(CliError::TwoSecrets { first, second: name }),
            (Some(secret), None) => found = Some((name, secret)),
            (None, before) => found = before,
        }
    }
    Ok(found.map(|(_, secret)| secret))
}

/// A file with a secret, at most 64 KiB, with a warning if others may read it.
fn read_secret_file(path: &Path, warn: &dyn Fn(&str)) -> Result<Zeroizing<Vec<u8>>, CliError> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    const MOST: u64 = 64 << 10;
    let failed = |source| CliError::Read { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        warn(&format!("others may read {}; run: chmod 600 {0}", path.display()));
    }
    // Reserved once, so that no copy is left behind when the buffer grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::Cli;
    use super::*;

    fn choose(options: &[&str], variables: &[(&str, &str)]) -> Result<Secret, CliError> {
        let line = ["lifeboat", "stats"].into_iter().chain(options.iter().copied());
        let cli = Cli::try_parse_from(line).unwrap();
        Secret::choose(&cli.global, &Surroundings::of(variables))
    }

    #[test]
    fn options_count_before_the_environment() {
        let secret = choose(&["--key-file", "k"], &[("LIFEBOAT_PASSWORD", "x")]).unwrap();
        assert!(secret == Secret::KeyFile("k".into()));
        let secret = choose(&[], &[("LIFEBOAT_PASSWORD_FILE", "p")]).unwrap();
        assert!(secret == Secret::PasswordFile("p".into()));
        assert!(!choose(&[], &[("LIFEBOAT_KEY_FILE", "")]).unwrap().is_given());
        assert!(
            choose(&[], &[("LIFEBOAT_PASSWORD", "")]).unwrap().is_given(),
            "an empty password is an error, not absent"
        );
    }

    #[test]
    fn the_other_repository_has_options_and_variables_of_its_own() {
        let nothing =
            || Typed { key_file: None, password_file: None, password_command: None, words_file: None };
        let both = [("LIFEBOAT_KEY_FILE", "own"), ("LIFEBOAT_TO_PASSWORD_FILE", "other")];
        let around = Surroundings::of(&both);
        let other = Secret::choose_other(nothing(), &around).unwrap();
        assert!(other == Secret::PasswordFile("other".into()));
        let typed = Typed { words_file: Some("w".into()), ..nothing() };
        assert!(Secret::choose_other(typed, &around).unwrap() == Secret::WordsFile("w".into()));
        let own = Surroundings::of(&both[..1]);
        assert!(
            !Secret::choose_other(nothing(), &own).unwrap().is_given(),
            "the first one's key is not tried"
        );
        let two = Surroundings::of(&[("LIFEBOAT_TO_PASSWORD", "x"), ("LIFEBOAT_TO_KEY_FILE", "k")]);
        let error = Secret::choose_other(nothing(), &two).err().unwrap();
        assert!(error.to_string().contains("LIFEBOAT_TO_PASSWORD"), "{error}");
    }

    #[test]
    fn another_tools_repository_opens_with_a_password_of_its_own() {
        let nothing =
            || Typed { key_file: None, password_file: None, password_command: None, words_file: None };
        let around =
            Surroundings::of(&[("LIFEBOAT_PASSWORD", "own"), ("LIFEBOAT_FROM_PASSWORD_COMMAND", "pass x")]);
        let foreign = Secret::choose_foreign(nothing(), &around).unwrap();
        assert!(foreign == Secret::PasswordCommand("pass x".into()));
        let typed = Typed { password_file: Some("f".into()), ..nothing() };
        assert!(Secret::choose_foreign(typed, &around).unwrap() == Secret::PasswordFile("f".into()));
        let own = Surroundings::of(&[("LIFEBOAT_PASSWORD", "own"), ("LIFEBOAT_KEY_FILE", "k")]);
        assert!(!Secret::choose_foreign(nothing(), &own).unwrap().is_given());
    }

    #[test]
    fn two_sources_on_one_level_are_refused() {
        for (options, variables) in [
            (&["--key-file", "k", "--password-file", "p"][..], &[][..]),
            (&["--password-command", "c", "--password-file", "p"], &[]),
            (&[], &[("LIFEBOAT_KEY_FILE", "k"), ("LIFEBOAT_PASSWORD", "p")]),
        ] {
            assert!(matches!(choose(options, variables), Err(CliError::TwoSecrets { .. })), "{options:?}");
        }
    }
}
