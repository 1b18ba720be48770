//! Restoring a cluster as it was at a moment: a base backup, and what the server needs to recover by itself from there.
//!
//! # Invariants
//! Nothing is written before the archive was found to hold every segment up to the target (`plan`). The file without which a
//! server does not start, `PG_VERSION`, is written when all others lie on the disk.
//!
//! # Crash
//! What was written stands, and no server starts from it; the directory is emptied and the restore run again.
//!
//! # Must not
//! Write into a directory that holds anything.

mod place;
mod plan;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use self::place::Owner;
pub use self::plan::{Follow, Plan, Reach, Target, reachable};
use super::super::postgres::{HistoryInfo, find_cluster, info};
use super::super::restore::{RestoreOptions, RestoreSummary, check_place, restore};
use super::super::snapshots::{SnapshotFilter, SnapshotInfo, list, resolve};
use crate::database::conf;
use crate::database::files::TABLESPACES;
use crate::database::label::MAP;
use crate::database::manifest::MANIFEST;
use crate::error::{BaseError, Error};
use crate::filter::{Filter, FilterBuilder};
use crate::format::postgres::{PostgresBackup, Tablespace};
use crate::repo::Repository;
use crate::source::target::OwnerPolicy;

/// The file without which no server starts.
const VERSION: &str = "PG_VERSION";
/// Servers from this major version on ask for segments ahead of what they replay.
const PREFETCHING: u32 = 15;
/// What the server does at a target, if nobody says.
const ACTIONS: [&str; 3] = ["pause", "promote", "shutdown"];

/// What a server does at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It waits, and answers queries that change nothing.
    Pause,
    /// It takes changes.
    Promote,
    /// It shuts down.
    Shutdown,
}

/// What is to be restored, and how.
#[derive(Debug, Clone)]
pub struct BaseRestoreOptions {
    /// What people call the cluster.
    pub cluster: String,
    /// The data directory to make.
    pub directory: PathBuf,
    /// The moment.
    pub target: Target,
    /// Whether recovery stops just before what the target names.
    pub exclusive: bool,
    /// What the server does there; waits, if nobody says.
    pub action: Option<Action>,
    /// The timeline to follow.
    pub follow: Follow,
    /// Where tablespaces go, by name or number; the others go where they were.
    pub spaces: Vec<(String, PathBuf)>,
    /// The base backup to begin with, instead of the newest that can be used.
    pub snapshot: Option<String>,
    /// Whether the server is to go on asking for more.
    pub standby: bool,
    /// The command that gives the server files of the log.
    pub restore_command: String,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What a restore did, or would do.
#[derive(Debug, Clone)]
pub struct BaseRestoreSummary {
    /// The base backup.
    pub snapshot: SnapshotInfo,
    /// What it says.
    pub base: PostgresBackup,
    /// The way to the target.
    pub plan: Plan,
    /// Where each tablespace is now.
    pub spaces: Vec<(Tablespace, PathBuf)>,
    /// As of any restore; nothing after a dry run.
    pub files: RestoreSummary,
}

/// Restores.
///
/// # Errors
/// [`BaseError`] before anything is written, if the target cannot be reached or a directory is not empty.
pub async fn base_restore(
    repo: &Repository,
    options: &BaseRestoreOptions,
) -> Result<BaseRestoreSummary, Error> {
    let (snapshot, base, plan) = choose(repo, options).await?;
    let spaces = spaces(&base.tablespaces, &options.spaces)?;
    let settings = settings(options, (&base, &plan))?;
    check_place(repo, &options.directory)?;
    place::check(&options.directory, spaces.iter().map(|(_, place)| place.as_path()))?;
    let mut done = BaseRestoreSummary { snapshot, base, plan, spaces, files: RestoreSummary::default() };
    if !options.dry_run {
        write(repo, options, (&mut done, settings)).await?;
    }
    Ok(done)
}

/// The base backup to begin with, and the way from there.
async fn choose(
    repo: &Repository,
    options: &BaseRestoreOptions,
) -> Result<(SnapshotInfo, PostgresBackup, Plan), Error> {
    let cluster = find_cluster(repo, Some(&options.cluster)).await?;
    let found = match &options.snapshot {
        Some(selector) => vec![resolve(repo, selector, &SnapshotFilter::default()).await?],
        None => list(repo, &SnapshotFilter::default()).await?.snapshots,
    };
    let mut backups: Vec<(SnapshotInfo, PostgresBackup)> = found
        .into_iter()
        .filter(|snapshot| snapshot.confirmed && snapshot.forgotten.is_none())
        // Whoever may store snapshots does not choose what a server is made of, unless somebody names it.
        .filter(|snapshot| options.snapshot.is_some() || repo.archives(&cluster, &snapshot.writer))
        .filter_map(|snapshot| snapshot.snapshot.postgres.clone().map(|base| (snapshot, base)))
        .filter(|(_, base)| base.cluster == cluster.id)
        .collect();
    // Unless one is named, of the history that goes on.
    let history = match (&options.snapshot, backups.first()) {
        (Some(_), Some((_, base))) => base.history,
        _ => cluster.cluster.current().map_or(0, |history| history.number),
    };
    backups.retain(|(_, base)| base.history == history);
    let archives = info(repo, Some(&options.cluster)).await?.into_iter().flat_map(|one| one.histories);
    let archive: Option<HistoryInfo> = { archives }.find(|one| one.history.number == history);
    let archive = archive.ok_or(BaseError::NoBase)?;
    let known: Vec<&PostgresBackup> = backups.iter().map(|(_, base)| base).collect();
    let plan = plan::plan(&known, &archive, (&options.target, options.exclusive, options.follow))?;
    let (snapshot, base) = backups.swap_remove(plan.backup);
    // Its confirmation is checked when it is named.
    let snapshot = resolve(repo, &snapshot.id.to_string(), &SnapshotFilter::default()).await?;
    Ok((snapshot, base, plan))
}

/// Where each tablespace goes.
fn spaces(
    known: &[Tablespace],
    wanted: &[(String, PathBuf)],
) -> Result<Vec<(Tablespace, PathBuf)>, BaseError> {
    let mut wanted: BTreeMap<&str, &PathBuf> =
        wanted.iter().map(|(name, place)| (name.as_str(), place)).collect();
    let mut found = Vec::new();
    for space in known {
        let by_name = str::from_utf8(&space.name).ok().and_then(|name| wanted.remove(name));
        let by_number = wanted.remove(space.oid.to_string().as_str());
        let was = || PathBuf::from(std::ffi::OsStr::from_bytes(&space.place));
        found.push((space.clone(), by_name.or(by_number).cloned().unwrap_or_else(was)));
    }
    match wanted.keys().next() {
        Some(name) => Err(BaseError::NoTablespace { name: (*name).to_owned() }),
        None => Ok(found),
    }
}

/// The lines that the server recovers by.
fn settings(
    options: &BaseRestoreOptions,
    (base, plan): (&PostgresBackup, &Plan),
) -> Result<String, BaseError> {
    let action = match options.action.unwrap_or(Action::Pause) {
        Action::Pause => ACTIONS[0],
        Action::Promote => ACTIONS[1],
        Action::Shutdown => ACTIONS[2],
    };
    let timeline = match options.follow {
        Follow::Latest if options.standby => "latest".to_owned(),
        // By its number the server demands its history, which no archive has that began on it.
        _ if plan.timeline == base.timeline => "current".to_owned(),
        _ => plan.timeline.to_string(),
    };
    let mut lines = vec![
        ("restore_command", options.restore_command.clone()),
        ("recovery_target_timeline", timeline),
        // The archive is the other server's until somebody says so.
        ("archive_mode", "off".to_owned()),
    ];
    if plan.hole && base.major() >= PREFETCHING {
        // It would ask for what is missing behind the target, and be stopped by that before it is there.
        lines.push(("recovery_prefetch", "off".to_owned()));
    }
    lines.extend(targets(&options.target));
    if options.target != Target::Latest {
        let inclusive = if options.exclusive { "off" } else { "on" };
        lines.extend([
            ("recovery_target_inclusive", inclusive.to_owned()),
            ("recovery_target_action", action.to_owned()),
        ]);
    }
    let mut text =
        format!("\n# Written by lifeboat for the recovery of {}; can go when it is over.\n", options.cluster);
    for (name, value) in lines {
        let line = conf::setting(name, &value).map_err(|_| BaseError::NotALine { name })?;
        text.push_str(&line);
    }
    for (name, value) in &base.settings {
        text.push_str(&format!("# the server had {name} = {value}; recovery needs no less\n"));
    }
    Ok(text)
}

/// All settings of the server that say where recovery ends. Those that are not meant are empty: one that an earlier restore has
/// left in the directory would end it there, and two are an error. The one that counts comes last, because the server checks
/// them in turn.
fn targets(target: &Target) -> Vec<(&'static str, String)> {
    const ALL: [&str; 5] = [
        "recovery_target",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
    ];
    let counts = match target {
        Target::Time(time) => Some((ALL[3], place::moment(*time))),
        Target::Lsn(lsn) => Some((ALL[1], lsn.to_string())),
        Target::Name(name) => Some((ALL[2], name.clone())),
        Target::Xid(xid) => Some((ALL[4], xid.to_string())),
        Target::Immediate => Some((ALL[0], "immediate".to_owned())),
        Target::Latest => None,
    };
    let name = counts.as_ref().map(|(name, _)| *name);
    let empty = ALL.into_iter().filter(|other| Some(*other) != name).map(|other| (other, String::new()));
    empty.chain(counts).collect()
}

/// Writes everything, what makes it a data directory last.
async fn write(
    repo: &Repository,
    options: &BaseRestoreOptions,
    (done, settings): (&mut BaseRestoreSummary, String),
) -> Result<(), Error> {
    let directory = &options.directory;
    let owner = Owner::of(directory)?;
    let how = |path: &str, target: &Path| RestoreOptions {
        owner: if owner.is_known() { OwnerPolicy::Skip } else { OwnerPolicy::Names },
        ..RestoreOptions::new(done.snapshot.clone(), path.as_bytes().to_vec(), target.to_owned())
    };
    let all = RestoreOptions { filter: without()?, ..how("", directory) };
    let mut files = part(repo, all).await?;
    for (space, place) in &done.spaces {
        let stored = format!("/pg_tblspc/{}", space.oid);
        add(&mut files, part(repo, how(&stored, place)).await?);
        place::link(place, &directory.join("pg_tblspc").join(space.oid.to_string()))?;
    }
    add(&mut files, part(repo, how(&format!("/{MANIFEST}"), directory)).await?);
    if !done.spaces.is_empty() {
        // The links are there, and a map of the places they were in would undo them.
        place::drop_from_manifest(&directory.join(MANIFEST), MAP)?;
    }
    let signal = if options.standby { "standby.signal" } else { "recovery.signal" };
    place::append(&directory.join("postgresql.auto.conf"), &settings)?;
    place::append(&directory.join(signal), "")?;
    let places: Vec<&Path> = std::iter::once(directory.as_path())
        .chain(done.spaces.iter().map(|(_, place)| place.as_path()))
        .collect();
    owner.take(directory, &places)?;
    places.iter().try_for_each(|place| place::sync(place))?;
    add(&mut files, part(repo, how(&format!("/{VERSION}"), directory)).await?);
    owner.take_file(directory, VERSION)?;
    place::sync(directory)?;
    done.files = files;
    Ok(())
}

/// A part of it. A server that lacks a file may start and lose data later, so one that lacks any is none.
async fn part(repo: &Repository, options: RestoreOptions) -> Result<RestoreSummary, Error> {
    let done = restore(repo, options).await?;
    match done.damaged_count + done.failed {
        0 => Ok(done),
        count => Err(BaseError::NotWhole { count, damaged: done.damaged_count > 0 }.into()),
    }
}

fn add(files: &mut RestoreSummary, more: RestoreSummary) {
    files.entries += more.entries;
    files.files += more.files;
    files.bytes += more.bytes;
    files.fetched += more.fetched;
    files.elapsed += more.elapsed;
}

/// What has a turn of its own, or no place where it is restored to.
fn without() -> Result<Filter, Error> {
    let mut rules = FilterBuilder::new();
    for name in [VERSION, MAP, MANIFEST] {
        rules.exclude(format!("/{name}").as_bytes(), false)?;
    }
    rules.exclude(&[b"/", TABLESPACES, b"/*"].concat(), false)?;
    Ok(rules.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Lsn;

    #[test]
    fn a_target_that_an_earlier_restore_has_left_does_not_count() {
        let lsn = targets(&Target::Lsn(Lsn(0x10_0000_0000)));
        assert_eq!(lsn.len(), 5);
        assert_eq!(lsn[4], ("recovery_target_lsn", "10/0".to_owned()));
        assert!(lsn[..4].iter().all(|(_, value)| value.is_empty()));
        let latest = targets(&Target::Latest);
        assert_eq!(latest.len(), 5);
        assert!(latest.iter().all(|(_, value)| value.is_empty()));
    }
}
