use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex as StdMutex;

use object_store::ObjectStoreExt;

use super::super::error::{Operation, Request, classify};
use super::super::tests::env_with;
use super::hooked::{Hook, Hooked};
use super::*;
use crate::class::Class;
use crate::clock::SystemClock;

fn store_at(root: &Path) -> LocalStore {
    LocalStore::new(root, LocalOptions::default(), &env_with(SystemClock::new()).0).unwrap()
}

fn hooked_at(root: &Path, options: LocalOptions, hook: Hook) -> LocalStore<Hooked> {
    let env = env_with(SystemClock::new()).0;
    LocalStore::on_disk(Hooked(hook), root.to_owned(), options, &env).unwrap()
}

fn at(key: &str) -> ObjectPath {
    ObjectPath::parse(key).unwrap()
}

fn class_of(error: Error) -> Class {
    classify(Request { operation: Operation::Put, key: "k", place: &"here" }, error).class()
}

async fn names<D: Disk>(store: &LocalStore<D>) -> Vec<String> {
    store.list(None).map(|meta| meta.unwrap().location.to_string()).collect().await
}

type Steps = Arc<StdMutex<Vec<(Step, String)>>>;

/// A hook that notes every step but looks, with the path below the root; steps that follow their like once.
fn noting(root: &Path) -> (Hook, Steps) {
    let steps = Arc::new(StdMutex::new(Vec::new()));
    let (noted, root) = (Arc::clone(&steps), root.to_owned());
    let hook: Hook = Arc::new(move |step, path| {
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let path = if path.starts_with("tmp/") { "tmp/*" } else { path };
        let seen = (step, path.to_owned());
        let mut noted = noted.lock().unwrap();
        if step != Step::Look && noted.last() != Some(&seen) {
            noted.push(seen);
        }
        Ok(())
    });
    (hook, steps)
}

#[tokio::test]
async fn content_is_durable_before_its_name_and_each_directory_before_what_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let (hook, steps) = noting(directory.path());
    let store = hooked_at(directory.path(), LocalOptions::default(), hook);
    store.put(&at("packs/ab/x"), vec![1; 2 << 20].into()).await.unwrap();
    let wanted = [
        (Step::MakeDirectory, "packs"),
        (Step::SyncDirectory, ""),
        (Step::MakeDirectory, "packs/ab"),
        (Step::SyncDirectory, "packs"),
        (Step::MakeDirectory, "tmp"),
        (Step::SyncDirectory, ""),
        (Step::Create, "tmp/*"),
        (Step::Write, "tmp/*"),
        (Step::SyncFile, "tmp/*"),
        (Step::Rename, "packs/ab/x"),
        (Step::SyncDirectory, "packs/ab"),
    ];
    let wanted: Vec<(Step, String)> = wanted.iter().map(|(step, path)| (*step, (*path).to_owned())).collect();
    assert_eq!(std::mem::take(&mut *steps.lock().unwrap()), wanted);
    store.put(&at("packs/ab/y"), "y".into()).await.unwrap();
    assert_eq!(
        std::mem::take(&mut *steps.lock().unwrap()),
        wanted[6..].iter().map(|(step, path)| (*step, path.replace('x', "y"))).collect::<Vec<_>>()
    );
    for _ in 0..2 {
        store.delete(&at("packs/ab/x")).await.unwrap();
        let seen = std::mem::take(&mut *steps.lock().unwrap());
        assert_eq!(
            seen,
            [(Step::Remove, "packs/ab/x".to_owned()), (Step::SyncDirectory, "packs/ab".to_owned())]
        );
    }
}

#[tokio::test]
async fn what_was_listed_is_durable_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let plain = store_at(directory.path());
    for key in ["index/a/x", "packs/ab/y", "packs/cd/z"] {
        plain.put(&at(key), "x".into()).await.unwrap();
    }
    let (hook, steps) = noting(directory.path());
    let store = hooked_at(directory.path(), LocalOptions::default(), hook);
    let take = || -> Vec<String> {
        let mut taken = std::mem::take(&mut *steps.lock().unwrap());
        taken
            .truncate(taken.iter().position(|(step, _)| *step != Step::SyncDirectory).unwrap_or(taken.len()));
        let mut synced: Vec<String> = taken.into_iter().map(|(_, path)| path).collect();
        synced.sort();
        synced
    };
    for prefix in ["index", "packs", "missing"] {
        let _: Vec<_> = store.list(Some(&at(prefix))).collect().await;
    }
    assert!(take().is_empty(), "a listing syncs nothing");
    store.put(&at("new"), "x".into()).await.unwrap();
    // Packs are relied on through an index object, or when they are looked for one by one.
    assert_eq!(take(), ["index", "index/a", "packs"]);
    store.put(&at("new"), "x".into()).await.unwrap();
    assert!(take().is_empty(), "once is enough");
    let _: Vec<_> = store.list(Some(&at("packs/ab"))).collect().await;
    store.delete(&at("new")).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(take(), ["packs/ab"]);
}

#[tokio::test]
async fn a_listing_that_cannot_be_made_durable_stops_the_writer_and_not_the_reader() {
    let directory = tempfile::tempdir().unwrap();
    store_at(directory.path()).put(&at("index/x"), "x".into()).await.unwrap();
    let failing: Hook = Arc::new(|step, path| match step {
        Step::SyncDirectory if path.ends_with("index") => Err(io::Error::from_raw_os_error(libc::EIO)),
        _ => Ok(()),
    });
    let store = hooked_at(directory.path(), LocalOptions::default(), failing);
    for _ in 0..2 {
        assert_eq!(names(&store).await, ["index/x"]);
        assert_eq!(class_of(store.put(&at("y"), "y".into()).await.unwrap_err()), Class::Failed);
        assert!(store.delete(&at("index/x")).await.is_err());
    }
    assert_eq!(names(&store).await, ["index/x"]);
}

#[tokio::test]
async fn a_failure_at_any_step_leaves_the_whole_object_or_none_and_can_be_repeated() {
    // A look at the root, and three steps to write: space, content, length.
    for failing in 0..14 {
        for (code, class) in
            [(libc::EIO, Class::Failed), (libc::ENOSPC, Class::NoSpace), (libc::EROFS, Class::Denied)]
        {
            let directory = tempfile::tempdir().unwrap();
            let count = AtomicU64::new(0);
            let crashed = code == libc::EIO;
            let hook: Hook = Arc::new(move |_, _| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                // After a crash nothing more is done, not even tidying up.
                let fails = number == failing || (crashed && (failing..failing + 2).contains(&number));
                if fails { Err(io::Error::from_raw_os_error(code)) } else { Ok(()) }
            });
            let store = hooked_at(directory.path(), LocalOptions::default(), hook);
            let error = store.put(&at("packs/ab/x"), vec![7; 3 << 20].into()).await.unwrap_err();
            assert_eq!(class_of(error), class);
            let plain = store_at(directory.path());
            for name in names(&plain).await {
                assert_eq!(name, "packs/ab/x");
                assert_eq!(plain.get(&at(&name)).await.unwrap().bytes().await.unwrap(), vec![7; 3 << 20]);
            }
            if !crashed && failing > 6 {
                assert_eq!(std::fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0, "tidied up");
            }
            plain.put(&at("packs/ab/x"), vec![7; 3 << 20].into()).await.unwrap();
            assert_eq!(names(&plain).await, ["packs/ab/x"]);
        }
    }
}

#[tokio::test]
async fn every_length_survives_direct_writing() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_at(directory.path());
    let mib = 1 << 20;
    for len in
        [0, 1, mib - 1, mib, mib + 1, mib + 4096, 4 * mib - 4096, 4 * mib - 4095, 4 * mib, 9 * mib + 4095]
    {
        let body: Vec<u8> = (0..len).map(|n| (n % 253) as u8).collect();
        let parts: PutPayload = body.chunks(700_001).map(bytes::Bytes::copy_from_slice).collect();
        store.put(&at("x"), parts).await.unwrap();
        assert!(store.get(&at("x")).await.unwrap().bytes().await.unwrap() == body, "{len}");
        assert_eq!(std::fs::metadata(directory.path().join("x")).unwrap().len(), len as u64);
    }
    let mode =
        |path: &str| std::fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("x"), mode("tmp")), (0o400, 0o700));
}

#[tokio::test]
async fn links_and_odd_things_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (env, noted) = env_with(SystemClock::new());
    let store = LocalStore::new(root, LocalOptions::default(), &env).unwrap();
    store.put(&at("packs/aa/x"), "x".into()).await.unwrap();
    symlink(outside.path().join("secret"), root.join("packs/link")).unwrap();
    symlink(outside.path(), root.join("packs/out")).unwrap();
    symlink(root.join("packs"), root.join("packs/aa/loop")).unwrap();
    std::fs::write(root.join("packs").join(std::ffi::OsStr::new("caf\u{e9}")), "").unwrap();
    let raw = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"packs/\xff");
    std::fs::write(root.join(raw), "").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("packs/pipe"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();

    assert_eq!(names(&store).await, ["packs/aa/x", "packs/caf\u{e9}"]);
    assert_eq!(noted.warnings.lock().unwrap().len(), 1);
    for key in ["packs/link", "packs/out/secret", "packs/pipe", "packs/aa", "packs/aa/loop/aa/x"] {
        let error = store.get(&at(key)).await.unwrap_err();
        assert!(matches!(error, Error::Generic { .. }), "{key}: {error}");
    }
    assert!(store.put(&at("packs/out/new"), "x".into()).await.is_err());
    assert!(!outside.path().join("new").exists());
    let listed: Vec<_> = store.list(Some(&at("packs/out"))).collect().await;
    assert!(listed.len() == 1 && listed[0].is_err());
    // Writing over a link replaces the link.
    store.put(&at("packs/link"), "mine".into()).await.unwrap();
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"secret");
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_at(directory.path());
    store.put(&at("x"), vec![1; 100_000].into()).await.unwrap();
    let opened = store.get(&at("x")).await.unwrap();
    let path = directory.path().join("x");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    let error = opened.bytes().await.unwrap_err();
    assert!(error.to_string().contains("ends after 10 of 100000 bytes"), "{error}");
}

#[tokio::test]
async fn a_missing_root_is_told_from_an_empty_one_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("repo");
    let store = store_at(&root);
    let no_root = |error: Error| assert_eq!(class_of(error), Class::NoRepository);
    no_root(store.put(&at("a/x"), "x".into()).await.unwrap_err());
    no_root(store.get(&at("a/x")).await.unwrap_err());
    no_root(store.delete(&at("a/x")).await.unwrap_err());
    no_root(store.list(Some(&at("a"))).next().await.unwrap().unwrap_err());
    no_root(store.list(None).next().await.unwrap().unwrap_err());
    no_root(store.sweep(0).await.unwrap_err());
    assert!(!root.exists());
    store.create_root().await.unwrap();
    assert!(store.list(Some(&at("a"))).next().await.is_none() && store.list(None).next().await.is_none());
    store.put(&at("a/x"), "x".into()).await.unwrap();
    // The directory vanishes under a store that knows it.
    std::fs::remove_dir_all(root.join("a")).unwrap();
    store.put(&at("a/x"), "x".into()).await.unwrap();
    assert_eq!(names(&store).await, ["a/x"]);
    std::fs::write(root.join("file"), "").unwrap();
    assert!(store.put(&at("file/x"), "x".into()).await.is_err());
    assert!(matches!(store.get(&at("file/x")).await, Err(Error::Generic { .. })));
}

#[tokio::test]
async fn only_old_temporary_files_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_at(directory.path());
    assert_eq!(store.sweep(i64::MAX).await.unwrap(), 0);
    store.put(&at("x"), "x".into()).await.unwrap();
    std::fs::write(directory.path().join("tmp/left"), "half").unwrap();
    assert_eq!(store.sweep(1).await.unwrap(), 0);
    assert_eq!(store.sweep(i64::MAX).await.unwrap(), 1);
    assert_eq!(names(&store).await, ["x"]);
}

#[tokio::test]
async fn a_temporary_file_that_goes_while_others_are_swept_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    store_at(directory.path()).put(&at("x"), "x".into()).await.unwrap();
    for name in ["a", "b"] {
        std::fs::write(directory.path().join("tmp").join(name), "half").unwrap();
    }
    let hook: Hook = Arc::new(|step, path| match step {
        Step::Remove if path.ends_with("tmp/a") => {
            std::fs::remove_file(path)?;
            Err(io::ErrorKind::NotFound.into())
        }
        _ => Ok(()),
    });
    let store = hooked_at(directory.path(), LocalOptions::default(), hook);
    assert_eq!(store.sweep(i64::MAX).await.unwrap(), 1);
    assert_eq!(std::fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_full_file_system_says_so_and_keeps_what_it_has() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounting a small file system needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "lifeboat-test"])
        .arg(directory.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: this system does not let tmpfs be mounted");
        return;
    }
    let store = store_at(directory.path());
    store.put(&at("kept"), vec![1; 1000].into()).await.unwrap();
    let mut classes = Vec::new();
    for len in [8 << 20, 2 << 20, 900_000, 900_000] {
        if let Err(error) = store.put(&at(&format!("p/{len}")), vec![1; len].into()).await {
            classes.push(class_of(error));
        }
    }
    let (kept, left) =
        (names(&store).await, std::fs::read_dir(directory.path().join("tmp")).unwrap().count());
    let _ = std::process::Command::new("umount").arg(directory.path()).status();
    assert!(!classes.is_empty() && classes.iter().all(|class| *class == Class::NoSpace), "{classes:?}");
    assert!(kept.contains(&"kept".to_owned()) && left == 0);
}

#[test]
fn times_that_no_calendar_knows_do_no_harm() {
    for time in [(i64::MAX, i64::MAX), (i64::MIN, -1), (-1, 999_999_999), (0, 2_000_000_000)] {
        let _ = meta(at("x"), 0, time);
    }
}

#[tokio::test]
async fn a_file_system_that_cannot_sync_is_refused_unless_told() {
    let directory = tempfile::tempdir().unwrap();
    let refusing: Hook = Arc::new(|step, _| match step {
        Step::SyncFile | Step::SyncDirectory => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        _ => Ok(()),
    });
    let store = hooked_at(directory.path(), LocalOptions::default(), Arc::clone(&refusing));
    assert!(store.put(&at("x"), "x".into()).await.is_err());
    let options = LocalOptions { fsync: false, ..LocalOptions::default() };
    let store = hooked_at(directory.path(), options, refusing);
    store.put(&at("x"), "x".into()).await.unwrap();
}
