//! What a caller may choose about a store.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock::{Clock, Timestamp};
use crate::event::Observer;
use crate::random::Random;

/// The environment of the process as far as credentials are looked for in it. The library reads none by itself.
#[derive(Clone, Default)]
pub struct Environment {
    /// Variables by name.
    pub variables: BTreeMap<String, String>,
    /// The user's home directory, where the clouds' own tools keep their files.
    pub home: Option<PathBuf>,
    /// Somebody is at a terminal, whom `ssh` may ask for a password.
    pub terminal: bool,
}

impl Environment {
    /// A variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.len())
            .field("home", &self.home)
            .finish()
    }
}

/// How a store is opened and treated.
#[derive(Clone)]
pub struct StoreOptions {
    /// `key=value` pairs, as given by `-o`. A key that the kind of store does not know is an error. For buckets the keys of
    /// `object_store`, and `create_only`; for directories `unsafe_no_fsync` and `direct_io`; for `ssh://` `ssh.command`, the
    /// program that connects and its first arguments, split at white space, and `ssh.program`, what it runs there; for `sftp://`
    /// `ssh.command` and `unsafe_no_fsync`;
    /// for `https://` `https.token_file` or `https.token_command`, and `https.ca_file`.
    pub options: Vec<(String, String)>,
    /// Most bytes a second sent, on average; `None` or zero for no limit.
    pub limit_upload: Option<u64>,
    /// Most bytes a second fetched; `None` or zero for no limit.
    pub limit_download: Option<u64>,
    /// How long a request is tried again when the store does not answer. Zero: never again.
    pub retry_for: Duration,
    /// Where credentials are looked for.
    pub environment: Environment,
    /// Reads a bucket that keeps versions as it was at this time of the store; nothing can be written then.
    pub as_of: Option<Timestamp>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            options: Vec::new(),
            limit_upload: None,
            limit_download: None,
            retry_for: Duration::from_secs(15 * 60),
            environment: Environment::default(),
            as_of: None,
        }
    }
}

/// Keys only: values may be secrets.
impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.options.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("StoreOptions")
            .field("options", &keys)
            .field("limit_upload", &self.limit_upload)
            .field("limit_download", &self.limit_download)
            .field("retry_for", &self.retry_for)
            .finish_non_exhaustive()
    }
}

/// The world a store lives in.
#[derive(Clone)]
pub struct StoreEnv {
    /// For waits between tries, rates, and the age of temporary files.
    pub clock: Arc<dyn Clock>,
    /// For jitter and unique names.
    pub random: Arc<dyn Random>,
    /// Told of every further try, and of names that are no keys.
    pub observer: Arc<dyn Observer>,
    /// Ends waiting. A request that has begun is not cut off.
    pub cancel: Cancel,
}

impl fmt::Debug for StoreEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreEnv")
            .field("random", &self.random)
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}
