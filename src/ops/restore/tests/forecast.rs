//! What a dry run says, against what a run then does.

use super::*;
use crate::source::target::TargetError;

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_fetches_what_was_planned_with_as_many_requests() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..300 {
        fs::write(source.join(number.to_string()), noise(120_000, number)).unwrap();
    }
    fs::write(source.join("large"), noise(12 << 20, 1000)).unwrap();
    let mut env: Env = env();
    env.places.state = place.path().join("state");
    let disk = place.path().join("repository");
    fs::create_dir(&disk).unwrap();
    let objects = Arc::new(LocalFileSystem::new_with_prefix(&disk).unwrap());
    let repo = new_repository(Arc::<LocalFileSystem>::clone(&objects), env).await;
    back_up(&repo, &source).await;
    let snapshot = resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
    let target = place.path().join("target");
    let path = source.as_os_str().as_encoded_bytes().to_vec();
    let with = |in_place, dry_run| RestoreOptions {
        in_place,
        dry_run,
        path: path.clone(),
        ..options(snapshot.clone(), &target)
    };
    for in_place in [false, true] {
        if in_place {
            for number in (0..300).step_by(10) {
                fs::write(target.join(number.to_string()), noise(120_000, 7)).unwrap();
            }
            fs::File::options().write(true).open(target.join("large")).unwrap().set_len(5 << 20).unwrap();
        }
        let dry = restore(&repo, with(in_place, true)).await.unwrap();
        let plan = dry.forecast.unwrap();
        assert!(plan.fits() && plan.memory > 0 && plan.requests > 0);
        assert_eq!(plan.time, None, "nothing like it was measured before: {plan:?}");
        // What reads the tree asks too: that is what a dry run does.
        let count = async |dry_run| {
            let asked = Arc::new(FaultStore::recording(Arc::<LocalFileSystem>::clone(&objects)));
            let repo = repo.with_store(store_over(Arc::<FaultStore>::clone(&asked)));
            let done = restore(&repo, with(in_place, dry_run)).await.unwrap();
            (done, asked.count(OpKind::GetRange) as u64)
        };
        let (_, of_trees) = count(true).await;
        let (done, asked) = count(false).await;
        assert_eq!((done.fetched, done.bytes, done.chunks), (dry.fetched, dry.bytes, dry.chunks));
        assert_eq!((done.kept, done.files), (dry.kept, dry.files));
        assert!(asked <= plan.requests + of_trees, "{asked} requests, {of_trees} of trees, {plan:?}");
        assert_eq!(differences_below(&source, &target), "");
        let grows = if in_place { 7 << 20 } else { (12 << 20) + 300 * 120_000 };
        assert!(plan.space_needed.abs_diff(grows) < 4 << 20, "{plan:?}");
    }
    let elsewhere = place.path().join("elsewhere");
    let whole = RestoreOptions { target: elsewhere, ..with(false, true) };
    let plan = restore(&repo, whole).await.unwrap().forecast.unwrap();
    assert!(plan.time.is_some_and(|time| !time.is_zero()), "a restore like it was measured by now: {plan:?}");
}

/// A file system of its own with this many bytes, gone with the value.
struct Small(tempfile::TempDir);

impl Small {
    fn new(size: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: mounting a tmpfs needs root");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_only_because_of_what_stands_is_restored_and_what_does_not_is_not_begun() {
    let Some(small) = Small::new(6 << 20) else { return };
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("large"), noise(5 << 20, 1)).unwrap();
    let (repo, snapshot) = backed_up(&source, &place.path().join("state")).await;
    let target = small.0.path();
    let path = source.as_os_str().as_encoded_bytes().to_vec();
    let mut content = noise(5 << 20, 1);
    content[3 << 20] ^= 1;
    fs::write(target.join("large"), content).unwrap();
    let with = |in_place, dry_run| RestoreOptions {
        in_place,
        dry_run,
        path: path.clone(),
        ..options(snapshot.clone(), target)
    };
    // There is one MiB: enough where the file stands.
    let plan = restore(&repo, with(true, true)).await.unwrap().forecast.unwrap();
    assert!(plan.fits() && plan.space_needed == 0, "{plan:?}");
    let done = restore(&repo, with(true, false)).await.unwrap();
    assert_eq!((done.failed, done.damaged_count, done.files), (0, 0, 1));
    assert!(fs::read(target.join("large")).unwrap() == noise(5 << 20, 1));
    // Beside what stands there is no room, which shows only while it is written: the old file stays.
    let full = restore(&repo, with(false, false)).await.unwrap_err();
    assert_eq!(full.class(), crate::class::Class::NoSpace, "{full}");
    assert_eq!(names(target), ["large"]);
    // Something else takes the room.
    fs::remove_file(target.join("large")).unwrap();
    fs::write(target.join("theirs"), vec![1; 3 << 20]).unwrap();
    for in_place in [true, false] {
        let plan = restore(&repo, with(in_place, true)).await.unwrap().forecast.unwrap();
        assert!(!plan.fits(), "{plan:?}");
        let refused = restore(&repo, with(in_place, false)).await.unwrap_err();
        assert!(matches!(refused, Error::TargetTooSmall { .. }), "{refused}");
        assert_eq!(names(target), ["theirs"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_goes_away_ends_the_run() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..40 {
        fs::write(source.join(number.to_string()), noise(500_000, number)).unwrap();
    }
    let mut env: Env = env();
    env.places.state = place.path().join("state");
    let objects = Arc::new(InMemory::new());
    let repo = new_repository(Arc::<InMemory>::clone(&objects), env).await;
    back_up(&repo, &source).await;
    let snapshot = resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
    let Some(small) = Small::new(64 << 20) else { return };
    let (mount, seen) = (small.0.path().to_owned(), small.0.path().to_owned());
    let begun = move || fs::read_dir(&seen).is_ok_and(|mut entries| entries.next().is_some());
    let faults = FaultStore::new(
        Arc::<InMemory>::clone(&objects),
        in_place::at_second_pack(begun, move || {
            Command::new("umount").arg("-l").arg(&mount).status().unwrap();
        }),
    );
    let repo = repo.with_store(store_over(Arc::new(faults)));
    let ended = restore(&repo, options(snapshot, small.0.path())).await;
    let there = names(small.0.path()).len();
    // So that there is something to unmount in the end.
    Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(small.0.path()).status().unwrap();
    assert!(matches!(ended, Err(Error::Target(TargetError::Changed { .. }))), "{ended:?}");
    assert_eq!(there, 0, "nothing is written below the mount");
}
