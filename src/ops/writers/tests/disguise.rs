//! What is stored under a name, or with a hash, that is another one's.

use super::*;

/// Names of a thief's snapshot and tomb, and others that have their hashes.
struct Disguise {
    refused: [ObjectName; 2],
    garbage: Vec<ObjectName>,
}

impl Team {
    /// The thief puts a snapshot, and the tomb of another one.
    async fn disguised(&self, saved: SnapshotId) -> Disguise {
        let thief = self.thief().await;
        let late = put_snapshot(&thief, 5, |_| {}).await;
        testing::forget(&thief, saved).await;
        let tombs = self.admin.list_tombs().await.unwrap();
        let Some(tomb) = ObjectName::parse(tombs[0].key.as_str()) else { panic!("a tomb") };
        let refused = [ObjectName::Snapshot(self.thief, 5, late), tomb];
        let mut garbage = Vec::new();
        for hash in refused.iter().filter_map(ObjectName::content_hash) {
            garbage.push(ObjectName::Index(self.thief, hash));
            garbage.push(ObjectName::Anchor(hash));
            garbage.push(ObjectName::Snapshot(self.thief, 9, hash.into()));
            garbage.push(ObjectName::Tomb(late, hash));
        }
        Disguise { refused, garbage }
    }

    async fn put_garbage(&self, names: &[ObjectName]) {
        for name in names {
            testing::put_object(&self.admin, &name.key(), b"garbage".to_vec()).await;
        }
    }

    /// Fails unless these are all snapshots that count, and none of them is forgotten.
    async fn has_only(&self, mut wanted: Vec<SnapshotId>) {
        let found = list_checked(&self.admin, &SnapshotFilter::default()).await.unwrap();
        assert!(found.snapshots.iter().all(|info| info.forgotten.is_none()));
        let mut ids: Vec<_> = found.snapshots.iter().map(|info| info.id).collect();
        ids.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(ids, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_late_counts_because_something_else_has_its_hash() {
    let team = Team::of(Role::Admin, Authority::Maintainer).await;
    let admin = &team.admin;
    let saved = put_snapshot(admin, 0, |_| {}).await;
    let early = put_snapshot(&team.thief().await, 0, |_| {}).await;
    // A store in memory tells times of the machine: they are apart.
    let pause = std::time::Duration::from_millis(20);
    tokio::time::sleep(pause).await;
    let since = Timestamp(admin.env().clock.now().0);
    tokio::time::sleep(pause).await;
    let Disguise { refused, garbage } = team.disguised(saved).await;
    team.put_garbage(&garbage).await;
    // Nor is anything lost that came before.
    team.put_garbage(&[ObjectName::Snapshot(team.thief, 9, early)]).await;
    revoke(admin, &team.thief.to_string(), Some(since)).await.unwrap();
    assert!(!refused.iter().any(|name| admin.accepts(&team.thief, name)));
    team.has_only(vec![saved, early]).await;
}

/// Who still reaches the store brings what was signed before.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_that_was_there_makes_nothing_count_that_is_brought_afterwards() {
    let team = Team::of(Role::Admin, Authority::Maintainer).await;
    let admin = &team.admin;
    let saved = put_snapshot(admin, 0, |_| {}).await;
    let Disguise { refused, garbage } = team.disguised(saved).await;
    let mut kept = Vec::new();
    let confirmation = match refused[0] {
        ObjectName::Snapshot(writer, number, id) => ObjectName::Confirmation(writer, number, id),
        other => panic!("{other:?}"),
    };
    for name in [refused[0], confirmation, refused[1]] {
        let key = Key::new(name.key()).unwrap();
        kept.push((key.clone(), admin.store().get(&key, 1 << 24).await.unwrap()));
        admin.store().delete(&key).await.unwrap();
    }
    team.put_garbage(&garbage).await;
    revoke(admin, &team.thief.to_string(), None).await.unwrap();
    for (key, bytes) in kept {
        admin.store().put(&key, vec![bytes]).await.unwrap();
    }
    team.has_only(vec![saved]).await;
    // Under no other name either that has the hash.
    let moved = ObjectName::Snapshot(team.thief, 9, refused[0].content_hash().unwrap().into());
    assert!(admin.accepts(&team.thief, &moved) && !admin.accepts(&team.thief, &refused[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_snapshot_that_is_not_to_be_had_goes_with_the_next_collection() {
    let team = Team::new().await;
    revoke(&team.admin, &team.thief.to_string(), None).await.unwrap();
    let stale = team.forging().await;
    let mut late = Vec::new();
    for number in 0..9 {
        late.push(put_snapshot(&stale, number, |_| {}).await);
    }
    let hidden = late[3].to_string();
    let spoilt = FaultStore::new(Arc::clone(&team.world.objects) as Arc<dyn ObjectStore>, move |op| {
        if op.kind == OpKind::Get && op.key.ends_with(&hidden) { Fault::Corrupt(50) } else { Fault::None }
    });
    prune(&team.admin.with_store(testing::store_over(Arc::new(spoilt))), &NOW).await.unwrap();
    let left: Vec<_> = team.admin.list_snapshots().await.unwrap().iter().map(|listed| listed.id).collect();
    assert_eq!(left, late[3..4]);
    prune(&team.admin, &NOW).await.unwrap();
    assert!(team.admin.list_snapshots().await.unwrap().is_empty());
}

/// A thief may copy what others signed under its own name; that must not name it as removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_the_name_of_a_revoked_writer_hurts_nobody() {
    let team = Team::new().await;
    let admin = &team.admin;
    let mine = back_up(admin, &team.source()).await;
    revoke(admin, &team.thief.to_string(), None).await.unwrap();
    for object in admin.store().list("").await.unwrap() {
        let copy = match ObjectName::parse(object.key.as_str()) {
            Some(ObjectName::Snapshot(_, number, id)) => ObjectName::Snapshot(team.thief, number, id),
            Some(ObjectName::Confirmation(_, number, id)) => ObjectName::Confirmation(team.thief, number, id),
            Some(ObjectName::Index(_, hash)) => ObjectName::Index(team.thief, hash),
            _ => continue,
        };
        let bytes = admin.store().get(&object.key, 1 << 24).await.unwrap();
        testing::put_object(admin, &copy.key(), bytes.to_vec()).await;
    }
    prune(admin, &NOW).await.unwrap();
    assert!(!admin.removals(&mut Vec::new()).await.unwrap().snapshots().any(|id| *id == mine));
    assert_eq!(restored(admin, mine, &team.source()).await, contents(&team.source()));
    let target = team.world.dir.path().join("out");
    let latest = resolve(admin, "latest", &SnapshotFilter::default()).await.unwrap();
    restore(admin, RestoreOptions::new(latest, Vec::new(), target)).await.unwrap();
}
