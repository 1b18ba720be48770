//! `serve` as typed.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args};
use lifeboat::serve::listen::Address;
use lifeboat::store::Key;
use lifeboat::units::ByteSize;

use super::key::RoleArg;

const AFTER_HELP: &str = "\
Over SSH, as the forced command of a key in authorized_keys on the server; the client names its repository ssh://user@host:\n\n  \
command=\"lifeboat serve --stdio --root /srv/backups/web1 --role writer\",restrict ssh-ed25519 …\n\n\
Over a network, for many clients; each names its repository https://host:8443 and has a token:\n\n  \
lifeboat serve --new-token web1 --tokens /etc/lifeboat/tokens >web1.token\n  \
lifeboat serve --listen 0.0.0.0:8443 --root /srv/backups --cert cert.pem --key key.pem --tokens /etc/lifeboat/tokens\n\n\
Nothing a client sends allows it more than its line says. No role replaces an object, and nobody reads content without a key \
of the repository.";

/// What to open to whom.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
#[command(group = ArgGroup::new("how").required(true).args(["stdio", "listen", "new_token"]))]
pub(crate) struct ServeArgs {
    /// Serve one client over standard input and output, as sshd starts it
    #[arg(long, requires = "root")]
    pub(crate) stdio: bool,

    /// Serve clients that come to this address: HOST:PORT, or unix:PATH
    #[arg(long, value_name = "ADDRESS", requires = "root", requires = "tokens", requires = "encryption")]
    pub(crate) listen: Option<AddressArg>,

    /// Make a token for a client, print it, and add the line that lets it in to the file of --tokens
    #[arg(long, value_name = "NAME", requires = "tokens", conflicts_with = "root")]
    pub(crate) new_token: Option<String>,

    /// The directory that holds the repository, or those of all clients; nothing outside of it is touched
    #[arg(long, value_name = "DIR", value_parser = clap::builder::PathBufValueParser::new())]
    pub(crate) root: Option<PathBuf>,

    /// What the client may add and delete, which is no more than a key of this role has a use for; with --listen the tokens say it
    #[arg(long, value_enum, default_value_t = RoleArg::Writer, conflicts_with = "listen")]
    pub(crate) role: RoleArg,

    /// Refuse what would make the files below DIR, or of a token those of its directory, take more than this
    #[arg(long, value_name = "SIZE", conflicts_with = "listen")]
    pub(crate) quota: Option<ByteSize>,

    /// The repository is this directory below DIR; of a new token, if it is not said, the one of its name
    #[arg(long, value_name = "NAME", conflicts_with = "listen")]
    pub(crate) repo_prefix: Option<Key>,

    /// The file that says who may come in; it is read again when it changes, and whoever is not in it any more has to go
    #[arg(long, value_name = "FILE", conflicts_with = "stdio")]
    pub(crate) tokens: Option<PathBuf>,

    /// The certificate for --listen, as PEM, with those that lead to a root
    #[arg(long, value_name = "FILE", requires = "key", requires = "listen", group = "encryption")]
    pub(crate) cert: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Without encryption, for a proxy on this machine: only loopback or unix:PATH can be listened to
    #[arg(long, requires = "listen", group = "encryption", conflicts_with = "cert")]
    pub(crate) plain: bool,

    /// Most connections at once
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "listen", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_connections: u32,

    /// Most connections at once with one token
    #[arg(long, value_name = "N", default_value_t = 32, requires = "listen", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_per_token: u32,
}

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressArg(pub(crate) Address);

impl FromStr for AddressArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return match path.is_absolute() {
                true => Ok(Self(Address::Unix(path))),
                false => Err("the path of a socket begins with a slash".to_owned()),
            };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self(Address::Tcp(text.to_owned())))
            }
            _ => Err("an address is HOST:PORT, such as 0.0.0.0:8443, or unix:/PATH".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Verb};
    use super::*;

    #[test]
    fn what_is_not_said_is_not_allowed() {
        let line = ["lifeboat", "serve", "--stdio", "--root", "/srv", "--quota", "500GiB"];
        let Verb::Serve(args) = Cli::try_parse_from(line).unwrap().verb else { panic!("not serve") };
        assert_eq!((args.role, args.quota), (RoleArg::Writer, Some(ByteSize(500 << 30))));
        for bad in [
            &["--root", "/srv"][..],
            &["--stdio"],
            &["--stdio", "--root", "/srv", "--role", "root"],
            &["--stdio", "--root", "/srv", "--repo-prefix", "../x"],
            &["--stdio", "--root", "/srv", "--repo-prefix", "/x"],
            &["--stdio", "--root", "/srv", "--repo-prefix", "tmp"],
            &["--stdio", "--root", "/srv", "--listen", "[::]:1"],
            &["--listen", "[::]:1", "--root", "/srv", "--tokens", "t"],
            &["--listen", "[::]:1", "--root", "/srv", "--tokens", "t", "--cert", "c"],
            &[
                "--listen", "[::]:1", "--root", "/srv", "--tokens", "t", "--cert", "c", "--key", "k",
                "--plain",
            ],
            &["--listen", "[::]:1", "--root", "/srv", "--cert", "c", "--key", "k"],
            &["--listen", "[::]:1", "--tokens", "t", "--cert", "c", "--key", "k"],
            &["--listen", "8443", "--root", "/srv", "--tokens", "t", "--plain"],
            &["--listen", "unix:x", "--root", "/srv", "--tokens", "t", "--plain"],
            &["--listen", "[::]:1", "--root", "/srv", "--tokens", "t", "--plain", "--role", "admin"],
            &["--new-token", "web1"],
            &["--new-token", "web1", "--tokens", "t", "--root", "/srv"],
        ] {
            let line = ["lifeboat", "serve"].iter().chain(bad);
            assert!(Cli::try_parse_from(line).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_server_and_a_token_need_no_more_than_their_files() {
        for line in [
            &["--listen", "localhost:8443", "--root", "/srv", "--tokens", "t", "--cert", "c", "--key", "k"][..],
            &[
                "--listen",
                "unix:/run/x",
                "--root",
                "/srv",
                "--tokens",
                "t",
                "--plain",
                "--max-connections",
                "7",
            ],
            &["--new-token", "web1", "--tokens", "t", "--role", "admin", "--quota", "1G"],
        ] {
            let line = ["lifeboat", "serve"].iter().chain(line);
            Cli::try_parse_from(line).unwrap();
        }
    }
}
