//! `mount` as typed.

use std::path::PathBuf;

use clap::Args;

use super::select::location;
use super::{Location, SelectArgs};

const AFTER_HELP: &str = "\
Without a snapshot there are ids/ID, jobs/JOB/TIME, hosts/HOST/TIME and tags/TAG/TIME, each with a link `latest`, and new \
snapshots appear while it is mounted. Slashes in the names of jobs are shown as `_`; times are in UTC. It runs until it is \
interrupted (Ctrl-C) or somebody unmounts DIR. Owners are shown by number; how many names a linked file had is not stored, \
so such a file shows 2.";

/// What to mount where.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true, after_help = AFTER_HELP)]
pub(crate) struct MountArgs {
    /// Show only this snapshot, or a directory of it, directly in DIR
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = location())]
    pub(crate) location: Option<Location>,

    /// Where to mount: an empty directory
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Let other users in, as far as the modes and access control lists of the files let them
    #[arg(long)]
    pub(crate) allow_other: bool,

    /// Let other users read everything
    #[arg(long, requires = "allow_other")]
    pub(crate) no_default_permissions: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Verb};

    #[test]
    fn the_snapshot_may_be_left_out() {
        for (line, selector) in [(&["/mnt"][..], None), (&["latest:/etc", "/mnt"], Some("latest"))] {
            let line = ["lifeboat", "mount"].iter().chain(line);
            let Verb::Mount(args) = Cli::try_parse_from(line).unwrap().verb else { panic!("not a mount") };
            assert_eq!(args.dir, std::path::Path::new("/mnt"));
            assert_eq!(args.location.map(|location| location.selector).as_deref(), selector);
        }
        for bad in [&[][..], &["a", "b", "c"], &["/mnt", "--no-default-permissions"]] {
            let line = ["lifeboat", "mount"].iter().chain(bad);
            assert!(Cli::try_parse_from(line).is_err());
        }
    }
}
