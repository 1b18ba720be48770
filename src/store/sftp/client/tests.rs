//! The store against servers of every kind.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::super::played::{Manner, OPENSSH, PLAIN, Says, Server, greeting, reply, string};
use super::*;
use crate::class::Class;
use crate::clock::SystemClock;
use crate::store::files::Files;
use crate::store::tests::env_with;
use crate::store::{Key, Store, StoreError, StoreOptions, conformance};

fn sftp(connect: Arc<dyn Connect>, fsync: bool) -> (Store, Arc<crate::store::tests::Noted>) {
    let (env, noted) = env_with(SystemClock::new());
    let place = ("store", "sftp://test/store".to_owned());
    let store = SftpStore::new(connect, place, SftpOptions { fsync }, &env).unwrap();
    let options = StoreOptions { retry_for: Duration::ZERO, ..StoreOptions::default() };
    (Store::with_files(Arc::new(store.clone()), Files::Sftp(store), &options, env), noted)
}

/// A store at a server of this manner, and what the server is asked.
fn at(place: &tempfile::TempDir, manner: Manner, fsync: bool) -> (Store, Arc<SyncMutex<Vec<String>>>) {
    let server = Server::new(manner, place.path());
    let asked = Arc::clone(&server.asked);
    (sftp(Arc::new(server), fsync).0, asked)
}

fn made(manner: Manner) -> (tempfile::TempDir, Store, Arc<SyncMutex<Vec<String>>>) {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("store")).unwrap();
    let (store, asked) = at(&place, manner, true);
    (place, store, asked)
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn body(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

#[tokio::test]
async fn servers_of_every_manner_conform() {
    let good = Manner::default;
    let without_links = Manner { extensions: &[("fsync@openssh.com", "1")], ..good() };
    let sparing = Manner { read_max: 777, bare: true, ..good() };
    for (manner, fsync) in [
        (good(), true),
        (without_links, true),
        (sparing, true),
        (Manner { extensions: PLAIN, files_only: true, ..good() }, false),
    ] {
        let place = tempfile::tempdir().unwrap();
        let (store, _) = at(&place, manner, fsync);
        assert!(matches!(store.list("").await, Err(StoreError::NoBucket { .. })));
        assert!(matches!(store.get(&key("a"), 1).await, Err(StoreError::NoBucket { .. })));
        assert!(store.put(&key("a"), body("x")).await.is_err());
        for _ in 0..2 {
            store.create_root().await.unwrap();
        }
        conformance::run(&store).await.unwrap();
        assert_eq!(fs::read_dir(place.path().join("store/tmp")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn content_is_durable_before_its_name_and_the_name_before_it_is_told() {
    let (_place, store, asked) = made(Manner::default());
    store.put(&key("packs/ab/x"), body("content")).await.unwrap();
    let asked: Vec<String> = std::mem::take(&mut asked.lock().unwrap());
    let at = |what: &dyn Fn(&str) -> bool| asked.iter().rposition(|noted| what(noted)).unwrap();
    let written = at(&|noted| noted.starts_with("write store/tmp/"));
    let synced = at(&|noted| noted.starts_with("sync store/tmp/"));
    let linked = at(&|noted| noted == "link store/packs/ab/x");
    let above = ["store", "store/packs"].map(|path| at(&|noted| noted == format!("sync {path}")));
    let named = at(&|noted| noted == "sync store/packs/ab");
    assert!(written < synced && synced < linked && linked < named, "{asked:?}");
    assert!(above.iter().all(|at| *at < linked), "{asked:?}");
    assert!(at(&|noted| noted.starts_with("remove store/tmp/")) > linked, "{asked:?}");
}

#[tokio::test]
async fn what_was_listed_is_durable_before_anything_rests_on_it() {
    let (_place, store, asked) = made(Manner::default());
    store.put(&key("index/x"), body("x")).await.unwrap();
    store.list("index/").await.unwrap();
    asked.lock().unwrap().clear();
    store.get(&key("index/x"), 1).await.unwrap();
    assert!(asked.lock().unwrap().is_empty(), "reading alone syncs nothing");
    store.put(&key("snapshots/x"), body("y")).await.unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.first().unwrap(), "sync store/index", "{asked:?}");
}

#[tokio::test]
async fn what_is_begun_and_then_left_alone_holds_up_nobody() {
    let (_place, store, _) = made(Manner::default());
    // While a connection is made.
    let mut connecting = std::pin::pin!(store.list(""));
    let _ = futures::poll!(connecting.as_mut());
    store.put(&key("a"), body("x")).await.unwrap();
    // While what was listed is made durable.
    store.list("").await.unwrap();
    let name = key("b");
    let mut settling = std::pin::pin!(store.put(&name, body("x")));
    for _ in 0..2 {
        let _ = futures::poll!(settling.as_mut());
        tokio::task::yield_now().await;
    }
    store.put(&key("c"), body("x")).await.unwrap();
}

#[tokio::test]
async fn who_waits_for_room_and_is_left_alone_keeps_none() {
    let place = tempfile::tempdir().unwrap();
    let (env, _) = env_with(SystemClock::new());
    let server = Arc::new(Server::new(Manner::default(), place.path()));
    let address = (".", "sftp://test".to_owned());
    let store = SftpStore::new(server, address, SftpOptions { fsync: true }, &env).unwrap();
    let line = store.line().await.unwrap();
    // Many more than may wait for an answer.
    let mut waiting: Vec<_> = (0..2000).map(|_| Box::pin(line.link_stat("."))).collect();
    let all = async {
        for one in &mut waiting {
            let _ = futures::poll!(one.as_mut());
        }
    };
    tokio::task::unconstrained(all).await;
    line.link_stat(".").await.unwrap();
}

#[tokio::test]
async fn a_name_is_given_once() {
    for extensions in [OPENSSH, &[("fsync@openssh.com", "1")]] {
        let (place, store, _) = made(Manner { extensions, ..Manner::default() });
        store.put(&key("a"), body("one")).await.unwrap();
        store.put(&key("a"), body("one")).await.unwrap();
        let other = store.put(&key("a"), body("two")).await;
        assert!(matches!(other, Err(StoreError::Conflict { .. })), "{other:?}");
        assert_eq!(fs::read(place.path().join("store/a")).unwrap(), b"one");
        assert_eq!(fs::read_dir(place.path().join("store/tmp")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn nothing_is_renamed_to_a_name_that_may_be_taken() {
    let extensions = &[("fsync@openssh.com", "1")];
    let (place, store, asked) = made(Manner { extensions, fails: Some((7, 4)), ..Manner::default() });
    assert!(store.put(&key("a"), body("x")).await.is_err());
    assert!(!asked.lock().unwrap().iter().any(|noted| noted.starts_with("rename")));
    assert!(!place.path().join("store/a").exists());
}

#[tokio::test]
async fn a_server_that_cannot_sync_stores_nothing_unless_it_may() {
    for manner in [
        Manner { extensions: &[("hardlink@openssh.com", "1")], ..Manner::default() },
        Manner { files_only: true, ..Manner::default() },
    ] {
        let (place, store, _) = made(manner.clone());
        let error = store.put(&key("a"), body("x")).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("unsafe_no_fsync=true"), "{source}");
        assert!(!place.path().join("store/a").exists());
        let (store, asked) = at(&place, manner, false);
        store.put(&key("a"), body("x")).await.unwrap();
        assert!(!asked.lock().unwrap().iter().any(|noted| noted.starts_with("sync")));
    }
}

#[tokio::test]
async fn what_a_server_refuses_is_told_apart_and_leaves_nothing() {
    for (kind, code, class) in
        [(3, 3, Class::Denied), (6, 4, Class::NoSpace), (6, 14, Class::NoSpace), (3, 7, Class::Unreachable)]
    {
        let (place, store, _) = made(Manner { fails: Some((kind, code)), ..Manner::default() });
        // More than the five blocks that the server says are free.
        let error = store.put(&key("a"), vec![Bytes::from(vec![1; 40_000])]).await.unwrap_err();
        assert_eq!(error.class(), class, "{kind} {code}: {error}");
        assert!(!place.path().join("store/a").exists());
        // The last word of the store is answered before the next.
        assert!(store.list("").await.unwrap().is_empty());
        assert_eq!(fs::read_dir(place.path().join("store/tmp")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again() {
    for life in [100, 400, 900, 2000, 10_000] {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("store")).unwrap();
        let manner = Manner { life, ..Manner::default() };
        let server = Arc::new(Server::new(manner, place.path()));
        let (env, noted) = env_with(SystemClock::new());
        let connect = Arc::clone(&server) as Arc<dyn Connect>;
        let sftp =
            SftpStore::new(connect, ("store", String::new()), SftpOptions { fsync: true }, &env).unwrap();
        let store =
            Store::with_files(Arc::new(sftp.clone()), Files::Sftp(sftp), &StoreOptions::default(), env);
        for number in 0..20 {
            let (key, content) = (key(&format!("a/{number}")), vec![Bytes::from(vec![number; 3000])]);
            store.put(&key, content).await.unwrap();
            assert_eq!(store.get(&key, 3000).await.unwrap(), vec![number; 3000]);
        }
        assert_eq!(store.list("a/").await.unwrap().len(), 20);
        assert_eq!(*server.connections.lock().unwrap(), 2, "{life}");
        assert!(noted.retries.load(std::sync::atomic::Ordering::Relaxed) >= 1);
    }
}

#[tokio::test]
async fn links_and_names_of_any_bytes_are_told_of_and_never_followed() {
    let (place, store, _) = made(Manner::default());
    let root = place.path().join("store");
    store.put(&key("d/x"), body("x")).await.unwrap();
    std::os::unix::fs::symlink("d", root.join("link")).unwrap();
    std::os::unix::fs::symlink("d/x", root.join("file")).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff\x1b[31m\n")), b"").unwrap();
    fs::create_dir(root.join("lost+found")).unwrap();
    let listed: Vec<String> =
        store.list("").await.unwrap().iter().map(|found| found.key.to_string()).collect();
    assert_eq!(listed, ["d/x"]);
    let error = store.get(&key("file"), 10).await.unwrap_err();
    assert_eq!(error.class(), Class::Failed, "{error}");
    assert!(store.list("link/").await.is_err());
}

#[tokio::test]
async fn half_written_files_go_after_a_week() {
    let (place, store, _) = made(Manner::default());
    assert_eq!(store.sweep_temporary().await.unwrap(), 0);
    let tmp = place.path().join("store/tmp");
    fs::create_dir(&tmp).unwrap();
    for name in ["old", "new"] {
        fs::write(tmp.join(name), name).unwrap();
    }
    let week = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    fs::File::options().write(true).open(tmp.join("old")).unwrap().set_modified(week).unwrap();
    assert_eq!(store.sweep_temporary().await.unwrap(), 1);
    assert!(tmp.join("new").exists() && !tmp.join("old").exists());
}

#[tokio::test]
async fn a_hostile_server_is_an_error_and_no_more() {
    let greeted = |more: Vec<u8>| vec![greeting(PLAIN), more];
    let status = |code: u32| code.to_be_bytes().to_vec();
    for (said, wanted) in [
        (vec![b"Welcome to backup.example\r\n".to_vec()], "printed `Welcome to backup.example`"),
        (vec![reply(2, 6, &[])], "version 6"),
        (vec![reply(101, 0, &status(0))], "broke the protocol"),
        (greeted(reply(101, 77, &status(0))), "what was not asked"),
        (greeted(reply(103, 1, &string(b"x"))), "a reply of another kind"),
        (greeted(reply(250, 1, &[])), "a frame of kind 250"),
        (greeted(vec![0xff; 10]), "a frame of 4294967295 bytes"),
        (greeted(reply(101, 1, &status(2))), "does not exist"),
        (greeted(Vec::new()), "the connection is lost"),
    ] {
        let (store, _) = sftp(Arc::new(Says(said)), true);
        let error = store.list("").await.unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn an_address_without_a_directory_is_where_the_server_begins() {
    for (path, root) in [
        ("", "."),
        ("/~", "."),
        ("/~/", "."),
        ("/~/a/b", "a/b"),
        ("/srv/x", "/srv/x"),
        ("/~ann/x", "/~ann/x"),
    ] {
        assert_eq!(root_of(path), root, "{path}");
    }
}
