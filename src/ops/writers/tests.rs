use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use object_store::ObjectStore;

use super::*;
use crate::class::Class;
use crate::crypto::slot::Unlock;
use crate::crypto::{name_hash, object_hash};
use crate::format::config::{ACCEPTED_MAX, Standing, WriterEntry};
use crate::format::keyslot::Role;
use crate::format::layout::{self, ObjectName};
use crate::format::ledger::Look;
use crate::id::{NameHash, ObjectHash};
use crate::ops::backup::{BackupOptions, BackupSource, backup};
use crate::ops::forget::{ForgetOptions, apply_forget, plan_forget};
use crate::ops::gc::{PruneOptions, prune};
use crate::ops::hold::{Until, hold};
use crate::ops::ledger::stored;
use crate::ops::restore::{RestoreOptions, restore};
use crate::ops::snapshots::{SnapshotFilter, list, list_checked, resolve};
use crate::ops::tag::{TagEdit, tag};
use crate::ops::testing::{self, NOW, World, add_key, back_up, contents, noise, put_snapshot, restored};
use crate::ops::undelete::undelete;
use crate::ops::verify::{Depth, verify};
use crate::repo::{CheckOutcome, Dependencies, NewlyVerified};
use crate::store::Key;
use crate::store::fault::{Failure, Fault, FaultStore, OpKind};

mod disguise;

/// An admin, and another machine whose key is in the wrong hands.
struct Team {
    world: World,
    admin: Repository,
    thief: WriterId,
    key: Unlock,
}

impl Team {
    async fn new() -> Self {
        Self::of(Role::Writer, Authority::Writer).await
    }

    async fn of(role: Role, authority: Authority) -> Self {
        let world = World::new();
        let admin = world.repository().await;
        let (thief, key) = add_key(&admin, role, authority).await;
        admin.reread_registry().await.unwrap();
        Self { world, admin, thief, key }
    }

    /// Another machine opens the repository with the thief's key: it has read the registry as it is now.
    async fn thief(&self) -> Repository {
        self.opened("thief").await
    }

    async fn opened(&self, state: &str) -> Repository {
        let env = self.world.env_at(state);
        Repository::open(self.admin.store().clone(), env, &self.key).await.unwrap()
    }

    fn source(&self) -> PathBuf {
        self.world.source()
    }
}

fn is_refused(error: &Error, writer: WriterId) -> bool {
    matches!(error, Error::Repo(RepoError::AfterRevocation { writer: found, .. }) if *found == writer)
}

/// What a verifier said is nothing any more, and goes with the next collection; only a dry run leaves it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_revoked_verifier_has_verified_is_not_verified() {
    let team = Team::of(Role::Verifier, Authority::Verifier).await;
    team.world.write("a", &noise(1, 50_000));
    back_up(&team.admin, &team.source()).await;
    let good: Vec<_> = stored(&team.admin).await.unwrap().into_iter().map(|stored| stored.hash).collect();
    for repo in [&team.thief().await, &team.admin] {
        let seen = NewlyVerified { good: good.clone(), ..NewlyVerified::new(repo.env().clock.now()) };
        repo.put_verified(Look::Read, seen).await.unwrap();
    }
    let count = async || team.admin.store().list(layout::LEDGER).await.unwrap().len();
    prune(&team.admin, &NOW).await.unwrap();
    assert_eq!(count().await, 2, "young ones stay");
    revoke(&team.admin, &team.thief.to_string(), None).await.unwrap();
    prune(&team.admin, &PruneOptions { dry_run: true, ..NOW }).await.unwrap();
    assert_eq!(count().await, 2);
    let mut problems = Vec::new();
    assert_eq!(team.admin.ledger(&mut problems).await.unwrap().len(), 1, "{problems:?}");
    prune(&team.admin, &NOW).await.unwrap();
    assert_eq!(count().await, 1);
    assert_eq!(team.admin.ledger(&mut Vec::new()).await.unwrap().len(), 1, "that of the admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_revocation_restores_and_what_came_after_is_never_used() {
    let team = Team::new().await;
    let admin = &team.admin;
    team.world.write("a", &noise(1, 50_000));
    let before = back_up(&team.thief().await, &team.source()).await;
    let saved = contents(&team.source());
    // The thief has opened the repository, and what it knows of writers is never read again.
    let stale = team.thief().await;
    let done = revoke(admin, &team.thief.to_string()[..8], None).await.unwrap();
    assert_eq!((done.accepted, done.refused), (2, 0), "an index object and a snapshot");

    // It goes on without the program: packs, an index object, a snapshot, its confirmation.
    let packs = admin.list_packs().await.unwrap();
    team.world.write("a", &noise(2, 50_000));
    let unchecked = BackupOptions {
        job: Some("test".into()),
        ..BackupOptions::new(BackupSource::Paths(vec![team.source()]))
    };
    let refused = backup(&stale, unchecked).await.unwrap_err();
    assert_eq!(refused.class(), Class::Denied, "{refused}");
    assert!(matches!(refused, Error::Repo(RepoError::WriterRevoked { .. })), "{refused}");
    assert!(admin.list_packs().await.unwrap().len() > packs.len(), "the content went to the store");
    let stale = team.forging().await;
    let late = put_snapshot(&stale, 7, |_| {}).await;

    for repo in [admin, &team.opened("fresh").await] {
        if repo.secrets().metadata.is_some() {
            let found = list_checked(repo, &SnapshotFilter::default()).await.unwrap();
            let ids: Vec<_> = found.snapshots.iter().map(|info| info.id).collect();
            assert_eq!(ids, [before]);
            assert_eq!(found.unreadable.len(), 2, "what the backup left, and the forged one");
            assert!(found.unreadable.iter().all(|(_, error)| is_refused(error, team.thief)));
            assert!(found.unread.is_empty(), "none of them stands in the way of what is meant");
            assert_eq!(resolve(repo, "latest", &SnapshotFilter::default()).await.unwrap().id, before);
        }
    }
    let named = resolve(admin, &late.to_string(), &SnapshotFilter::default()).await.unwrap_err();
    assert!(is_refused(&named, team.thief), "{named}");
    let index = admin.load_index().await.unwrap();
    assert!(index.problems.iter().any(|problem| is_refused_problem(&problem.error, team.thief)));
    let report = verify(admin, Depth::Data).await.unwrap();
    assert!(!report.has_damage(), "{:?}", report.findings);
    let named = |key: &str| report.findings.iter().any(|finding| finding.key.starts_with(key));
    assert!(named(&format!("index/{}/", team.thief)) && named(&format!("snapshots/{}/", team.thief)));
    assert_eq!(restored(admin, before, &team.source()).await, saved);

    // A collection takes all of it away, and nothing else.
    prune(admin, &NOW).await.unwrap();
    assert_eq!(admin.list_snapshots().await.unwrap().len(), 1);
    assert_eq!(admin.list_packs().await.unwrap(), packs, "what came later was garbage");
    let report = verify(admin, Depth::Data).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(restored(admin, before, &team.source()).await, saved);
}

fn is_refused_problem(error: &RepoError, writer: WriterId) -> bool {
    matches!(error, RepoError::AfterRevocation { writer: found, .. } if *found == writer)
}

impl Team {
    /// The thief's key in a program that does not look whether it counts: its registry is the one before.
    async fn forging(&self) -> Repository {
        let all = self.admin.store().list(layout::WRITERS).await.unwrap();
        let later = all.iter().filter(|object| !object.key.as_str().contains("/0000000000-"));
        let mut kept = Vec::new();
        for object in later {
            kept.push((object.key.clone(), self.admin.store().get(&object.key, 1 << 24).await.unwrap()));
            self.admin.store().delete(&object.key).await.unwrap();
        }
        let opened = self.thief().await;
        for (key, bytes) in kept {
            self.admin.store().put(&key, vec![bytes]).await.unwrap();
        }
        opened
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_refused_from_the_time_on_that_is_named() {
    let team = Team::new().await;
    team.world.write("a", &noise(1, 20_000));
    let honest = back_up(&team.thief().await, &team.source()).await;
    let since = Timestamp(team.admin.env().clock.now().0);
    // A store in memory tells times of the machine: they are apart.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let thief = team.thief().await;
    let mut fake = Vec::new();
    for (number, time) in [(5, i64::MIN), (6, 0), (7, i64::MAX)] {
        fake.push(put_snapshot(&thief, number, |snapshot| snapshot.time = time).await);
    }
    revoke(&team.admin, &team.thief.to_string(), None).await.unwrap();
    let all = list(&team.admin, &SnapshotFilter::default()).await.unwrap();
    assert_eq!(all.snapshots.len(), 4, "they came before");
    let again = revoke(&team.admin, &team.thief.to_string(), None).await;
    assert!(matches!(again, Err(Error::Trust(TrustError::IsRevoked { .. }))), "{again:?}");
    let done = revoke(&team.admin, &team.thief.to_string(), Some(since)).await.unwrap();
    assert_eq!(done.refused, 3);
    let left = list_checked(&team.admin, &SnapshotFilter::default()).await.unwrap();
    assert_eq!(left.snapshots.iter().map(|info| info.id).collect::<Vec<_>>(), [honest]);
    assert_eq!(left.unreadable.len(), fake.len());
    // What was taken does not come back.
    let later = Timestamp(i64::MAX);
    revoke(&team.admin, &team.thief.to_string(), Some(later)).await.unwrap();
    assert_eq!(list(&team.admin, &SnapshotFilter::default()).await.unwrap().snapshots.len(), 1);
    let [_, info] = &list_writers(&team.admin).await.unwrap()[..] else { panic!("not two writers") };
    assert_eq!((info.snapshots, info.refused, info.last.unwrap().0), (1, 3, honest));
    prune(&team.admin, &NOW).await.unwrap();
    assert_eq!(restored(&team.admin, honest, &team.source()).await, contents(&team.source()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_depends_on_what_comes_after() {
    let team = Team::new().await;
    let (admin, thief) = (&team.admin, team.thief().await);
    let before = back_up(&thief, &team.source()).await;
    // Another machine loads the index while the thief stores what that one needs, too.
    team.world.write("b", &noise(3, 50_000));
    let honest = admin.load_index().await.unwrap();
    back_up(&thief, &team.source()).await;
    let mut late = admin.load_index().await.unwrap();
    assert!(late.view.packs().count() > honest.view.packs().count());
    let dependencies = Dependencies(late.packs.clone());
    let mut lost = std::collections::HashSet::new();
    let clean = admin.check_commit(&mut late, &dependencies, &mut lost).await.unwrap();
    assert_eq!(clean, CheckOutcome::Clean);
    let since = admin.list_snapshots().await.unwrap().iter().find(|l| l.id == before).unwrap().stored;
    revoke(admin, &team.thief.to_string(), Some(since)).await.unwrap();
    let checked = admin.check_commit(&mut late, &dependencies, &mut lost).await.unwrap();
    assert_eq!(checked, CheckOutcome::Lost, "all is looked up again once");
    let mut fresh = admin.load_index().await.unwrap();
    let checked = admin.check_commit(&mut fresh, &dependencies, &mut Default::default()).await.unwrap();
    assert_eq!(checked, CheckOutcome::Clean, "index objects stay, others may depend on them");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_revocation_is_not_ended_nothing_is_collected_and_no_run_acknowledges() {
    let team = Team::new().await;
    let thief = team.thief().await;
    team.world.write("a", &noise(1, 50_000));
    let before = back_up(&thief, &team.source()).await;
    // The first of the two entries, and a crash.
    let entry = WriterEntry {
        writer: team.thief,
        key: *thief.writer().unwrap().1.verifying_key().as_bytes(),
        authority: Authority::Writer,
        standing: Standing::Closing(Vec::new()),
    };
    testing::put_entry(&team.admin, 1, &entry).await;
    let refused = back_up_fails(&thief, &team.source()).await;
    assert!(matches!(refused, Error::Repo(RepoError::WriterRevoked { .. })), "{refused}");
    let refused = prune(&team.admin, &NOW).await.unwrap_err();
    assert!(matches!(refused, Error::Repo(RepoError::Closing { .. })), "{refused}");
    let index = team.admin.load_index().await.unwrap();
    assert_eq!(index.view.packs().count(), 0, "nobody begins to depend on what the list does not name");
    let opened = list_checked(&team.admin, &SnapshotFilter::default()).await.unwrap();
    assert!(opened.snapshots.iter().any(|info| info.id == before), "readers believe it");
    assert!(list_writers(&team.admin).await.unwrap()[1].registered.closing);
    revoke(&team.admin, &team.thief.to_string(), None).await.unwrap();
    assert_eq!(restored(&team.admin, before, &team.source()).await, contents(&team.source()));
    prune(&team.admin, &NOW).await.unwrap();
    assert_eq!(restored(&team.admin, before, &team.source()).await, contents(&team.source()));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_admins_who_revoke_one_writer_at_the_same_time_lock_nobody_out() {
    let team = Team::new().await;
    let thief = team.thief().await;
    let before = back_up(&thief, &team.source()).await;
    let listed = team.admin.store().list(layout::INDEX).await.unwrap();
    let names = listed.iter().filter_map(|object| ObjectName::parse(object.key.as_str()));
    let index =
        names.into_iter().find(|name| matches!(name, ObjectName::Index(writer, _) if *writer == team.thief));
    let snapshots = team.admin.list_snapshots().await.unwrap();
    let counts = [index.unwrap(), snapshots[0].name()];
    let others = [1, 2].map(|byte| ObjectName::Index(team.thief, ObjectHash::new([byte; 32])));
    let named = |other: usize| [counts[0], counts[1], others[other]].iter().map(name_hash).collect();
    let key = *thief.writer().unwrap().1.verifying_key().as_bytes();
    for (number, standing) in [
        (1, Standing::Closing(named(0))),
        (1, Standing::Closing(named(1))),
        (2, Standing::Revoked(named(0))),
        (2, Standing::Revoked(named(1))),
    ] {
        let entry = WriterEntry { writer: team.thief, key, authority: Authority::Writer, standing };
        testing::put_entry(&team.admin, number, &entry).await;
    }
    let env = team.world.env_at("fresh");
    let fresh = Repository::open(team.admin.store().clone(), env, &team.key).await.unwrap();
    team.admin.reread_registry().await.unwrap();
    for repo in [&fresh, &team.admin] {
        assert!(counts.iter().all(|name| repo.accepts(&team.thief, name)));
        assert!(!others.iter().any(|name| repo.accepts(&team.thief, name)), "only what both name");
    }
    assert_eq!(restored(&team.admin, before, &team.source()).await, contents(&team.source()));
    // Of another key under the same number nobody can say which is meant.
    let standing = Standing::Revoked(Vec::new());
    let entry = WriterEntry { writer: team.thief, key: [9; 32], authority: Authority::Writer, standing };
    testing::put_entry(&team.admin, 2, &entry).await;
    let refused = team.admin.reread_registry().await.unwrap_err();
    assert!(matches!(refused, RepoError::Untrusted { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_had_while_its_writer_is_revoked_goes_on_to_count() {
    let team = Team::of(Role::Admin, Authority::Maintainer).await;
    let (admin, thief) = (&team.admin, team.thief().await);
    let id = put_snapshot(admin, 0, |_| {}).await;
    let listed = admin.list_snapshots().await.unwrap()[0];
    let held = thief.put_hold(vec![id], None).await.unwrap();
    let labels = thief.put_labels(&listed, (1, vec!["kept".into()])).await.unwrap().hash;
    let garbage = object_hash(b"garbage");
    let withheld = ObjectName::Anchor(ObjectHash::new([7; 32])).key();
    let damaged = ObjectName::Labels(id, ObjectHash::new([8; 32])).key();
    for key in [withheld.clone(), damaged, ObjectName::Hold(garbage).key()] {
        testing::put_object(admin, &key, b"garbage".to_vec()).await;
    }
    let objects = Arc::clone(&team.world.objects) as Arc<dyn ObjectStore>;
    let spoilt = FaultStore::new(objects, move |op| match op.kind {
        OpKind::Get if op.key == withheld => Fault::Before(Failure::Denied),
        OpKind::Get if [layout::HOLDS, layout::LABELS].iter().any(|prefix| op.key.starts_with(prefix)) => {
            Fault::Corrupt(50)
        }
        _ => Fault::None,
    });
    let spoilt = admin.with_store(testing::store_over(Arc::new(spoilt)));
    revoke(&spoilt, &team.thief.to_string(), None).await.unwrap();
    admin.reread_registry().await.unwrap();
    let named = [ObjectName::Hold(held), ObjectName::Labels(id, labels)];
    assert!(named.iter().all(|name| admin.accepts(&team.thief, name)));
    assert_eq!(admin.holds().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_revoked_meanwhile_is_not_told_that_its_marks_count() {
    for when in [layout::HOLDS, layout::UNDONE, layout::TOMBS, layout::LABELS] {
        let team = Team::of(Role::Admin, Authority::Maintainer).await;
        let id = put_snapshot(&team.admin, 0, |_| {}).await;
        if when == layout::UNDONE {
            testing::forget(&team.admin, id).await;
        }
        let (thief, admin) = (team.thief().await, team.admin.clone());
        let key = *thief.writer().unwrap().1.verifying_key().as_bytes();
        let standing = Standing::Revoked(Vec::new());
        let entry = WriterEntry { writer: team.thief, key, authority: Authority::Maintainer, standing };
        let objects = Arc::clone(&team.world.objects) as Arc<dyn ObjectStore>;
        let faulty = FaultStore::new(objects, move |op| {
            if op.kind == OpKind::Put && op.key.starts_with(when) {
                testing::put_entry(&admin, 1, &entry).now_or_never().unwrap();
            }
            Fault::None
        });
        let thief = thief.with_store(testing::store_over(Arc::new(faulty)));
        let infos = list(&thief, &SnapshotFilter::default()).await.unwrap().snapshots;
        let zone = jiff::tz::TimeZone::UTC;
        let said = match when {
            layout::HOLDS => hold(&thief, &infos, Until::Removed, &zone).await.map(drop),
            layout::UNDONE => undelete(&thief, &[id.to_string()]).await.map(drop),
            layout::TOMBS => {
                let named = vec![id.to_string()];
                let options = ForgetOptions { named, allow_empty: true, ..ForgetOptions::new(zone) };
                apply_forget(&thief, &plan_forget(&thief, &options).await.unwrap()).await
            }
            _ => {
                let edit = TagEdit { add: vec!["x".into()], ..TagEdit::default() };
                tag(&thief, &infos, &edit).await.map(drop)
            }
        };
        let revoked = matches!(said, Err(Error::Repo(RepoError::WriterRevoked { .. })));
        assert!(revoked, "{when}: {said:?}");
    }
}

async fn back_up_fails(repo: &Repository, source: &std::path::Path) -> Error {
    let source = BackupSource::Paths(vec![source.to_owned()]);
    let options = BackupOptions { job: Some("test".into()), ..BackupOptions::new(source) };
    backup(repo, options).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_maintainer_keeps_what_it_removed_and_loses_its_late_tombs() {
    let team = Team::of(Role::Admin, Authority::Maintainer).await;
    let (admin, thief) = (&team.admin, team.thief().await);
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(put_snapshot(admin, number, |_| {}).await);
    }
    testing::forget(&thief, ids[0]).await;
    prune(&thief, &NOW).await.unwrap();
    let since = Timestamp(admin.env().clock.now().0);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    testing::forget(&thief, ids[1]).await;
    revoke(admin, &team.thief.to_string(), Some(since)).await.unwrap();
    let thief = team.forging().await;
    testing::forget(&thief, ids[2]).await;
    let left = list_checked(admin, &SnapshotFilter::default()).await.unwrap();
    assert_eq!(left.snapshots.len(), 2);
    assert!(left.snapshots.iter().all(|info| info.forgotten.is_none()));
    assert!(admin.not_removed([ids[0]]).await.unwrap().is_empty(), "its removal stays");
    assert!(prune(&team.thief().await, &NOW).await.is_err());
    prune(admin, &NOW).await.unwrap();
    assert_eq!(admin.list_snapshots().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_revoked_is_not() {
    let team = Team::new().await;
    let admin = &team.admin;
    let own = admin.writer().unwrap().0.to_string();
    let prefix = revoke(admin, &own[..12], None).await;
    assert!(matches!(prefix, Err(Error::Trust(TrustError::OwnWriter { .. }))), "{prefix:?}");
    let last = revoke(admin, &own, None).await;
    assert!(matches!(last, Err(Error::Trust(TrustError::LastMaintainer { .. }))), "{last:?}");
    for selector in ["", "nothing", "0123456789"] {
        let found = revoke(admin, selector, None).await.unwrap_err();
        assert!(
            matches!(found, Error::Trust(TrustError::NoWriter { .. } | TrustError::AmbiguousWriter { .. })),
            "{found}"
        );
    }
    let thief = team.thief().await;
    let denied = revoke(&thief, &own, None).await.unwrap_err();
    assert!(matches!(denied, Error::Repo(RepoError::RoleForbids { .. })), "{denied}");
    assert_eq!(admin.store().list(layout::WRITERS).await.unwrap().len(), 2, "nothing was put");
    // Named in full, and with another maintainer there, it is done.
    add_key(admin, Role::Maintainer, Authority::Maintainer).await;
    revoke(admin, &own, None).await.unwrap();
    assert!(matches!(admin.writer(), Err(RepoError::WriterRevoked { .. })));
}

#[test]
fn an_entry_holds_as_many_objects_as_it_may() {
    let accepted = vec![NameHash::new([0xff; 32]); ACCEPTED_MAX];
    let entry = WriterEntry {
        writer: WriterId::new([1; 16]),
        key: [2; 32],
        authority: Authority::Writer,
        standing: Standing::Revoked(accepted),
    };
    let bytes = entry.encode();
    assert!(bytes.len() < crate::format::signed::SIGNED_MAX - 200);
    assert_eq!(WriterEntry::decode(&bytes).unwrap(), entry);
}
