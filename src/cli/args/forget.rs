//! `forget`, `undelete`, `hold` and `tag` as typed.

use std::time::Duration;

use clap::{Args, Subcommand};
use lifeboat::ops::hold::Until;
use lifeboat::ops::snapshots::parse_time;
use lifeboat::retention::{Every, Limit, Period, Policy, TagList};

use super::SelectArgs;
use super::backup::word;
use super::global::duration;

/// `forget`.
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// Snapshots to forget: ids or the beginnings of them, `latest~2`, `@2026-03-01T14:00`; then no policy is applied
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,

    #[command(flatten)]
    pub(crate) keep: KeepArgs,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Also forget snapshots that were never confirmed and are older than 30 days
    #[arg(long)]
    pub(crate) unconfirmed: bool,

    /// Forget even the last confirmed snapshot of a job
    #[arg(long)]
    pub(crate) allow_empty: bool,

    /// Of databases keep the base backups that lead to any time within this that can be reached now, such as 30d; one that is named is refused then
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) keep_recovery: Option<Duration>,

    /// Forget base backups also if less can be recovered then than --keep-recovery says, or nothing
    #[arg(long)]
    pub(crate) allow_shorter_recovery: bool,

    /// Then collect, as `prune` without options does
    #[arg(long)]
    pub(crate) prune: bool,

    /// Say what would be forgotten, and forget nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// A retention policy; a snapshot is kept if one of its rules says so.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to keep, of each job of each machine")]
pub(crate) struct KeepArgs {
    /// The newest N; here and below also `unlimited`, or a duration such as 30d or 1y6m
    #[arg(short = 'l', long, value_name = "N", allow_negative_numbers = true)]
    keep_last: Option<Limit>,

    /// The newest of each of the last N hours that have one
    #[arg(short = 'H', long, value_name = "N", allow_negative_numbers = true)]
    keep_hourly: Option<Limit>,

    /// The newest of each of the last N days that have one
    #[arg(short = 'd', long, value_name = "N", allow_negative_numbers = true)]
    keep_daily: Option<Limit>,

    /// The newest of each of the last N weeks that have one
    #[arg(short = 'w', long, value_name = "N", allow_negative_numbers = true)]
    keep_weekly: Option<Limit>,

    /// The newest of each of the last N months that have one
    #[arg(short = 'm', long, value_name = "N", allow_negative_numbers = true)]
    keep_monthly: Option<Limit>,

    /// The newest of each of the last N quarters that have one
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keep_quarterly: Option<Limit>,

    /// The newest of each of the last N years that have one
    #[arg(short = 'y', long, value_name = "N", allow_negative_numbers = true)]
    keep_yearly: Option<Limit>,

    /// All that are younger, measured from the newest, such as 30d or 1y6m
    #[arg(long, value_name = "DURATION")]
    keep_within: Option<Period>,

    /// Of those that are younger the newest of each hour
    #[arg(long, value_name = "DURATION")]
    keep_within_hourly: Option<Period>,

    /// Of those that are younger the newest of each day
    #[arg(long, value_name = "DURATION")]
    keep_within_daily: Option<Period>,

    /// Of those that are younger the newest of each week
    #[arg(long, value_name = "DURATION")]
    keep_within_weekly: Option<Period>,

    /// Of those that are younger the newest of each month
    #[arg(long, value_name = "DURATION")]
    keep_within_monthly: Option<Period>,

    /// Of those that are younger the newest of each quarter
    #[arg(long, value_name = "DURATION")]
    keep_within_quarterly: Option<Period>,

    /// Of those that are younger the newest of each year
    #[arg(long, value_name = "DURATION")]
    keep_within_yearly: Option<Period>,

    /// Those with all of these tags, separated by commas; an empty list means those without tags
    #[arg(long, value_name = "TAG[,TAG]")]
    keep_tag: Vec<TagList>,
}

impl KeepArgs {
    /// As the library takes it.
    pub(crate) fn policy(self) -> Policy {
        let within = |period: Option<Period>| period.map(Limit::Within);
        let rules = [
            (Every::Snapshot, self.keep_last),
            (Every::Hour, self.keep_hourly),
            (Every::Day, self.keep_daily),
            (Every::Week, self.keep_weekly),
            (Every::Month, self.keep_monthly),
            (Every::Quarter, self.keep_quarterly),
            (Every::Year, self.keep_yearly),
            (Every::Snapshot, within(self.keep_within)),
            (Every::Hour, within(self.keep_within_hourly)),
            (Every::Day, within(self.keep_within_daily)),
            (Every::Week, within(self.keep_within_weekly)),
            (Every::Month, within(self.keep_within_monthly)),
            (Every::Quarter, within(self.keep_within_quarterly)),
            (Every::Year, within(self.keep_within_yearly)),
        ];
        let rules = rules.into_iter().filter_map(|(every, limit)| Some((every, limit?)));
        let policy = rules.fold(Policy::new(), |policy, (every, limit)| policy.keep(every, limit));
        self.keep_tag.into_iter().fold(policy, Policy::keep_tags)
    }
}

/// `undelete`.
#[derive(Debug, Args)]
pub(crate) struct UndeleteArgs {
    /// Forgotten snapshots: ids or the beginnings of them
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub(crate) snapshots: Vec<String>,
}

/// `hold`.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(subcommand)]
    pub(crate) verb: HoldVerb,
}

/// What to do with holds.
#[derive(Debug, Subcommand)]
pub(crate) enum HoldVerb {
    /// Hold snapshots: neither a policy nor anybody's naming removes them
    Add(HoldAddArgs),
    /// List the holds
    List,
    /// Remove a hold. With the last legal one the store lets go of everything here that it keeps by a legal hold, whoever asked
    /// for that
    Remove {
        /// The hold's id or the beginning of it
        #[arg(value_name = "HOLD")]
        hold: String,
    },
}

/// `hold add`.
#[derive(Debug, Args)]
pub(crate) struct HoldAddArgs {
    /// Snapshots: ids or the beginnings of them, `latest`, `latest~2`, `@2026-03-01T14:00`
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub(crate) snapshots: Vec<String>,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// When the hold ends: a date, a time, or a duration from now such as 90d or 7y [default: when it is removed]
    #[arg(long, value_name = "WHEN", value_parser = until)]
    pub(crate) until: Option<Until>,

    /// Have the store itself keep what the snapshots need, until the hold is removed: in a bucket with locks
    #[arg(long, conflicts_with = "until")]
    pub(crate) legal: bool,
}

/// Reads `2026-12-31`, `2026-12-31T12:00` or `90d`.
fn until(text: &str) -> Result<Until, &'static str> {
    if let Some(time) = parse_time(text) {
        return Ok(Until::Time(time));
    }
    let period = text.parse().map(Until::After);
    period.map_err(|_| "expected a date such as 2026-12-31, or a duration such as 90d or 7y")
}

/// `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Snapshots: ids or the beginnings of them, `latest`, `latest~2`, `@2026-03-01T14:00`
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub(crate) snapshots: Vec<String>,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Add a tag, `key` or `key=value`; may be given several times
    #[arg(long, value_name = "TAG", value_parser = word, required_unless_present_any = ["remove", "set"])]
    pub(crate) add: Vec<String>,

    /// Remove a tag; `key` also removes every `key=value`
    #[arg(long, value_name = "TAG", value_parser = word)]
    pub(crate) remove: Vec<String>,

    /// Have these tags and no others; an empty one stands for none at all
    #[arg(long, value_name = "TAG", value_parser = word_or_nothing, conflicts_with_all = ["add", "remove"])]
    pub(crate) set: Vec<String>,
}

fn word_or_nothing(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Ok(String::new()) } else { word(text) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Verb};
    use super::*;

    fn policy(options: &[&str]) -> Option<String> {
        let line = ["lifeboat", "forget"].into_iter().chain(options.iter().copied());
        match Cli::try_parse_from(line).ok()?.verb {
            Verb::Forget(args) => Some(args.keep.policy().to_string()),
            _ => None,
        }
    }

    #[test]
    fn policies_are_typed_as_in_restic() {
        for (options, text) in [
            (&["--keep-last", "3", "--keep-daily", "7"][..], "last 3, 7 daily"),
            (
                &["-l", "1", "-H", "2", "-d", "3", "-w", "4", "-m", "5", "-y", "6"],
                "last 1, 2 hourly, 3 daily, 4 weekly, 5 monthly, 6 yearly",
            ),
            (&["--keep-last", "-1"], "all"),
            (&["--keep-quarterly", "unlimited"], "all quarterly"),
            (&["--keep-daily", "30d"], "daily within 30d"),
            (&["--keep-within", "1y6m", "--keep-within-weekly", "2y"], "within 1y6m, weekly within 2y"),
            (&["--keep-tag", "a,b", "--keep-tag", ""], "those without tags, tags a,b"),
            (&["--keep-last", "0"], "everything"),
        ] {
            assert_eq!(policy(options).as_deref(), Some(text), "{options:?}");
        }
        for bad in [
            &["--keep-last", "x"][..],
            &["--keep-daily", "-2"],
            &["--keep-within", "3"],
            &["--keep-tag", "a,,b"],
        ] {
            assert_eq!(policy(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_hold_ends_at_a_time_or_after_one() {
        assert!(matches!(until("90d"), Ok(Until::After(period)) if period.days == 90));
        assert!(matches!(until("2099-01-01"), Ok(Until::Time(_))));
        assert!(matches!(until("2099-01-01T12:00Z"), Ok(Until::Time(_))));
        for bad in ["", "soon", "2099", "-3d", "2099-13-01"] {
            assert!(until(bad).is_err(), "{bad}");
        }
    }
}
