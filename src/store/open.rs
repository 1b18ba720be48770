//! From a location and options to a store. A new cloud is one more arm in [`open`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use zeroize::Zeroizing;

use super::as_of::AsOf;
use super::aws::Vault;
use super::door::{DoorStore, Host, Https, Roots, Ssh, Token, Trust, Web};
use super::error::{Cause, StoreError};
use super::files::Files;
use super::local::{LocalOptions, LocalStore};
use super::location::{Place, StoreUrl};
use super::options::{Environment, StoreEnv, StoreOptions};
use super::pool::Pool;
use super::sftp::{SftpOptions, SftpStore};
use super::{aws, azure, google};
use crate::class::Class;

/// Why a store could not be set up as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No such option for this kind of store.
    #[error("`{key}` is not an option of this kind of store")]
    UnknownOption {
        /// The option's name.
        key: String,
    },
    /// An option needs `true` or `false`.
    #[error("the option `{key}` must be true or false")]
    OptionValue {
        /// The option's name.
        key: String,
    },
    /// An option needs a value.
    #[error("the option `{key}` must not be empty")]
    EmptyOption {
        /// The option's name.
        key: String,
    },
    /// A directory must be given as an absolute path.
    #[error("{} is not an absolute path", path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// Requests and credentials would travel in the clear.
    #[error("{endpoint} is not encrypted; the option allow_http=true accepts that")]
    PlainHttp {
        /// The address.
        endpoint: String,
    },
    /// A file with credentials or settings cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The profile that was asked for is in no file.
    #[error("there is no AWS profile `{profile}`")]
    NoProfile {
        /// The profile.
        profile: String,
    },
    /// The profile gets its credentials in a way that only Amazon's own tools know.
    #[error(
        "the AWS profile `{profile}` uses `{setting}`; set credential_process = aws configure export-credentials \
         --profile {profile} in another profile, or export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Profile {
        /// The profile.
        profile: String,
        /// The setting that is not understood.
        setting: String,
    },
    /// The account of Azure storage is named nowhere.
    #[error("name the storage account: AZURE_STORAGE_ACCOUNT_NAME or the option account_name")]
    NoAccount,
    /// Of such a place nothing is known but what is there now.
    #[error("{url} is not a bucket of S3 or its relatives: what it was at another time cannot be read")]
    NoPast {
        /// Where.
        url: String,
    },
    /// The bucket keeps only what is there now.
    #[error("{url} keeps no versions of its objects: what it was at another time cannot be read")]
    NoVersions {
        /// Where.
        url: String,
    },
    /// No token is named for a server.
    #[error("no token is given for {url}")]
    NoToken {
        /// Where.
        url: String,
    },
    /// Two tokens are named for a server.
    #[error("{first} and {second} cannot be used together")]
    TwoTokens {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A file of certificates holds none.
    #[error("{} holds no certificates of authorities", path.display())]
    NoCertificates {
        /// The file.
        path: PathBuf,
    },
    /// There is nobody to believe that a server is the right one.
    #[error("this machine has no certificates of authorities")]
    NoRoots,
    /// The settings do not make a store.
    #[error("the settings of this store do not fit together")]
    Settings {
        /// What is wrong.
        #[source]
        source: Cause,
    },
}

impl OpenError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::File { .. } => Class::Denied,
            _ => Class::Usage,
        }
    }
}

impl From<object_store::Error> for OpenError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::UnknownConfigurationKey { key, .. } => Self::UnknownOption { key },
            object_store::Error::Generic { source, .. } => Self::Settings { source },
            other => Self::Settings { source: Box::new(other) },
        }
    }
}

/// A store that has not been asked anything yet.
pub(super) struct Opened {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Where objects are files.
    pub(super) files: Option<Files>,
    pub(super) create_only: bool,
    /// Versions and locks, where the store has them.
    pub(super) vault: Option<Arc<Vault>>,
}

impl Opened {
    /// A store of which only content is known.
    fn plain(objects: Arc<dyn ObjectStore>, create_only: bool) -> Self {
        Self { objects, files: None, create_only, vault: None }
    }

    /// A store whose objects are files.
    fn files(objects: Arc<dyn ObjectStore>, files: Files, create_only: bool) -> Self {
        Self { objects, files: Some(files), create_only, vault: None }
    }

    /// A directory behind a door, where nothing is replaced.
    fn behind(store: DoorStore) -> Self {
        let objects = Arc::new(store.clone());
        Self::files(objects, Files::Door(store), true)
    }
}

/// Options of ours taken out of the list, the rest for the client of a cloud.
pub(super) struct Taken {
    rest: Vec<(String, String)>,
}

impl Taken {
    fn new(options: &StoreOptions) -> Self {
        let rest =
            options.options.iter().map(|(key, value)| (key.to_ascii_lowercase(), value.clone())).collect();
        Self { rest }
    }

    /// The last value given for one of our own options.
    pub(super) fn switch(&mut self, name: &str) -> Result<Option<bool>, OpenError> {
        let mut found = None;
        for (key, value) in &self.rest {
            if key == name {
                found = Some(parse_bool(value).ok_or_else(|| OpenError::OptionValue { key: key.clone() })?);
            }
        }
        self.rest.retain(|(key, _)| key != name);
        Ok(found)
    }

    /// The last value given for one of our own options.
    fn text(&mut self, name: &str) -> Option<String> {
        let found = self.rest.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        self.rest.retain(|(key, _)| key != name);
        found
    }

    pub(super) fn into_rest(self) -> Vec<(String, String)> {
        self.rest
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Whether an endpoint may be spoken to: encrypted, on this machine, or allowed by the user.
pub(super) fn check_endpoint(endpoint: Option<&str>, allowed: Option<bool>) -> Result<bool, OpenError> {
    let Some(endpoint) = endpoint else { return Ok(allowed.unwrap_or(false)) };
    let plain = endpoint.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"));
    if !plain {
        return Ok(allowed.unwrap_or(false));
    }
    let host = url::Url::parse(endpoint).ok();
    let loopback = match host.as_ref().and_then(url::Url::host) {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match allowed {
        Some(true) => Ok(true),
        None if loopback => Ok(true),
        // The address may hold a user name; its host says enough.
        _ => Err(OpenError::PlainHttp {
            endpoint: host
                .and_then(|url| url.host_str().map(|host| format!("http://{host}")))
                .unwrap_or_default(),
        }),
    }
}

/// A text file, or `None` where there is none.
pub(super) fn read_optional(path: &Path) -> Result<Option<String>, OpenError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(OpenError::File { path: path.to_owned(), source }),
    }
}

pub(super) async fn open(
    url: &StoreUrl,
    options: &StoreOptions,
    env: &StoreEnv,
    pool: &Pool,
) -> Result<Opened, StoreError> {
    let mut taken = Taken::new(options);
    if options.as_of.is_some() && !matches!(url.place, Place::S3 { .. }) {
        return Err(OpenError::NoPast { url: url.to_string() }.into());
    }
    match &url.place {
        Place::Local(path) => {
            if !path.is_absolute() {
                return Err(OpenError::Relative { path: path.clone() }.into());
            }
            let defaults = LocalOptions::default();
            let local = LocalOptions {
                fsync: !taken.switch("unsafe_no_fsync")?.unwrap_or(!defaults.fsync),
                direct_io: taken.switch("direct_io")?.unwrap_or(defaults.direct_io),
            };
            none_left(taken)?;
            let store = LocalStore::with_pool(path.clone(), local, env, pool.clone())?;
            Ok(Opened::files(Arc::new(store.clone()), Files::Local(store), false))
        }
        Place::Memory => {
            none_left(taken)?;
            Ok(Opened::plain(Arc::new(InMemory::new()), false))
        }
        Place::Ssh(host) => {
            let store = ssh(url, host, taken, &options.environment)?;
            Ok(Opened::behind(store))
        }
        Place::Sftp(host) => {
            let fsync = !taken.switch("unsafe_no_fsync")?.unwrap_or(false);
            let command = ssh_command(&mut taken, &options.environment)?;
            none_left(taken)?;
            let ssh = Ssh::subsystem(host, &command, "sftp", options.environment.terminal);
            let place = (host.path.as_str(), url.to_string());
            let store = SftpStore::new(Arc::new(ssh), place, SftpOptions { fsync }, env)?;
            Ok(Opened::files(Arc::new(store.clone()), Files::Sftp(store), true))
        }
        Place::Https(web) => Ok(Opened::behind(https(url, web, taken, &options.environment)?)),
        Place::S3 { bucket, .. } => {
            let create_only = taken.switch("create_only")?.unwrap_or(false);
            let vault = Arc::new(aws::open(bucket, taken, &options.environment, env)?);
            let s3 = Arc::clone(&vault.s3);
            let objects: Arc<dyn ObjectStore> = match options.as_of {
                Some(time) => Arc::new(AsOf::new(s3, Arc::clone(&vault), time)),
                None => s3,
            };
            Ok(Opened { objects, files: None, create_only, vault: Some(vault) })
        }
        place => {
            let create_only = taken.switch("create_only")?.unwrap_or(false);
            let objects: Arc<dyn ObjectStore> = match place {
                Place::Google { bucket, .. } => Arc::new(google::open(bucket, taken, &options.environment)?),
                Place::Azure { account, container, .. } => {
                    Arc::new(azure::open(account.as_deref(), container, taken, &options.environment)?)
                }
                Place::S3 { .. }
                | Place::Local(_)
                | Place::Memory
                | Place::Ssh(_)
                | Place::Sftp(_)
                | Place::Https(_) => Arc::new(InMemory::new()),
            };
            Ok(Opened::plain(objects, create_only))
        }
    }
}

/// The option counts before the environment, and `ssh` is what there is without both.
fn ssh_command(taken: &mut Taken, environment: &Environment) -> Result<String, OpenError> {
    let command = taken.text("ssh.command");
    let command = command.as_deref().or(environment.get("LIFEBOAT_SSH_COMMAND")).unwrap_or("ssh").to_owned();
    if command.split_ascii_whitespace().next().is_none() {
        return Err(OpenError::EmptyOption { key: "ssh.command".to_owned() });
    }
    Ok(command)
}

fn ssh(
    url: &StoreUrl,
    host: &Host,
    mut taken: Taken,
    environment: &Environment,
) -> Result<DoorStore, OpenError> {
    let command = ssh_command(&mut taken, environment)?;
    let program = taken.text("ssh.program").unwrap_or_else(|| "lifeboat".to_owned());
    none_left(taken)?;
    let ssh = Ssh::new(host, &command, &program, environment.terminal);
    Ok(DoorStore::new(Arc::new(ssh), host.path.clone(), url.to_string()))
}

/// Options count before the environment.
fn https(
    url: &StoreUrl,
    web: &Web,
    mut taken: Taken,
    environment: &Environment,
) -> Result<DoorStore, OpenError> {
    let authorities = taken.text("https.ca_file");
    let authorities = authorities.as_deref().or(environment.get("LIFEBOAT_CA_FILE")).map(PathBuf::from);
    let typed = one_token([
        ("https.token_file", taken.text("https.token_file").map(|path| Token::File(path.into()))),
        ("https.token_command", taken.text("https.token_command").map(Token::Command)),
        ("", None),
    ])?;
    none_left(taken)?;
    let found = |name| environment.get(name).map(str::to_owned);
    let token = match typed {
        Some(token) => Some(token),
        None => one_token([
            ("LIFEBOAT_TOKEN_FILE", found("LIFEBOAT_TOKEN_FILE").map(|path| Token::File(path.into()))),
            ("LIFEBOAT_TOKEN_COMMAND", found("LIFEBOAT_TOKEN_COMMAND").map(Token::Command)),
            ("LIFEBOAT_TOKEN", found("LIFEBOAT_TOKEN").map(|token| Token::Given(Zeroizing::new(token)))),
        ])?,
    };
    let token = token.ok_or_else(|| OpenError::NoToken { url: url.to_string() })?;
    let roots = match (web.pin, authorities) {
        (Some(pin), _) => Roots::Pinned(pin),
        (None, Some(path)) => Roots::File(path),
        (None, None) => Roots::System,
    };
    let https = Https::new(web, Trust::new(&roots)?, token);
    // The server goes by the path of the request.
    Ok(DoorStore::new(Arc::new(https), String::new(), url.to_string()))
}

fn one_token(choices: [(&'static str, Option<Token>); 3]) -> Result<Option<Token>, OpenError> {
    let mut found: Option<(&'static str, Token)> = None;
    for (name, token) in choices {
        match (token, &found) {
            (Some(_), Some((first, _))) => return Err(OpenError::TwoTokens { first, second: name }),
            (Some(token), None) => found = Some((name, token)),
            (None, _) => {}
        }
    }
    Ok(found.map(|(_, token)| token))
}

fn none_left(taken: Taken) -> Result<(), OpenError> {
    match taken.into_rest().into_iter().next() {
        Some((key, _)) => Err(OpenError::UnknownOption { key }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only_unless_allowed() {
        for (endpoint, allowed, wanted) in [
            (Some("https://s3.example.com"), None, Some(false)),
            (Some("http://127.0.0.1:9000"), None, Some(true)),
            (Some("http://[::1]:9000"), None, Some(true)),
            (Some("HTTP://localhost:9000"), None, Some(true)),
            (Some("http://localhost.evil.example"), None, None),
            (Some("http://127.0.0.1.evil.example"), None, None),
            (Some("http://user:secret@10.0.0.1"), None, None),
            (Some("http://10.0.0.1"), Some(true), Some(true)),
            (Some("http://127.0.0.1"), Some(false), None),
            (None, None, Some(false)),
        ] {
            let found = check_endpoint(endpoint, allowed);
            if let Err(error) = &found {
                assert!(!error.to_string().contains("secret"));
            }
            assert_eq!(found.ok(), wanted, "{endpoint:?} {allowed:?}");
        }
    }
}
