//! What was typed, and nothing else: no defaults from the environment, no file is read. `settings` makes decisions of it.

mod backup;
mod base;
mod base_restore;
mod bring;
mod configuration;
mod copy;
mod forget;
mod global;
mod history;
mod import;
mod key;
mod mount;
mod new;
mod policy;
mod postgres;
mod prune;
mod rekey;
mod restore;
mod rules;
mod run;
mod schedule;
mod select;
mod serve;
mod sqlite;
mod status;
mod trust;
mod verbs;

pub(crate) use backup::{BackupArgs, Server};
pub(crate) use base::{BaseBackupArgs, ConnectArgs, ServerCheckArgs};
pub(crate) use base_restore::{ActionArg, BaseRestoreArgs, EndArg, TimelineArg};
pub(crate) use configuration::{ConfigArgs, ConfigVerb};
pub(crate) use copy::{CopyArgs, ToArgs};
pub(crate) use forget::{ForgetArgs, HoldAddArgs, HoldArgs, HoldVerb, TagArgs, UndeleteArgs};
pub(crate) use global::{GlobalArgs, duration};
pub(crate) use history::{DiffArgs, FindArgs, KindArg, WhyArgs};
pub(crate) use import::{FromArgs, ImportArgs, ImportVerb, ResticArgs};
pub(crate) use key::{KeyAddArgs, KeyArgs, KeyVerb, NewSecretArgs, RecoveryArgs};
pub(crate) use mount::MountArgs;
pub(crate) use new::{NewArgs, OwnerArgs};
pub(crate) use policy::{PolicyArgs, PolicyVerb};
pub(crate) use postgres::{
    AllowArgs, ArchiveGetArgs, ArchivePushArgs, ClusterArgs, LogVerifyArgs, PostgresArgs, PostgresVerb,
    WalCheckArg,
};
pub(crate) use prune::PruneArgs;
pub(crate) use rekey::RekeyArgs;
pub(crate) use restore::{OverwriteArg, RestoreArgs};
pub(crate) use rules::{ExcludeArgs, IncludeArgs, RuleArgs};
pub(crate) use run::RunArgs;
pub(crate) use schedule::{InstallArgs, ScheduleArgs, ScheduleVerb, UnitArgs};
pub(crate) use select::{Location, SelectArgs};
pub(crate) use serve::ServeArgs;
pub(crate) use sqlite::{SqliteArg, SqliteArgs, SqliteBackupArgs, SqliteRestoreArgs, SqliteVerb};
pub(crate) use status::{MetricsArgs, StatusArgs};
pub(crate) use trust::{AnchorArgs, RevokeArgs, WriterArgs, WriterVerb};
pub(crate) use verbs::{
    CatArgs, CompletionsArgs, InitArgs, LsArgs, ManArgs, SnapshotsArgs, StatsArgs, VerifyArgs,
};

use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 some entries failed, 4 damage, 5 an objective is missed, 7 refused for safety, 8 stored but not \
confirmed, 10 no repository, 11 busy, 12 access denied, 13 store unreachable, 14 no space, 15 tampering, \
128+n signal n.";

/// Encrypted, deduplicated backups on local disks, on servers of your own and in cloud buckets.
///
/// Without a repository named anywhere, `lifeboat backup PATH` makes one of its own in the user's data directory.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a repository
    Init(InitArgs),
    /// Save files, standard input or the output of a command as a new snapshot
    Backup(BackupArgs),
    /// Run the jobs of the configuration that are due: backup, retention, and prune and verify where those are due
    Run(RunArgs),
    /// Let a timer run the jobs, and show when they run
    Schedule(ScheduleArgs),
    /// List the snapshots
    Snapshots(SnapshotsArgs),
    /// Say of each job how old its last confirmed snapshot is, and whether it misses what is asked of it
    Status(StatusArgs),
    /// Print how jobs and the repository stand, in the text format of Prometheus
    Metrics(MetricsArgs),
    /// List the entries of a snapshot
    Ls(LsArgs),
    /// Show what differs between two snapshots, or a path in them
    Diff(DiffArgs),
    /// Find entries in all snapshots, and show when each appeared, changed and vanished
    Find(FindArgs),
    /// Say whether a path of this machine is saved or which rule leaves it out, and when it was saved last
    Why(WhyArgs),
    /// Write the content of a saved file to standard output
    Cat(CatArgs),
    /// Write a snapshot, or a part of it, into a directory
    Restore(RestoreArgs),
    /// Show snapshots as a read-only file system, until it is unmounted
    Mount(MountArgs),
    /// Copy snapshots into another repository, which has its own keys
    Copy(CopyArgs),
    /// Forget snapshots, by a policy or by name; they stay until they are removed
    Forget(ForgetArgs),
    /// Take back that snapshots were forgotten
    Undelete(UndeleteArgs),
    /// Hold snapshots, so that nothing removes them
    Hold(HoldArgs),
    /// Change the tags of snapshots
    Tag(TagArgs),
    /// Check the repository: structure by default, stored bytes with --packs, every chunk with --data
    #[command(visible_alias = "check")]
    Verify(VerifyArgs),
    /// Remove what was forgotten and give its space back: condemns first, deletes when the grace has passed
    Prune(PruneArgs),
    /// Bring snapshots from the repository of another tool
    Import(ImportArgs),
    /// Show what the repository holds and how much space that takes
    Stats(StatsArgs),
    /// Check the surroundings: store, credentials, rights, clock, local places, key
    Doctor,
    /// Manage keys: what opens the repository, and what each may do
    Key(KeyArgs),
    /// Replace the keys after one was lost to somebody: everything new is sealed to new ones at once
    Rekey(RekeyArgs),
    /// Open a directory to other machines, for a backup server without a cloud; the other end of ssh:// and https://
    Serve(ServeArgs),
    /// Save a PostgreSQL cluster while it runs, archive its log, and give both back
    Postgres(PostgresArgs),
    /// Save databases of SQLite while they are written to, and put one back
    Sqlite(SqliteArgs),
    /// Make the permissions that a store has to give to writers, readers and others
    Policy(PolicyArgs),
    /// Print what proves later, with --require-anchor, that the store shows no less than it does now
    Anchor(AnchorArgs),
    /// Show who signs what the repository holds, and revoke who must not any more
    Writer(WriterArgs),
    /// Check and show the configuration: the file of repositories and jobs
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(ManArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_are_taken_before_and_after_the_verb() {
        for line in [["lifeboat", "-r", "/x", "stats"], ["lifeboat", "stats", "-r", "/x"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.repo.as_deref(), Some(std::ffi::OsStr::new("/x")));
        }
    }

    #[test]
    fn a_command_takes_all_that_follows() {
        let line = ["lifeboat", "backup", "--job", "db", "--command", "pg_dump", "-Fc", "--json", "db"];
        let cli = Cli::try_parse_from(line).unwrap();
        assert!(!cli.global.json);
        let Verb::Backup(args) = cli.verb else { panic!("not a backup") };
        assert_eq!(args.command, ["pg_dump", "-Fc", "--json", "db"]);
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        for bad in [
            &["backup", "x", "--level", "0"][..],
            &["backup", "x", "--level", "99"],
            &["backup", "x", "--exclude-larger-than", "1e309"],
            &["backup", "x", "--exclude-larger-than", "-1"],
            &["stats", "--limit-upload", "nan"],
            &["stats", "--retry-for", "99999999999999999999s"],
            &["stats", "--workers", "0"],
            &["backup", "x", "--tag", ""],
            &["backup", "x", "--job", "a\nb"],
        ] {
            let line = ["lifeboat"].into_iter().chain(bad.iter().copied());
            assert!(Cli::try_parse_from(line).is_err(), "{bad:?}");
        }
    }
}
