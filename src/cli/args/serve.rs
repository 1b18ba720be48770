//! `serve` as typed.

use std::path::PathBuf;

use clap::Args;
use lifeboat::store::Key;
use lifeboat::units::ByteSize;

use super::key::RoleArg;

const AFTER_HELP: &str = "\
Meant as the forced command of a key in authorized_keys on the server:\n\n  \
command=\"lifeboat serve --stdio --root /srv/backups/web1 --role writer\",restrict ssh-ed25519 …\n\n\
The client then names its repository ssh://user@host. Nothing it sends allows it more than this line says. No role replaces \
an object, and nobody reads content without a key of the repository.";

/// What to open to whom.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServeArgs {
    /// Serve one client over standard input and output, as sshd starts it
    #[arg(long, required = true)]
    pub(crate) stdio: bool,

    /// The directory that holds the repository; nothing outside of it is touched
    #[arg(long, value_name = "DIR", value_parser = clap::builder::PathBufValueParser::new())]
    pub(crate) root: PathBuf,

    /// What the client may add and delete, which is no more than a key of this role has a use for
    #[arg(long, value_enum, default_value_t = RoleArg::Writer)]
    pub(crate) role: RoleArg,

    /// Refuse what would make the files below DIR take more than this
    #[arg(long, value_name = "SIZE")]
    pub(crate) quota: Option<ByteSize>,

    /// The repository is this directory below DIR
    #[arg(long, value_name = "NAME")]
    pub(crate) repo_prefix: Option<Key>,
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
        ] {
            let line = ["lifeboat", "serve"].iter().chain(bad);
            assert!(Cli::try_parse_from(line).is_err(), "{bad:?}");
        }
    }
}
