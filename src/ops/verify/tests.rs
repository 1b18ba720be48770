//! A small repository, damaged in every way that has its own finding.

mod doubt;
mod ledger;

use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::format::index::IndexTables;
use crate::format::layout;
use crate::ops::testing::{back_up, env, new_repository, store_over};
use crate::store::Key;
use crate::store::fault::{Fault, FaultStore, OpKind};

struct World {
    objects: Arc<InMemory>,
    repo: Repository,
    _state: tempfile::TempDir,
}

/// Two snapshots of a tree with small files, one of several chunks, and one whose list of chunks is in pages.
async fn world() -> World {
    let (source, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let objects = Arc::new(InMemory::new());
    let mut env = env();
    env.places.state = state.path().to_owned();
    let repo = new_repository(objects.clone(), env).await;
    let file = |name: &str, bytes: &[u8]| {
        let path = source.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    for n in 0..40 {
        file(&format!("small/{n}"), format!("file {n} ").repeat(n + 1).as_bytes());
    }
    let mut noise = vec![0; 3 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    file("deep/er/noise", &noise);
    file("empty", b"");
    back_up(&repo, source.path()).await;
    file("small/new", b"only in the second");
    back_up(&repo, source.path()).await;
    World { objects, repo, _state: state }
}

impl World {
    async fn keys(&self, prefix: &str) -> Vec<Key> {
        self.repo.store().list(prefix).await.unwrap().into_iter().map(|object| object.key).collect()
    }

    async fn get(&self, key: &Key) -> Vec<u8> {
        self.repo.store().get(key, u64::MAX).await.unwrap().to_vec()
    }

    async fn put(&self, key: &Key, bytes: Vec<u8>) {
        self.repo.store().put(key, vec![bytes.into()]).await.unwrap();
    }

    async fn flip(&self, key: &Key, place: impl FnOnce(usize) -> usize) {
        let mut bytes = self.get(key).await;
        let place = place(bytes.len());
        bytes[place] ^= 0x10;
        self.put(key, bytes).await;
    }

    /// The packs of a kind, the largest first.
    async fn packs(&self, kind: crate::format::envelope::ChunkKind) -> Vec<Key> {
        let index = self.repo.load_index().await.unwrap();
        let mut packs: Vec<_> = index.view.packs().map(|pack| pack.unwrap().1).collect();
        packs.retain(|row| row.kind == kind);
        packs.sort_by_key(|row| std::cmp::Reverse(row.size));
        packs.iter().map(|row| Key::new(pack_key(row.id)).unwrap()).collect()
    }
}

fn of<'a>(report: &'a VerifyReport, key: &Key) -> Vec<&'a Finding> {
    report.findings.iter().filter(|finding| finding.key == key.as_str()).collect()
}

fn lines(report: &VerifyReport) -> Vec<String> {
    report.findings.iter().map(|finding| format!("{:?} {finding}", finding.severity)).collect()
}

#[tokio::test]
async fn a_sound_repository_has_no_findings_and_everything_is_counted() {
    let world = world().await;
    for depth in [Depth::Structure, Depth::Packs, Depth::Data] {
        let report = verify(&world.repo, depth).await.unwrap();
        assert_eq!(lines(&report), [""; 0], "{depth:?}");
        assert_eq!(report.snapshots, 2);
        assert_eq!(report.objects as usize, world.keys("").await.len());
        assert!(report.chunks > 40);
    }
    let store = world.repo.store().clone();
    let report = verify_packs_without_key(store, world.repo.env()).await.unwrap();
    assert_eq!(lines(&report), [""; 0]);
    assert_eq!(report.objects as usize, world.keys("").await.len());
}

#[tokio::test]
async fn a_missing_pack_names_the_files_it_hits_in_every_snapshot() {
    use crate::format::envelope::ChunkKind;
    let world = world().await;
    let [first, ..] = &world.packs(ChunkKind::Data).await[..] else { panic!("no pack") };
    world.repo.store().delete(first).await.unwrap();
    let report = verify(&world.repo, Depth::Structure).await.unwrap();
    let findings = of(&report, first);
    let [finding] = findings[..] else { panic!("{:?}", lines(&report)) };
    assert!(matches!(finding.problem, Problem::Missing) && finding.severity == Severity::Damage);
    let in_snapshots = finding.affected.iter().filter(|affected| affected.path.ends_with(b"/deep/er/noise"));
    let in_snapshots: HashSet<_> = in_snapshots.map(|affected| affected.snapshot).collect();
    assert_eq!(in_snapshots.len(), 2, "{:?}", finding.affected);
    assert!(finding.affected_count >= 2);
}

/// Who walks no trees cannot tell it from a pack that a collection deleted, once one has ended.
#[tokio::test]
async fn a_key_that_opens_no_snapshot_takes_a_missing_pack_for_damage_until_a_collection_has_ended() {
    use crate::format::envelope::ChunkKind;
    use crate::format::keyslot::Role;
    let world = world().await;
    let verifier = world.repo.as_role(Role::Verifier);
    let pack = world.packs(ChunkKind::Data).await.remove(0);
    world.repo.store().delete(&pack).await.unwrap();
    for (ended, severity) in [(false, Severity::Damage), (true, Severity::Warning)] {
        if ended {
            world.repo.put_horizon(1).await.unwrap();
        }
        let report = verify(&verifier, Depth::Structure).await.unwrap();
        let [finding] = of(&report, &pack)[..] else { panic!("{:?}", lines(&report)) };
        assert!(matches!(finding.problem, Problem::Missing) && finding.severity == severity, "{ended}");
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_pack_is_found_with_the_files_in_its_segment() {
    use crate::format::envelope::ChunkKind;
    let world = world().await;
    for kind in ChunkKind::ALL {
        let pack = world.packs(kind).await.remove(0);
        let whole = world.get(&pack).await;
        world.flip(&pack, |_| 100).await;
        let report = verify(&world.repo, Depth::Data).await.unwrap();
        let found = of(&report, &pack);
        assert!(found.iter().any(|f| matches!(f.problem, Problem::HashMismatch)), "{:?}", lines(&report));
        assert!(
            found.iter().any(|f| matches!(f.problem, Problem::BodyHash)),
            "{kind:?} {:?}",
            lines(&report)
        );
        let segments =
            found.iter().find(|f| matches!(f.problem, Problem::Segments { damaged: 1, .. })).unwrap();
        assert!(segments.affected_count > 0 && segments.severity == Severity::Damage);
        // The last byte is the magic of the footer: nothing that a restore reads is hit.
        world.put(&pack, whole.clone()).await;
        world.flip(&pack, |len| len - 1).await;
        let report = verify(&world.repo, Depth::Data).await.unwrap();
        assert!(report.has_damage());
        assert!(of(&report, &pack).iter().all(|f| f.affected.is_empty()), "{:?}", lines(&report));
        let packs = verify(&world.repo, Depth::Packs).await.unwrap();
        assert!(matches!(of(&packs, &pack)[..], [Finding { problem: Problem::HashMismatch, .. }]));
        let store = world.repo.store().clone();
        let keyless = verify_packs_without_key(store, world.repo.env()).await.unwrap();
        assert!(matches!(of(&keyless, &pack)[..], [Finding { problem: Problem::HashMismatch, .. }]));
        world.put(&pack, whole).await;
    }
}

#[tokio::test]
async fn small_objects_index_objects_and_snapshots_are_read_in_full() {
    let world = world().await;
    for prefix in [layout::CONFIG, layout::KEYS, layout::WRITERS, layout::INDEX, layout::SNAPSHOTS] {
        for key in world.keys(prefix).await {
            let whole = world.get(&key).await;
            for place in [0, whole.len() / 2, whole.len() - 1] {
                world.flip(&key, |_| place).await;
                let report = verify(&world.repo, Depth::Structure).await.unwrap();
                let found = of(&report, &key);
                assert!(
                    found.iter().any(|f| f.severity == Severity::Damage),
                    "{key} {place}: {:?}",
                    lines(&report)
                );
                world.put(&key, whole.clone()).await;
            }
        }
    }
    assert_eq!(lines(&verify(&world.repo, Depth::Data).await.unwrap()), [""; 0]);
}

#[tokio::test]
async fn what_is_gone_is_missed() {
    let world = world().await;
    for key in world.keys("").await {
        let whole = world.get(&key).await;
        world.repo.store().delete(&key).await.unwrap();
        let report = verify(&world.repo, Depth::Structure).await.unwrap();
        let confirmation = key.as_str().ends_with(".ok");
        let at_open =
            [layout::CONFIG, layout::KEYS, layout::WRITERS].iter().any(|p| key.as_str().starts_with(p));
        // Whoever has the repository open does not need these any more; the next one to open it misses them.
        assert_eq!(report.has_damage(), !confirmation && !at_open, "{key}: {:?}", lines(&report));
        if confirmation {
            assert!(matches!(report.findings[..], [Finding { problem: Problem::Unconfirmed, .. }]));
        }
        world.put(&key, whole).await;
    }
}

#[tokio::test]
async fn what_does_not_belong_here_is_a_warning() {
    let world = world().await;
    for name in ["packs/zz/junk", "snapshots/junk", "index/junk", "keys/junk"] {
        world.put(&Key::new(name).unwrap(), b"junk".to_vec()).await;
    }
    let report = verify(&world.repo, Depth::Data).await.unwrap();
    assert_eq!(report.findings.len(), 4, "{:?}", lines(&report));
    assert!(!report.has_damage());
    assert!(report.findings.iter().all(|f| matches!(f.problem, Problem::ForeignName)));
    assert!(report.findings.is_sorted_by_key(|finding| finding.key.clone()));
}

#[tokio::test]
async fn what_is_read_wrong_once_is_read_again() {
    let world = world().await;
    let wrong = std::sync::Mutex::new(HashSet::new());
    let faults = FaultStore::new(world.objects.clone(), move |op| {
        let first = wrong.lock().unwrap().insert((op.kind, op.key.clone()));
        if first && matches!(op.kind, OpKind::Get | OpKind::GetRange) {
            Fault::Corrupt(40)
        } else {
            Fault::None
        }
    });
    let repo = world.repo.with_store(store_over(Arc::new(faults)));
    let report = verify(&repo, Depth::Data).await.unwrap();
    assert_eq!(lines(&report), [""; 0]);
}

#[tokio::test]
async fn a_store_that_is_gone_is_an_error_and_not_damage() {
    let world = world().await;
    let faults = FaultStore::new(world.objects.clone(), |op| match op.kind {
        OpKind::Get if op.key.starts_with("packs/") => {
            Fault::Before(crate::store::fault::Failure::Unreachable)
        }
        _ => Fault::None,
    });
    let repo = world.repo.with_store(store_over(Arc::new(faults)));
    let error = verify(&repo, Depth::Data).await.unwrap_err();
    assert_eq!(error.class(), crate::class::Class::Unreachable);
    repo.env().cancel.raise();
    assert!(matches!(verify(&repo, Depth::Structure).await, Err(Error::Cancelled)));
}

/// Replaces the index object that names the most chunks by one that says something else.
async fn reindex(world: &World, edit: impl FnOnce(&mut IndexTables)) {
    let old = largest_index(world).await.1;
    contradict(world, edit).await;
    world.repo.store().delete(&old).await.unwrap();
}

/// The index object that names the most chunks.
async fn largest_index(world: &World) -> (IndexTables, Key) {
    let mut found = Vec::new();
    for key in world.keys(layout::INDEX).await {
        let name = ObjectName::parse(key.as_str()).unwrap();
        found.push((world.repo.fetch_index(name).await.unwrap(), key));
    }
    found.into_iter().max_by_key(|(tables, _)| tables.records.len()).unwrap()
}

/// Puts a second index object that says what `edit` makes of the largest one.
async fn contradict(world: &World, edit: impl FnOnce(&mut IndexTables)) -> Key {
    let (mut tables, _) = largest_index(world).await;
    edit(&mut tables);
    tables.records.sort_unstable();
    tables.check().unwrap();
    let (writer, signing) = world.repo.writer().unwrap();
    let hash = world.repo.put_index(&tables, &signing).await.unwrap();
    Key::new(ObjectName::Index(writer, hash).key()).unwrap()
}

#[tokio::test]
async fn an_index_that_is_signed_and_wrong_is_found_out() {
    use crate::format::index::Record;
    // A chunk one byte shorter, a chunk that begins elsewhere, a chunk left out.
    for wrong in 0..3 {
        let world = world().await;
        reindex(&world, |tables| {
            let row = tables.records.iter().position(|row| Record::decode(row).offset > 0).unwrap();
            let mut record = Record::decode(&tables.records[row]);
            match wrong {
                0 => record.len -= 1,
                _ => record.offset -= 1,
            }
            match wrong {
                2 => drop(tables.records.remove(row)),
                _ => tables.records[row] = record.encode(),
            }
        })
        .await;
        let report = verify(&world.repo, Depth::Data).await.unwrap();
        let differs = |f: &Finding| matches!(f.problem, Problem::IndexDiffers { what: "the chunks" });
        assert!(report.findings.iter().any(differs), "{wrong}: {:?}", lines(&report));
        // Without reading packs the length and the absence show by what the snapshots need; a wrong place shows only if
        // a page of a tree is there, which chance decides.
        let structure = verify(&world.repo, Depth::Structure).await.unwrap();
        assert!(structure.has_damage() || wrong == 1, "{wrong}: {:?}", lines(&structure));
    }
}
