//! Snapshots and confirmations that cannot be read: an older snapshot is never handed out in their place unasked.

use std::time::Duration;

use super::*;
use crate::class::Class;
use crate::clock::Clock;
use crate::ops::forget::{ForgetOptions, UNCONFIRMED_AGE, apply_forget, plan_forget};
use crate::ops::testing::store_over;
use crate::store::Key;
use crate::store::fault::{Failure, Fault, Op};

/// A clock that stands.
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn put_bytes(name: ObjectName, bytes: &[u8]) -> (Key, Vec<bytes::Bytes>) {
    (Key::new(name.key()).unwrap(), vec![bytes.to_vec().into()])
}

fn snapshot_name(repo: &Repository, sequence: u64, id: SnapshotId) -> ObjectName {
    ObjectName::Snapshot(repo.writer().unwrap().0, sequence, id)
}

/// As the store would be if these objects could not be had, in this way.
fn broken(
    (objects, repo): (&Arc<InMemory>, &Repository),
    fault: Fault,
    is_broken: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Repository {
    let plan = move |op: &Op| if op.kind == OpKind::Get && is_broken(&op.key) { fault } else { Fault::None };
    repo.with_store(store_over(Arc::new(FaultStore::new(Arc::<InMemory>::clone(objects), plan))))
}

#[tokio::test]
async fn an_older_snapshot_does_not_stand_in_for_one_that_cannot_be_read() {
    let objects = Arc::new(InMemory::new());
    let repo = new_repository(Arc::<InMemory>::clone(&objects), env()).await;
    let old = put(&repo, 0, |_| {}).await;
    let new = put(&repo, 1, |_| {}).await;
    // What nobody confirmed does not count, and anyone may put it.
    for (sequence, byte) in [(0, 1), (1, 2), (9, 3)] {
        let (key, bytes) = put_bytes(snapshot_name(&repo, sequence, SnapshotId::new([byte; 32])), b"junk");
        repo.store().put(&key, bytes).await.unwrap();
    }
    let filters = [SnapshotFilter::default(), filter("one")];
    for filter in &filters {
        assert_eq!(resolve(&repo, "latest", filter).await.unwrap().id, new);
    }
    let part = format!("-{new}");
    let rotten = broken((&objects, &repo), Fault::Corrupt(200), move |key| key.ends_with(&part));
    // What `latest~1` means is clear if every snapshot counts: the one before.
    assert_eq!(resolve(&rotten, "latest~1", &filters[0]).await.unwrap().id, old);
    assert!(resolve(&rotten, "latest~1", &filters[1]).await.is_err());
    for filter in &filters {
        for selector in ["latest", "@2100-01-01"] {
            let one = resolve(&rotten, selector, filter).await;
            let several = resolve_all(&rotten, &[selector.to_owned()], filter).await.map(|_| ());
            for error in [one.unwrap_err(), several.unwrap_err()] {
                assert!(error.to_string().contains(&new.to_string()), "{selector}: {error}");
                assert_eq!(error.class(), Class::Damage);
            }
        }
        assert_eq!(resolve(&rotten, &old.to_string(), filter).await.unwrap().id, old, "by its id it is had");
        repo.put_tomb((repo.writer().unwrap().0, 1, new), TombReason::Named).await.unwrap();
        assert_eq!(resolve(&rotten, "latest", filter).await.unwrap().id, old, "nobody asks for the other");
        let marks = repo.read_marks().await.unwrap();
        repo.put_undo(vec![marks.tombs[&new].hash]).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_moves_no_selector() {
    let objects = Arc::new(InMemory::new());
    let repo = new_repository(Arc::<InMemory>::clone(&objects), env()).await;
    let older = put(&repo, 0, |_| {}).await;
    put(&repo, 1, |_| {}).await;
    // Stored last, and the oldest by its origin.
    let brought = put(&repo, 2, |snapshot| {
        let kind = "restic".to_owned();
        let (repository, snapshot_there, time) = (Vec::new(), Vec::new(), 0);
        snapshot.origin = Some(Origin { kind, repository, snapshot: snapshot_there, time, missing: 0 });
    })
    .await;
    let all = SnapshotFilter::default();
    assert_eq!(resolve(&repo, "latest~1", &all).await.unwrap().id, older);
    let part = format!("-{brought}");
    let silent =
        broken((&objects, &repo), Fault::Before(Failure::Unreachable), move |key| key.ends_with(&part));
    assert_eq!(resolve(&silent, "latest~1", &all).await.unwrap_err().class(), Class::Unreachable);
}

#[tokio::test]
async fn a_confirmation_that_cannot_be_had_is_not_a_forged_one() {
    let objects = Arc::new(InMemory::new());
    let repo = new_repository(Arc::<InMemory>::clone(&objects), env()).await;
    put(&repo, 0, |_| {}).await;
    let new = put(&repo, 1, |_| {}).await;
    let part = format!("{new}.ok");
    // A failure of this object alone, as of one that a store moved to slow storage.
    let fails =
        broken((&objects, &repo), Fault::Before(Failure::AlreadyExists), move |key| key.ends_with(&part));
    for filter in [SnapshotFilter::default(), filter("one")] {
        assert!(resolve(&fails, "latest", &filter).await.is_err());
        assert!(resolve_all(&fails, &["latest".to_owned()], &filter).await.is_err());
    }
    let mut all = list(&repo, &SnapshotFilter::default()).await.unwrap().snapshots;
    assert!(check_confirmations(&fails, &mut all).await.is_err());
}

#[tokio::test]
async fn what_was_confirmed_is_not_forgotten_as_unconfirmed() {
    let objects = Arc::new(InMemory::new());
    let repo = new_repository(Arc::<InMemory>::clone(&objects), env()).await;
    put(&repo, 0, |_| {}).await;
    let spoilt = put(&repo, 1, |_| {}).await;
    let open = repo.put_snapshot(2, &Snapshot::empty(), &repo.new_run_keys().unwrap()).await.unwrap();
    let part = format!("{spoilt}.ok");
    let rotten = broken((&objects, &repo), Fault::Corrupt(90), move |key| key.ends_with(&part));
    let options = ForgetOptions { unconfirmed: true, ..ForgetOptions::new(jiff::tz::TimeZone::UTC) };
    let mut plan = plan_forget(&rotten, &ForgetOptions { dry_run: true, ..options.clone() }).await.unwrap();
    assert_eq!(plan.dropped().count(), 0, "they are young");
    // As they will be judged when they are old.
    let now = Timestamp(plan.now.0 + 2 * UNCONFIRMED_AGE);
    let env = crate::repo::Env { clock: Arc::new(At(now)), ..rotten.env().clone() };
    plan = plan_forget(&rotten.with_env(env), &ForgetOptions { dry_run: true, ..options }).await.unwrap();
    assert!(plan.dropped().map(|(info, _)| info.id).eq([open]), "{:?}", plan.dropped().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_beginning_of_an_id_means_what_cannot_be_read_as_well() {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    let id = put(&repo, 0, |_| {}).await;
    let mut other = *id.as_bytes();
    other[31] ^= 1;
    let other = SnapshotId::new(other);
    let (key, bytes) = put_bytes(snapshot_name(&repo, 1, other), b"junk");
    repo.store().put(&key, bytes).await.unwrap();
    let (prefix, all) = (id.to_string()[..20].to_owned(), SnapshotFilter::default());
    for error in [
        resolve(&repo, &prefix, &all).await.unwrap_err(),
        resolve_all(&repo, &[prefix], &all).await.map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, Error::AmbiguousSnapshot { count: 2, .. }), "{error}");
    }
    assert_eq!(resolve_all(&repo, &[id.to_string()], &all).await.unwrap()[0].id, id);
}

#[tokio::test]
async fn what_cannot_be_read_is_forgotten_by_its_whole_id() {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    put(&repo, 0, |_| {}).await;
    let rotten = put(&repo, 1, |_| {}).await;
    let (key, bytes) = put_bytes(snapshot_name(&repo, 1, rotten), b"rot");
    repo.store().put(&key, bytes).await.unwrap();
    let options = |selector: &str| ForgetOptions {
        named: vec![selector.to_owned()],
        ..ForgetOptions::new(jiff::tz::TimeZone::UTC)
    };
    assert!(plan_forget(&repo, &options(&rotten.to_string()[..30])).await.is_err(), "only by all of it");
    repo.put_hold(vec![rotten], None).await.unwrap();
    let held = plan_forget(&repo, &options(&rotten.to_string())).await.unwrap_err();
    assert!(matches!(held, Error::Held { snapshot, .. } if snapshot == rotten), "{held}");
    let hold = repo.holds().await.unwrap()[0].hash;
    repo.delete_hold(hold).await.unwrap();
    for tombs in [1, 1] {
        let plan = plan_forget(&repo, &options(&rotten.to_string())).await.unwrap();
        apply_forget(&repo, &plan).await.unwrap();
        assert_eq!(repo.store().list("tombs/").await.unwrap().len(), tombs, "one is enough");
    }
    assert!(repo.standing_tombs(&[rotten].into()).await.unwrap().contains_key(&rotten));
}
