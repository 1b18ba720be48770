//! Where a repository lies: the text a person types, parsed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::door::{Host, Web};
use super::key::Key;

/// Why a text does not name a place for a repository. No message repeats what could be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// There is nothing.
    #[error("the repository location is empty")]
    Empty,
    /// The scheme is not one of ours.
    #[error(
        "`{scheme}://` is not a kind of repository location; use a path, ssh://, sftp://, https://, s3://, gs://, az:// or file://"
    )]
    Scheme {
        /// What stands before `://`.
        scheme: String,
    },
    /// A known scheme without `//`; taken as a path it would surprise.
    #[error("write `{scheme}://…` with two slashes, or `./{scheme}:…` for a path")]
    Slashes {
        /// The scheme.
        scheme: String,
    },
    /// A user name or password stands in the location.
    #[error("credentials do not belong in a repository location; give them by the environment or by options")]
    Secret,
    /// A query or fragment stands in the location.
    #[error("a repository location has no `?` or `#` part")]
    Query,
    /// The bucket is missing or is not a bucket's name.
    #[error("`{bucket}` is not the name of a bucket or container")]
    Bucket {
        /// What stands where the bucket belongs.
        bucket: String,
    },
    /// The prefix cannot start a key.
    #[error("`{prefix}` is not a usable prefix in a bucket")]
    Prefix {
        /// What stands after the bucket.
        prefix: String,
    },
    /// What stands where a host belongs cannot be one.
    #[error("a location on another machine is ssh://[user@]host[:port][/path], or the same with sftp://")]
    Host,
    /// What stands where a server belongs cannot be one, or the path is no directory of it.
    #[error(
        "an https:// location is https://host[:port][/path][#sha256:FINGERPRINT], the path of letters, digits and `-._=+@,`"
    )]
    Web,
    /// `file://` with a host, or not a path.
    #[error("a file:// location needs an absolute path and no host")]
    File,
}

/// A kind of place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Local(PathBuf),
    S3 { bucket: String, prefix: String },
    Google { bucket: String, prefix: String },
    Azure { account: Option<String>, container: String, prefix: String },
    Ssh(Host),
    Sftp(Host),
    Https(Web),
    Memory,
}

/// A kind of cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cloud {
    /// S3 and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// A place in a cloud, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket<'a> {
    /// Whose.
    pub cloud: Cloud,
    /// The storage account, where the location names it.
    pub account: Option<&'a str>,
    /// The bucket or container.
    pub name: &'a str,
    /// What stands before each key; empty, or without slashes at its ends.
    pub prefix: &'a str,
}

/// Where a repository lies: a directory, here or behind a door, or a prefix in a bucket. It never holds a secret, so it may be printed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreUrl {
    pub(super) place: Place,
}

impl StoreUrl {
    /// A directory of this machine.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self { place: Place::Local(path.into()) }
    }

    /// Memory of this process; gone with the store. For tests.
    pub fn memory() -> Self {
        Self { place: Place::Memory }
    }

    /// The same place, a relative path taken from the directory `base`.
    pub fn based_at(self, base: &Path) -> Self {
        match self.place {
            Place::Local(path) => Self::local(base.join(path)),
            place => Self { place },
        }
    }

    /// The directory, if it is one.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Local(path) => Some(path),
            _ => None,
        }
    }

    /// The bucket, if it is one.
    pub fn bucket(&self) -> Option<Bucket<'_>> {
        let (cloud, account, name, prefix) = match &self.place {
            Place::S3 { bucket, prefix } => (Cloud::S3, None, bucket, prefix),
            Place::Google { bucket, prefix } => (Cloud::Google, None, bucket, prefix),
            Place::Azure { account, container, prefix } => {
                (Cloud::Azure, account.as_deref(), container, prefix)
            }
            Place::Local(_) | Place::Ssh(_) | Place::Sftp(_) | Place::Https(_) | Place::Memory => {
                return None;
            }
        };
        Some(Bucket { cloud, account, name, prefix })
    }

    /// What stands before each key in the bucket; empty or without slashes at its ends.
    pub(super) fn prefix(&self) -> &str {
        match &self.place {
            Place::S3 { prefix, .. } | Place::Google { prefix, .. } | Place::Azure { prefix, .. } => prefix,
            Place::Local(_) | Place::Ssh(_) | Place::Sftp(_) | Place::Https(_) | Place::Memory => "",
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix) = match &self.place {
            Place::Local(path) => return path.display().fmt(f),
            Place::Memory => return f.pad("memory://"),
            Place::Ssh(host) => return f.pad(&host_text("ssh", host)),
            Place::Sftp(host) => return f.pad(&host_text("sftp", host)),
            Place::Https(web) => return f.pad(&https_text(web)),
            Place::S3 { bucket, prefix } => ("s3", bucket.clone(), prefix),
            Place::Google { bucket, prefix } => ("gs", bucket.clone(), prefix),
            Place::Azure { account: None, container, prefix } => ("az", container.clone(), prefix),
            Place::Azure { account: Some(account), container, prefix } => {
                ("abfss", format!("{container}@{account}.dfs.core.windows.net"), prefix)
            }
        };
        let slash = if prefix.is_empty() { "" } else { "/" };
        f.pad(&format!("{scheme}://{bucket}{slash}{prefix}"))
    }
}

const SCHEMES: [&str; 14] = [
    "s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "file", "memory", "http", "https", "ssh",
    "sftp",
];

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.is_empty() {
            return Err(UrlError::Empty);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text.split_once(':') {
                Some((scheme, _)) if SCHEMES.contains(&scheme) => {
                    Err(UrlError::Slashes { scheme: scheme.to_owned() })
                }
                _ => Ok(Self::local(text)),
            };
        };
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return Ok(Self::local(text));
        }
        let place = match scheme.to_ascii_lowercase().as_str() {
            "file" => Place::Local(file_path(text)?),
            "memory" => Place::Memory,
            "ssh" => Place::Ssh(host(rest)?),
            "sftp" => Place::Sftp(host(rest)?),
            "https" => Place::Https(https(rest)?),
            "s3" | "s3a" => {
                let (bucket, prefix) = bucket_and_prefix(rest)?;
                Place::S3 { bucket, prefix }
            }
            "gs" | "gcs" => {
                let (bucket, prefix) = bucket_and_prefix(rest)?;
                Place::Google { bucket, prefix }
            }
            "az" | "azure" => {
                let (container, prefix) = bucket_and_prefix(rest)?;
                Place::Azure { account: None, container, prefix }
            }
            "abfs" | "abfss" => azure_file_system(rest)?,
            other => return Err(UrlError::Scheme { scheme: other.to_owned() }),
        };
        Ok(Self { place })
    }
}

fn file_path(text: &str) -> Result<PathBuf, UrlError> {
    let url = url::Url::parse(text).map_err(|_| UrlError::File)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(UrlError::Query);
    }
    url.to_file_path().map_err(|()| UrlError::File)
}

fn host_text(scheme: &str, host: &Host) -> String {
    let user = host.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
    let name = if host.name.contains(':') { format!("[{}]", host.name) } else { host.name.clone() };
    let port = host.port.map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}://{user}{name}{port}{}", host.path)
}

/// `host:port` or `[address]:port`, with or without the port.
fn name_and_port(address: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
            (name, port)
        }
        None => match address.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (address, None),
        },
    };
    match port.map(str::parse::<u16>) {
        Some(Ok(port @ 1..)) => Some((name, Some(port))),
        Some(_) => None,
        None => Some((name, None)),
    }
}

fn is_word(text: &str, more: &[u8]) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || more.contains(&b);
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(allowed)
}

fn is_host(name: &str, address: &str) -> bool {
    is_word(name, if address.starts_with('[') { b":.%" } else { b"-._" })
}

fn https_text(web: &Web) -> String {
    let slash = if web.path.is_empty() { "" } else { "/" };
    let pin = web.pin.map_or_else(String::new, |pin| format!("#{pin}"));
    format!("https://{}{slash}{}{pin}", web.authority(), web.path)
}

/// `host[:port][/path][#sha256:FINGERPRINT]`. Nothing in the path means something else to a program in between.
fn https(rest: &str) -> Result<Web, UrlError> {
    let (rest, pin) = match rest.split_once('#') {
        Some((rest, pin)) => (rest, Some(pin)),
        None => (rest, None),
    };
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    if address.contains('@') {
        return Err(UrlError::Secret);
    }
    if rest.contains('?') {
        return Err(UrlError::Query);
    }
    let pin = pin.map(str::parse).transpose().map_err(|_| UrlError::Web)?;
    let (name, port) = name_and_port(address).ok_or(UrlError::Web)?;
    let path = path.trim_matches('/');
    if !is_host(name, address) || !(path.is_empty() || Key::new(path).is_ok()) {
        return Err(UrlError::Web);
    }
    Ok(Web { name: name.to_owned(), port, path: path.to_owned(), pin })
}

/// `[user@]host[:port][/path]`. The path is taken as it stands; `/~/` begins at the user's home.
fn host(rest: &str) -> Result<Host, UrlError> {
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, ""),
    };
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, authority),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err(UrlError::Secret);
    }
    let (name, port) = name_and_port(address).ok_or(UrlError::Host)?;
    // A name that begins with a hyphen would be an option of `ssh`.
    if !is_host(name, address)
        || !user.is_none_or(|user| is_word(user, b"-._+"))
        || path.chars().any(char::is_control)
    {
        return Err(UrlError::Host);
    }
    let path = path.trim_end_matches('/').to_owned();
    Ok(Host { user: user.map(str::to_owned), name: name.to_owned(), port, path })
}

fn bucket_and_prefix(rest: &str) -> Result<(String, String), UrlError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        return Err(UrlError::Secret);
    }
    if rest.contains(['?', '#']) {
        return Err(UrlError::Query);
    }
    if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(UrlError::Bucket { bucket: bucket.to_owned() });
    }
    let prefix = prefix.trim_matches('/');
    let bad =
        |s: &str| matches!(s, "" | "." | "..") || s.bytes().any(|b| !b.is_ascii_graphic() || b == b'\\');
    if !prefix.is_empty() && (prefix.len() > 200 || prefix.split('/').any(bad)) {
        return Err(UrlError::Prefix { prefix: prefix.to_owned() });
    }
    Ok((bucket.to_owned(), prefix.to_owned()))
}

/// `container@account.dfs.core.windows.net/prefix`, the form of Azure's own tools, or `container/prefix`.
fn azure_file_system(rest: &str) -> Result<Place, UrlError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Some((container, host)) = authority.split_once('@') else {
        let (container, prefix) = bucket_and_prefix(rest)?;
        return Ok(Place::Azure { account: None, container, prefix });
    };
    if container.contains(':') {
        return Err(UrlError::Secret);
    }
    let account = host
        .strip_suffix(".dfs.core.windows.net")
        .or_else(|| host.strip_suffix(".blob.core.windows.net"))
        .filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric()))
        .ok_or_else(|| UrlError::Bucket { bucket: host.to_owned() })?;
    let (container, prefix) = bucket_and_prefix(&format!("{container}/{path}"))?;
    Ok(Place::Azure { account: Some(account.to_owned()), container, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PINNED: &str =
        "https://h/x#sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn every_kind_of_place_parses_and_prints() {
        for (text, printed) in [
            ("/srv/backup", "/srv/backup"),
            ("backup", "backup"),
            ("./s3:x", "./s3:x"),
            ("odd name:x", "odd name:x"),
            ("file:///srv/a%20b", "/srv/a b"),
            ("s3://bucket", "s3://bucket"),
            ("S3A://bucket/a/b/", "s3://bucket/a/b"),
            ("gs://bucket//x", "gs://bucket/x"),
            ("azure://container/x", "az://container/x"),
            ("abfs://c/x", "az://c/x"),
            ("abfss://c@acc.dfs.core.windows.net/x/y", "abfss://c@acc.dfs.core.windows.net/x/y"),
            ("memory://", "memory://"),
            ("ssh://host", "ssh://host"),
            ("ssh://host/", "ssh://host"),
            ("ssh://ann@host.example:2222/srv/a b/", "ssh://ann@host.example:2222/srv/a b"),
            ("ssh://[fe80::1%eth0]:22/~/x", "ssh://[fe80::1%eth0]:22/~/x"),
            ("SFTP://ann@host:2222/srv/a b/", "sftp://ann@host:2222/srv/a b"),
            ("https://host", "https://host"),
            ("HTTPS://host.example:8443//a/web1/", "https://host.example:8443/a/web1"),
            ("https://[::1]:8443/web1", "https://[::1]:8443/web1"),
            (PINNED, PINNED),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), printed, "{text}");
            assert_eq!(url.to_string().parse(), Ok(url), "printed form parses back");
        }
    }

    #[test]
    fn wrong_places_are_refused_without_repeating_a_secret() {
        for bad in [
            "",
            "s3:bucket",
            "http://host/bucket",
            "ftp://host/x",
            "s3://",
            "s3:///x",
            "s3://key:hunter2@bucket/x",
            "s3://bucket/x?token=hunter2",
            "s3://bucket/a/../b",
            "s3://bucket/a//b",
            "gs://b/\u{e9}",
            "file://host/x",
            "file:relative",
            "abfss://c:hunter2@acc.dfs.core.windows.net",
            "abfss://c@evil.example/x",
            "ssh:host",
            "ssh://",
            "ssh:///srv",
            "ssh://ann:hunter2@host/srv",
            "ssh://-oProxyCommand=hunter2/srv",
            "ssh://-l@host",
            "ssh://host:0",
            "ssh://host:99999",
            "ssh://[::1",
            "ssh://[::1]x",
            "ssh://ho st/srv",
            "ssh://host/a\nb",
            "sftp://-oProxyCommand=hunter2/srv",
            "sftp:host",
            "https:host",
            "https://",
            "https:///web1",
            "https://ann:hunter2@host/web1",
            "https://hunter2@host",
            "https://host/web1?token=hunter2",
            "https://host/web1#hunter2",
            "https://host#sha256:00",
            "https://host:0",
            "https://host:70000",
            "https://ho st",
            "https://host/a/../b",
            "https://host/a//b",
            "https://host/a\r\nX: y",
            "https://host/%2e%2e",
        ] {
            let error = bad.parse::<StoreUrl>().unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_relative_path_is_taken_from_the_given_directory() {
        let url: StoreUrl = "backup".parse().unwrap();
        assert_eq!(url.based_at(Path::new("/home/a")).local_path(), Some(Path::new("/home/a/backup")));
        let url: StoreUrl = "/srv".parse().unwrap();
        assert_eq!(url.based_at(Path::new("/home/a")).local_path(), Some(Path::new("/srv")));
    }
}
