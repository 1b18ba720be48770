//! Restoring over what stands: kept where it matches, written where it does not, gone on with where it was stopped.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::class::Class;
use crate::store::fault::{Fault, Op};

const MIB: usize = 1 << 20;

fn in_place(snapshot: &SnapshotInfo, source: &Path, target: &Path) -> RestoreOptions {
    let path = source.as_os_str().as_encoded_bytes().to_vec();
    RestoreOptions { in_place: true, ..RestoreOptions::new(snapshot.clone(), path, target.to_owned()) }
}

/// A directory with what `fill` puts into it, saved.
struct Saved {
    place: tempfile::TempDir,
    objects: Arc<InMemory>,
    repo: Repository,
    snapshot: SnapshotInfo,
}

impl Saved {
    async fn new(fill: impl FnOnce(&Path)) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("source")).unwrap();
        fill(&place.path().join("source"));
        let mut env: Env = env();
        env.places.state = place.path().join("state");
        let objects = Arc::new(InMemory::new());
        let repo = new_repository(Arc::<InMemory>::clone(&objects), env).await;
        back_up(&repo, &place.path().join("source")).await;
        let snapshot = resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
        Self { place, objects, repo, snapshot }
    }

    fn source(&self) -> PathBuf {
        self.place.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.place.path().join("target")
    }

    fn options(&self) -> RestoreOptions {
        in_place(&self.snapshot, &self.source(), &self.target())
    }

    async fn restore(&self, options: RestoreOptions) -> RestoreSummary {
        let done = restore(&self.repo, options).await.unwrap();
        assert_eq!((done.failed, done.damaged_count), (0, 0));
        done
    }
}

/// Does something once, when a second pack of content is asked for and something is so.
pub(super) fn at_second_pack(
    ready: impl Fn() -> bool + Send + Sync + 'static,
    then: impl Fn() + Send + Sync + 'static,
) -> impl Fn(&Op) -> Fault + Send + Sync + 'static {
    let asked = AtomicUsize::new(0);
    move |op: &Op| {
        let content = op.kind == OpKind::GetRange && op.bytes > 1 << 20;
        if content && asked.fetch_add(1, Ordering::SeqCst) == 1 {
            for _ in 0..1000 {
                if ready() {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
            then();
        }
        Fault::None
    }
}

fn stat(path: &Path) -> fs::Metadata {
    fs::symlink_metadata(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_chunks_that_do_not_stand_are_fetched_and_written() {
    let saved = Saved::new(|dir| fs::write(dir.join("large"), noise(24 * MIB, 1)).unwrap()).await;
    let large = saved.target().join("large");
    fs::create_dir(saved.target()).unwrap();
    let mut content = noise(24 * MIB, 1);
    content[9 * MIB..9 * MIB + 100].fill(7);
    fs::write(&large, &content).unwrap();
    let inode = stat(&large).ino();
    let done = saved.restore(saved.options()).await;
    assert!(fs::read(&large).unwrap() == noise(24 * MIB, 1));
    assert_eq!(stat(&large).ino(), inode);
    assert!(done.chunks <= 2 && done.bytes <= 512 << 10, "{done:?}");
    assert!(done.fetched <= 5 << 20, "one or two segments: {done:?}");
    assert_eq!(done.kept + done.bytes, 24 << 20);
    assert_eq!(differences_below(&saved.source(), &saved.target()), "");
    // Once more: nothing is fetched, and nothing is touched.
    let before = stat(&large);
    let done = saved.restore(saved.options()).await;
    assert_eq!((done.fetched, done.bytes, done.kept, done.files), (0, 0, 24 << 20, 1));
    assert_eq!((stat(&large).ctime(), stat(&large).ctime_nsec()), (before.ctime(), before.ctime_nsec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_everything_comes_back_over_another_one() {
    let saved = Saved::new(make_tree).await;
    let target = saved.target();
    saved.restore(saved.options()).await;
    assert_eq!(differences_below(&saved.source(), &target), "");
    // All that can be different: shorter, longer, other bytes, other kinds, other metadata, holes that are filled.
    let change = |name: &str| fs::File::options().write(true).open(target.join(name)).unwrap();
    change("a/large").set_len(5 << 20).unwrap();
    change("sparse").write_all_at(&noise(300_000, 9), 2 << 20).unwrap();
    change("sparse").write_all_at(b"tail", 9 << 20).unwrap();
    change("a/b/7").write_all_at(b"x", 3).unwrap();
    fs::File::options().append(true).open(target.join("a/b/zeroes")).unwrap().write_all(b"more").unwrap();
    fs::remove_file(target.join("a/link")).unwrap();
    fs::write(target.join("a/link"), b"a file").unwrap();
    fs::remove_file(target.join("a/b/8")).unwrap();
    symlink("7", target.join("a/b/8")).unwrap();
    fs::set_permissions(target.join("a/small"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(target.join("a/b"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_file(target.join("empty.link")).unwrap();
    fs::write(target.join("empty.link"), b"no link").unwrap();
    let _ = rustix::fs::setxattr(target.join("a/b"), "user.stray", b"x", rustix::fs::XattrFlags::empty());
    let done = saved.restore(RestoreOptions { verify: true, ..saved.options() }).await;
    assert_eq!(differences_below(&saved.source(), &target), "");
    assert!(done.kept > 7 << 20, "{done:?}");
    assert!(stat(&target.join("sparse")).blocks() * 512 < 1 << 20, "holes are punched");
    assert_eq!(names(&target.join("a")).iter().filter(|name| name.starts_with(".lifeboat")).count(), 0);
    // The same with runs of zeroes that become holes.
    fs::write(target.join("a/b/zeroes"), noise(3 << 20, 5)).unwrap();
    saved.restore(RestoreOptions { sparse: true, ..saved.options() }).await;
    assert_eq!(differences_below(&saved.source(), &target), "");
    assert!(stat(&target.join("a/b/zeroes")).blocks() * 512 < 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_stopped_goes_on_where_it_was() {
    for begun_in_place in [true, false] {
        let saved = Saved::new(|dir| {
            fs::write(dir.join("large"), noise(48 * MIB, 1)).unwrap();
            fs::write(dir.join("other"), noise(MIB, 2)).unwrap();
        })
        .await;
        let cancel = saved.repo.env().cancel.clone();
        let faults = FaultStore::new(Arc::<InMemory>::clone(&saved.objects), {
            let large = saved.target().join("large");
            let written = move || fs::metadata(&large).is_ok_and(|found| found.blocks() > 0);
            at_second_pack(written, move || cancel.raise())
        });
        let mut options = saved.options();
        options.in_place = begun_in_place;
        let stopped = saved.repo.with_store(store_over(Arc::new(faults)));
        let done = restore(&stopped, options).await;
        assert!(matches!(done, Err(error) if error.class() == Class::Cancelled));
        if !begun_in_place {
            // A run that is killed, not stopped, leaves what arrived.
            assert!(!saved.target().join("large").exists());
            let mut half = noise(48 * MIB, 1);
            half.truncate(20 * MIB + 5);
            fs::write(saved.target().join("large"), half).unwrap();
        }
        let mut again: Env = env();
        again.places.state = saved.place.path().join("state");
        let repo = saved.repo.with_env(again);
        let done = restore(&repo, saved.options()).await.unwrap();
        assert_eq!((done.failed, done.damaged_count, done.files), (0, 0, 2));
        assert!(done.kept >= if begun_in_place { 16 << 10 } else { 19 << 20 }, "{done:?}");
        assert_eq!(done.kept + done.bytes, 49 << 20);
        assert_eq!(differences_below(&saved.source(), &saved.target()), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_outside_of_the_restore_keep_what_they_had() {
    let saved = Saved::new(|dir| {
        fs::write(dir.join("alone"), noise(3 * MIB, 1)).unwrap();
        fs::write(dir.join("first"), noise(2 * MIB, 2)).unwrap();
        fs::hard_link(dir.join("first"), dir.join("second")).unwrap();
        fs::write(dir.join("third"), noise(2 * MIB, 2)).unwrap();
    })
    .await;
    let (target, outside) = (saved.target(), saved.place.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    saved.restore(saved.options()).await;
    // Nothing is different, and the names of one file stay together.
    let inode = stat(&target.join("first")).ino();
    saved.restore(saved.options()).await;
    assert_eq!((stat(&target.join("first")).ino(), stat(&target.join("second")).ino()), (inode, inode));
    // What the snapshot has as files of their own is one file here, and has names outside.
    fs::remove_file(target.join("third")).unwrap();
    fs::hard_link(target.join("first"), target.join("third")).unwrap();
    fs::hard_link(target.join("first"), outside.join("first")).unwrap();
    let changed = fs::File::options().write(true).open(target.join("alone")).unwrap();
    changed.write_all_at(b"different", 5).unwrap();
    fs::hard_link(target.join("alone"), outside.join("alone")).unwrap();
    let before = fs::read(outside.join("alone")).unwrap();
    let done = saved.restore(saved.options()).await;
    assert!(done.fetched < 4 << 20, "{done:?}");
    assert_eq!(differences_below(&saved.source(), &target), "");
    assert!(fs::read(outside.join("alone")).unwrap() == before);
    assert!(fs::read(outside.join("first")).unwrap() == noise(2 * MIB, 2));
    assert_eq!(stat(&target.join("first")).ino(), stat(&target.join("second")).ino());
    assert_ne!(stat(&target.join("third")).ino(), stat(&target.join("first")).ino());
    // The linked file is different, and shared with a name outside.
    let changed = fs::File::options().write(true).open(target.join("second")).unwrap();
    changed.write_all_at(b"different", 5).unwrap();
    let before = fs::read(outside.join("first")).unwrap();
    saved.restore(saved.options()).await;
    assert_eq!(differences_below(&saved.source(), &target), "");
    assert!(fs::read(outside.join("first")).unwrap() == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symlink_that_takes_the_place_of_a_file_leads_nowhere() {
    for in_place in [true, false] {
        let saved = Saved::new(|dir| fs::write(dir.join("large"), noise(24 * MIB, 1)).unwrap()).await;
        let (target, outside) = (saved.target(), saved.place.path().join("outside"));
        fs::create_dir(&target).unwrap();
        fs::write(&outside, noise(24 * MIB, 3)).unwrap();
        if in_place {
            fs::write(target.join("large"), noise(24 * MIB, 4)).unwrap();
        }
        let faults = FaultStore::new(Arc::<InMemory>::clone(&saved.objects), {
            let (large, theirs) = (target.join("large"), outside.clone());
            let there = large.clone();
            let exists = move || fs::symlink_metadata(&there).is_ok();
            at_second_pack(exists, move || {
                fs::remove_file(&large).unwrap();
                symlink(&theirs, &large).unwrap();
            })
        });
        let repo = saved.repo.with_store(store_over(Arc::new(faults)));
        let done = restore(&repo, RestoreOptions { in_place, ..saved.options() }).await.unwrap();
        assert_eq!((done.failed, done.files), (1, 0), "in place: {in_place}");
        assert!(fs::read(&outside).unwrap() == noise(24 * MIB, 3));
        assert_eq!(fs::read_link(target.join("large")).unwrap(), outside);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_leaves_a_large_file_with_what_could_be_had_and_says_so() {
    let (objects, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 1;
    let parts: Vec<Vec<u8>> = (0..20).map(|n| noise(100_000, n)).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let mut node = forge.file("large", &parts);
    node.mode = 0o644;
    let Content::Inline(rows) = &node.content else { panic!() };
    let lost = rows[3].id;
    let small = forge.file("small", &parts[3..5]);
    let root = forge.page(&[node, small]);
    let snapshot = forge.store(root, 1).await;
    let copy = copies(&repo, &lost).await.remove(0);
    flip(&objects, copy.pack_id, copy.segment.offset + 5).await;
    let target = tempfile::tempdir().unwrap();
    for name in ["large", "small"] {
        fs::write(target.path().join(name), vec![7; 2_000_000]).unwrap();
        fs::set_permissions(target.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::write(target.path().join("small"), b"old").unwrap();
    let all = RestoreOptions { in_place: true, ..options(snapshot, target.path()) };
    let done = restore(&repo, all).await.unwrap();
    assert_eq!(done.damaged, [b"/large".to_vec(), b"/small".to_vec()]);
    assert_eq!(fs::read(target.path().join("small")).unwrap(), b"old");
    let large = fs::read(target.path().join("large")).unwrap();
    assert!(large[400_000..] == parts[4..].concat());
    assert_eq!(stat(&target.path().join("large")).mode() & 0o7777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_leave_and_replace_what_they_say() {
    let saved = Saved::new(|dir| {
        for name in ["older", "newer", "same", "gone"] {
            fs::write(dir.join(name), format!("saved {name}")).unwrap();
        }
        symlink("saved", dir.join("link")).unwrap();
    })
    .await;
    let target = saved.target();
    let prepare = || {
        let _ = fs::remove_dir_all(&target);
        fs::create_dir(&target).unwrap();
        for name in ["older", "newer", "same"] {
            fs::write(target.join(name), format!("stood {name}")).unwrap();
        }
        symlink("stood", target.join("link")).unwrap();
        let time = |name: &str, offset: i64| {
            let saved = stat(&saved.source().join(name));
            let time = rustix::fs::Timespec { tv_sec: saved.mtime() + offset, tv_nsec: saved.mtime_nsec() };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, target.join(name), &times, flags).unwrap();
        };
        time("older", -10);
        time("newer", 10);
        time("same", 0);
        time("link", 10);
    };
    let content = |name: &str| fs::read_to_string(target.join(name)).unwrap();
    let contents = || (content("older"), content("newer"), content("same"), content("gone"));
    let expected = |older: &str, newer: &str, same: &str| {
        (format!("{older} older"), format!("{newer} newer"), format!("{same} same"), "saved gone".to_owned())
    };
    for in_place in [false, true] {
        let with = |overwrite, dry_run| RestoreOptions { overwrite, in_place, dry_run, ..saved.options() };
        for (overwrite, result, link, left, failed) in [
            (Overwrite::Always, expected("saved", "saved", "saved"), "saved", 0, 0),
            (Overwrite::IfChanged, expected("saved", "saved", "stood"), "saved", 0, 0),
            (Overwrite::IfNewer, expected("saved", "stood", "stood"), "stood", 3, 0),
            (Overwrite::Never, expected("stood", "stood", "stood"), "stood", 0, 4),
        ] {
            if in_place && matches!(overwrite, Overwrite::IfNewer | Overwrite::Never) {
                let refused = restore(&saved.repo, with(overwrite, false)).await;
                assert!(matches!(refused, Err(Error::InPlacePolicy)));
                continue;
            }
            prepare();
            let dry = restore(&saved.repo, with(overwrite, true)).await.unwrap();
            let done = restore(&saved.repo, with(overwrite, false)).await.unwrap();
            assert_eq!(contents(), result, "{overwrite:?} {in_place}");
            assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new(link), "{overwrite:?}");
            assert_eq!((done.left, done.failed), (left, failed), "{overwrite:?} {in_place}");
            assert_eq!(dry.fetched, done.fetched, "{overwrite:?} {in_place}");
            assert_eq!(dry.bytes, done.bytes, "{overwrite:?} {in_place}");
        }
    }
}
