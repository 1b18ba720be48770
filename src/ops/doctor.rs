//! Looking for what would make a backup or a restore fail, before it does.
//!
//! # Must not
//! Stop at the first trouble: every check is made and reported. Change anything that lasts.

mod lock;

use std::collections::HashSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use super::snapshots::{SnapshotFilter, list};
use crate::class::Class;
use crate::crypto::slot::Unlock;
use crate::format::layout::{self, ObjectName};
use crate::id::{ObjectHash, SnapshotId};
use crate::random::{Random, random_array};
use crate::repo::{Env, Marks, Problem, RepoError, Repository};
use crate::store::{ProbeExtent, ProbeReport, Store};
use crate::units::ByteSize;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Works, but not as well or as safely as it could.
    Warn,
    /// Will make a run fail.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in a few words.
    pub name: &'static str,
    /// How it went.
    pub state: CheckState,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<&'static str>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: CheckState::Ok, detail: detail.into(), hint: None }
    }

    fn warn(name: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { name, state: CheckState::Warn, detail: detail.into(), hint: Some(hint) }
    }

    fn fail(name: &'static str, error: &(dyn std::error::Error + 'static), hint: &'static str) -> Self {
        let mut detail = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            detail.push_str(": ");
            detail.push_str(&error.to_string());
            source = error.source();
        }
        Self { name, state: CheckState::Fail, detail, hint: Some(hint) }
    }
}

/// A clock further off than this confuses people; nothing in the repository rests on it.
const CLOCK_WARN: i64 = 60 * 1_000_000_000;
/// Less room than this is used up by one busy run.
const SPACE_WARN: u64 = 2 << 30;
/// Less room than this does not hold one pack and its index.
const SPACE_FAIL: u64 = 128 << 20;

/// Makes every check. Without `unlock` those that need a key are left out.
pub async fn doctor(store: Store, env: &Env, unlock: Option<&Unlock>) -> Vec<Check> {
    let mut checks = vec![
        directory("state directory", &env.places.state, &*env.random),
        match &env.places.cache {
            Some(cache) => directory("cache directory", cache, &*env.random),
            None => Check::warn(
                "cache directory",
                "none is used",
                "without a cache every run fetches the whole index; set --cache-dir",
            ),
        },
    ];
    let there = match store.list(layout::CONFIG).await {
        Ok(found) => {
            checks.push(if found.is_empty() {
                Check::warn("repository", format!("none at {}", store.url()), "make one with `lifeboat init`")
            } else {
                Check::ok("repository", store.url().to_string())
            });
            !found.is_empty()
        }
        Err(error) => {
            let hint = "check the location, the network and the credentials";
            checks.push(Check::fail("repository", &error, hint));
            false
        }
    };
    match store.probe(ProbeExtent::Full).await {
        Ok(probe) => checks.extend(of_probe(&probe)),
        Err(error) if there && error.class() == Class::Denied => checks.push(Check::warn(
            "store",
            format!("not tried out: {error}"),
            "right for a writer, a reader and a verifier, whose permissions do not reach so far; a maintainer's do",
        )),
        Err(error) => {
            let hint = "backups need the right to write and to list here";
            checks.push(Check::fail("store", &error, hint));
        }
    }
    checks.extend(space(&store).await);
    if let Some(unlock) = unlock.filter(|_| there) {
        checks.extend(repository(store, env, unlock).await);
    }
    checks
}

fn of_probe(probe: &ProbeReport) -> Vec<Check> {
    let mut checks = Vec::new();
    for check in &probe.checks {
        if let Some(failure) = &check.failure {
            let detail = Check::fail("store", failure, "");
            checks.push(Check {
                detail: format!("{:?}: {}", check.step, detail.detail),
                hint: Some("this store does not keep what a repository rests on; use another"),
                ..detail
            });
        }
    }
    if checks.is_empty() {
        let rate = |rate: Option<u64>| rate.map_or("?".into(), |rate| format!("{}/s", ByteSize(rate)));
        let (up, down) = (rate(probe.upload_rate), rate(probe.download_rate));
        checks.push(Check::ok("store", format!("keeps its promises; {up} up, {down} down")));
    }
    if let Some(offset) = probe.clock_offset {
        let text =
            format!("the store's clock is {} {}", span(offset), if offset < 0 { "behind" } else { "ahead" });
        let hint = "set this machine's clock; times of snapshots come from the store's";
        checks.push(if offset.saturating_abs() > CLOCK_WARN {
            Check::warn("clock", text, hint)
        } else {
            Check::ok("clock", text)
        });
    }
    checks
}

fn span(nanos: i64) -> String {
    let span = Duration::from_nanos(nanos.unsigned_abs());
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

async fn space(store: &Store) -> Option<Check> {
    let free = store.free_space().await?;
    let text = format!("{} free", ByteSize(free));
    let hint = "make room before the next backup";
    Some(match free {
        ..SPACE_FAIL => Check { state: CheckState::Fail, ..Check::warn("space", text, hint) },
        SPACE_FAIL..SPACE_WARN => Check::warn("space", text, hint),
        _ => Check::ok("space", text),
    })
}

/// The key, and what the repository shows at first sight.
async fn repository(store: Store, env: &Env, unlock: &Unlock) -> Vec<Check> {
    let repo = match Repository::open(store, env.clone(), unlock).await {
        Ok(repo) => repo,
        Err(error) => {
            let hint = match error {
                RepoError::WrongKey { .. } => "try another passphrase or key file",
                _ => "run `lifeboat verify` with another key, or restore the configuration",
            };
            return vec![Check::fail("key", &error, hint)];
        }
    };
    let mut checks = vec![if repo.is_current() {
        Check::ok("key", format!("opens repository {}", repo.id()))
    } else {
        Check::warn("key", RepoError::StaleKey.to_string(), "ask an admin for a new one")
    }];
    match repo.load_index().await {
        Ok(index) => {
            let (unusable, marks): (Vec<_>, Vec<_>) =
                index.problems.into_iter().partition(|problem| problem.key.starts_with(layout::INDEX));
            let (chunks, packs) = (index.view.chunk_count(), index.packs.len());
            checks.push(match unusable.first() {
                None => Check::ok("index", format!("{chunks} chunks in {packs} packs")),
                Some(first) => of_problems("index", &unusable, first, "run `lifeboat verify`"),
            });
            checks.push(self::marks(&repo, marks).await);
        }
        Err(error) => checks.push(Check::fail("index", &error, "run `lifeboat verify`")),
    }
    match list(&repo, &SnapshotFilter::default()).await {
        Ok(found) => {
            let confirmed = found.snapshots.iter().filter(|info| info.confirmed).count();
            checks.push(match found.unreadable.first() {
                Some((key, error)) => Check {
                    detail: format!("{} cannot be read; {key}: {error}", found.unreadable.len()),
                    ..Check::fail("snapshots", error, "run `lifeboat verify`")
                },
                None if confirmed == 0 => {
                    Check::warn("snapshots", "none is confirmed", "make a backup with `lifeboat backup`")
                }
                None => Check::ok("snapshots", format!("{confirmed} confirmed")),
            });
        }
        Err(error) => checks.push(Check::fail("snapshots", &error, "run `lifeboat verify`")),
    }
    checks.extend(lock::checks(&repo).await);
    checks
}

/// So many of them.
fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// What maintainers said of snapshots and packs: damage of it stops collections, and of a part of it backups too.
async fn marks(repo: &Repository, mut problems: Vec<Problem>) -> Check {
    let mut marks = match repo.read_marks().await {
        Ok(marks) => marks,
        Err(error) => return Check::fail("marks", &error, "run `lifeboat verify`"),
    };
    problems.append(&mut marks.problems);
    problems.retain(Problem::is_damage);
    if let Some(first) = problems.first() {
        return of_problems("marks", &problems, first, without(&first.key));
    }
    match left_removal(repo, &marks).await {
        Ok(None) => {
            Check::ok("marks", format!("{} forgotten, {} holds", marks.tombs.len(), marks.holds.len()))
        }
        Ok(Some((removal, alone))) => Check::warn(
            "marks",
            format!("{} names snapshots that stay: nobody can hold them", ObjectName::Removed(removal).key()),
            if alone { LEFT_ALONE } else { LEFT_BESIDE },
        ),
        Err(error) => Check::fail("marks", &error, "run `lifeboat verify`"),
    }
}

/// What to do about a removal that names nothing but what is there.
const LEFT_ALONE: &str = "if no prune is at work anywhere, delete it";
/// What to do about one that names what is gone, too: there may be nothing else that says it was meant to go.
const LEFT_BESIDE: &str = "leave it: it also tells that others were removed; what stays restores as it did, \
                           and what a new backup saves of it can be held";

/// A removal that names a snapshot which is there and is not waiting to be removed: its collection died, or is just at work. Also
/// whether all that it names is there.
async fn left_removal(repo: &Repository, marks: &Marks) -> Result<Option<(ObjectHash, bool)>, RepoError> {
    if marks.removed.is_empty() {
        return Ok(None);
    }
    let now = repo.env().clock.now();
    let mut there = HashSet::new();
    for listed in repo.list_snapshots().await? {
        if marks.removed.contains(&listed.id) && !repo.is_garbage(listed).await? {
            there.insert(listed.id);
        }
    }
    let stays =
        |id: &SnapshotId| there.contains(id) && (!marks.tombs.contains_key(id) || marks.is_held(id, now));
    let left = marks.removals.standing.iter().find(|stored| stored.removal.snapshots.iter().any(stays));
    Ok(left.map(|stored| (stored.hash, stored.removal.snapshots.iter().all(|id| there.contains(id)))))
}

/// How to go on without a mark that is damaged.
fn without(key: &str) -> &'static str {
    let ways = [
        (layout::TOMBS, "delete it, and forget the snapshot again if it was to go"),
        (layout::HOLDS, "restore it from a replica; or hold again what was held, then delete it"),
        (layout::UNDONE, "restore it from a replica; or undelete again what was taken back, then delete it"),
        (layout::REMOVED, "delete it; what `prune` then misses may be accepted with --accept-missing"),
    ];
    let way = ways.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, way)| *way);
    way.unwrap_or("restore it from a replica; or delete it while no backup and no prune runs, and prune then")
}

fn of_problems(name: &'static str, all: &[Problem], first: &Problem, hint: &'static str) -> Check {
    let count = count(all.len(), "object");
    let failed = Check::fail(name, &first.error, hint);
    Check { detail: format!("{count} cannot be used; {}: {}", first.key, failed.detail), ..failed }
}

/// Whether files can be made in a directory, and whether others could read or change them.
fn directory(name: &'static str, path: &Path, random: &dyn Random) -> Check {
    match try_directory(path, random) {
        Ok(mode) if mode & 0o077 != 0 => Check::warn(
            name,
            format!("{} is open to others (mode {:o})", path.display(), mode & 0o7777),
            "take the rights of others away: chmod go= on it",
        ),
        Ok(_) => Check::ok(name, path.display().to_string()),
        Err(error) => {
            let failed = Check::fail(name, &error, "make it writable, or name another one");
            Check { detail: format!("{}: {}", path.display(), failed.detail), ..failed }
        }
    }
}

/// Makes the directory if need be, and a file in it that goes again; gives the directory's mode.
fn try_directory(path: &Path, random: &dyn Random) -> io::Result<u32> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let suffix = u64::from_le_bytes(random_array(random).map_err(io::Error::other)?);
    let file = path.join(format!(".doctor-{suffix:016x}"));
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(&file)?;
    fs::remove_file(&file)?;
    Ok(fs::metadata(path)?.mode())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::crypto::{SecretKey, keyfile};
    use crate::format::gc::TombReason;
    use crate::format::layout::ObjectName;
    use crate::id::ObjectHash;
    use crate::ops::init::{InitOptions, init};
    use crate::ops::testing::{env, new_repository, put_snapshot, store_over};
    use crate::store::fault::{Failure, Fault, FaultStore, OpKind};

    fn state(checks: &[Check], name: &str) -> Vec<CheckState> {
        checks.iter().filter(|check| check.name == name).map(|check| check.state).collect()
    }

    #[tokio::test]
    async fn a_sound_place_has_nothing_to_complain_about() {
        let dir = tempfile::tempdir().unwrap();
        let mut env = env();
        env.places.state = dir.path().join("state");
        env.places.cache = Some(dir.path().join("cache"));
        let store = store_over(Arc::new(InMemory::new()));
        let options = InitOptions { new_key_file: true, ..InitOptions::default() };
        let made = init(store.clone(), &env, options).await.unwrap();
        let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
        let checks = doctor(store.clone(), &env, Some(&Unlock::KeyFile(key))).await;
        let bad: Vec<_> = checks.iter().filter(|check| check.state != CheckState::Ok).collect();
        assert!(matches!(bad[..], [Check { name: "snapshots", state: CheckState::Warn, .. }]), "{bad:?}");
        let wrong = doctor(store, &env, Some(&Unlock::KeyFile(SecretKey::from_bytes([1; 32])))).await;
        assert_eq!(state(&wrong, "key"), [CheckState::Fail]);
    }

    #[tokio::test]
    async fn every_trouble_is_reported_beside_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut env = env();
        env.places.state = dir.path().join("file");
        fs::write(&env.places.state, b"").unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        env.places.cache = Some(open);
        let faults = FaultStore::new(Arc::new(InMemory::new()), |op| match op.kind {
            OpKind::GetRange => Fault::Corrupt(0),
            OpKind::Delete => Fault::Before(Failure::NotFound),
            _ => Fault::None,
        });
        let checks = doctor(store_over(Arc::new(faults)), &env, None).await;
        assert_eq!(state(&checks, "state directory"), [CheckState::Fail]);
        assert_eq!(state(&checks, "cache directory"), [CheckState::Warn]);
        assert_eq!(state(&checks, "repository"), [CheckState::Warn]);
        assert!(state(&checks, "store").len() >= 2, "{checks:?}");
        assert!(state(&checks, "store").iter().all(|state| *state == CheckState::Fail));
        assert!(checks.iter().all(|check| check.state == CheckState::Ok || check.hint.is_some()));
    }

    #[tokio::test]
    async fn a_damaged_mark_is_named_with_the_way_on() {
        let objects = Arc::new(InMemory::new());
        let repo = new_repository(Arc::clone(&objects) as _, env()).await;
        let id = put_snapshot(&repo, 0, |_| {}).await;
        let writer = repo.writer().unwrap().0;
        assert_eq!(marks(&repo, Vec::new()).await.state, CheckState::Ok);
        repo.put_tomb((writer, 0, id), TombReason::Named).await.unwrap();
        let undone = repo.put_undo(vec![ObjectHash::new([1; 32])]).await.unwrap();
        assert_eq!(marks(&repo, Vec::new()).await.detail, "1 forgotten, 0 holds");
        let key = ObjectName::Undone(undone).key();
        objects.put(&key.as_str().into(), "damaged".into()).await.unwrap();
        let check = marks(&repo, Vec::new()).await;
        assert_eq!(check.state, CheckState::Fail);
        assert!(check.detail.starts_with(&format!("1 object cannot be used; {key}: ")), "{}", check.detail);
        assert!(check.hint.unwrap().contains("undelete"), "{check:?}");
        // What the index was loaded by.
        let damaged = repo.put_condemnation(Vec::new()).await.unwrap();
        let key = ObjectName::Condemned(damaged).key();
        objects.put(&key.as_str().into(), "damaged".into()).await.unwrap();
        let index = repo.load_index().await.unwrap();
        let check = marks(&repo, index.problems).await;
        assert!(check.detail.starts_with(&format!("2 objects cannot be used; {key}: ")), "{}", check.detail);
        assert!(check.hint.unwrap().contains("while no backup"), "{check:?}");
    }
    #[tokio::test]
    async fn a_removal_that_names_what_stays_is_told() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let (first, second) = (put_snapshot(&repo, 0, |_| {}).await, put_snapshot(&repo, 1, |_| {}).await);
        let tomb = repo.put_tomb((repo.writer().unwrap().0, 0, first), TombReason::Named).await.unwrap();
        let removal = repo.put_removal(vec![first]).await.unwrap();
        assert_eq!(marks(&repo, Vec::new()).await.state, CheckState::Ok, "the next collection removes it");
        let hold = repo.put_hold(vec![first, second], None).await.unwrap();
        let check = marks(&repo, Vec::new()).await;
        assert_eq!(check.state, CheckState::Warn);
        assert!(check.detail.contains(&ObjectName::Removed(removal).key()), "{check:?}");
        repo.delete_hold(hold).await.unwrap();
        repo.put_undo(vec![tomb]).await.unwrap();
        assert_eq!(marks(&repo, Vec::new()).await.state, CheckState::Warn);
        assert!(check.hint.unwrap().contains("delete it"), "{check:?}");
        // It is also all that says of another one that it was removed.
        let both = repo.replace_removals(vec![first, SnapshotId::new([9; 32])], vec![removal]).await.unwrap();
        let check = marks(&repo, Vec::new()).await;
        assert!(check.detail.contains(&ObjectName::Removed(both).key()), "{check:?}");
        assert_eq!(check.state, CheckState::Warn);
        let hint = check.hint.unwrap();
        assert!(hint.starts_with("leave it") && !hint.contains("delete"), "{check:?}");
        repo.replace_removals(Vec::new(), vec![both]).await.unwrap();
        assert_eq!(marks(&repo, Vec::new()).await.state, CheckState::Ok);
    }

    #[tokio::test]
    async fn garbage_under_the_name_of_a_removed_snapshot_is_none_that_stays() {
        let objects = Arc::new(InMemory::new());
        let repo = new_repository(Arc::clone(&objects) as _, env()).await;
        let id = SnapshotId::new([9; 32]);
        repo.put_removal(vec![id]).await.unwrap();
        let name = ObjectName::Snapshot(repo.writer().unwrap().0, 7, id);
        objects.put(&name.key().into(), "garbage".into()).await.unwrap();
        assert_eq!(marks(&repo, Vec::new()).await.state, CheckState::Ok);
    }
}
