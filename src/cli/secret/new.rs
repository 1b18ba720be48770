//! A secret that is to open a repository from now on.

use std::ffi::OsString;
use std::path::PathBuf;

use lifeboat::cancel::Cancel;
use lifeboat::crypto::slot::Unlock;
use lifeboat::crypto::{SecretKey, keyfile};
use lifeboat::error::Error;
use lifeboat::repo::Repository;

use super::super::args::NewSecretArgs;
use super::super::error::CliError;
use super::{NewKeyFile, password};

/// Where a new secret comes from.
pub(crate) enum NewSecret {
    /// A file with a password.
    PasswordFile(PathBuf),
    /// A command that prints a password.
    PasswordCommand(OsString),
    /// A key file that is made now.
    KeyFile(PathBuf),
    /// A person.
    Ask,
}

impl From<NewSecretArgs> for NewSecret {
    fn from(args: NewSecretArgs) -> Self {
        let NewSecretArgs { new_password_file, new_password_command, new_key_file } = args;
        // The parser takes one of them at most.
        let file = new_password_file.map(Self::PasswordFile);
        let command = new_password_command.map(Self::PasswordCommand);
        file.or(command).or(new_key_file.map(Self::KeyFile)).unwrap_or(Self::Ask)
    }
}

impl NewSecret {
    /// What is to open the repository. A key file is on the disk, whole, before anything in the store rests on it.
    pub(crate) async fn unlock(
        &self,
        repo: &Repository,
        warn: &dyn Fn(&str),
        cancel: &Cancel,
    ) -> Result<Unlock, CliError> {
        Ok(match self {
            Self::PasswordFile(path) => Unlock::Passphrase(password::read_file(path, warn)?),
            Self::PasswordCommand(command) => Unlock::Passphrase(password::run_command(command)?),
            Self::KeyFile(path) => {
                let file = NewKeyFile::create(path)?;
                let key = SecretKey::generate(&*repo.env().random).map_err(Error::from)?;
                let written = file.write(keyfile::encode(&repo.id(), &key).as_bytes());
                written.map_err(|source| CliError::Write { path: path.clone(), source })?;
                Unlock::KeyFile(key)
            }
            Self::Ask => Unlock::Passphrase(password::ask_twice("the new key", cancel).await?),
        })
    }

    /// The key file that is made.
    pub(crate) fn key_file(&self) -> Option<&PathBuf> {
        match self {
            Self::KeyFile(path) => Some(path),
            _ => None,
        }
    }
}
