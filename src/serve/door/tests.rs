//! One door, and who comes to it.

use std::io::{Cursor, PipeReader, PipeWriter, Read, Write, pipe};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::cancel::Cancel;
use crate::class::Class;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::event::CountingObserver;
use crate::format::layout::ObjectName;
use crate::id::ObjectHash;
use crate::random::SystemRandom;
use crate::store::door::wire::{
    Answer, Ask, Code, DATA_MAX, Frame, OBJECT_MAX, REQUESTS, WINDOW, read_preamble, write_preamble,
};
use crate::store::door::{Connect, DoorError, Far, Wires};
use crate::store::{Store, StoreOptions, conformance};

/// A clock that advances by more than the longest pause between two tries whenever it is looked at.
#[derive(Default)]
struct Leaping(AtomicU64);

impl Clock for Leaping {
    fn now(&self) -> Timestamp {
        SystemClock::new().now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(100 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn env_with(clock: impl Clock + 'static) -> StoreEnv {
    StoreEnv {
        clock: Arc::new(clock),
        random: Arc::new(SystemRandom),
        observer: Arc::new(CountingObserver::default()),
        cancel: Cancel::new(),
    }
}

pub(super) fn env() -> StoreEnv {
    env_with(SystemClock::new())
}

/// Everything below that is no directory.
fn files(place: &Path) -> Vec<PathBuf> {
    let walk = ignore::WalkBuilder::new(place).standard_filters(false).build().map(Result::unwrap);
    let files = walk.filter(|entry| entry.file_type().is_some_and(|kind| !kind.is_dir()));
    files.map(ignore::DirEntry::into_path).collect()
}

pub(super) fn options(top: &Path, role: Role) -> DoorOptions {
    DoorOptions { top: top.to_owned(), prefix: None, role, quota: None, home: top.to_owned() }
}

pub(super) fn key(number: u8) -> Key {
    Key::new(ObjectName::Pack(ObjectHash::new([number; 32]).into()).key()).unwrap()
}

pub(super) struct Pipe;

impl Far for Pipe {
    fn why(&self) -> DoorError {
        DoorError::Lost { said: String::new() }
    }

    fn stop(&self) {}
}

/// A stream that ends after so many bytes, as a connection does that breaks.
struct Cut<T>(T, Arc<AtomicUsize>);

impl<T> Cut<T> {
    fn left(&self, wanted: usize) -> usize {
        let spend = |left: usize| Some(left - left.min(wanted));
        let left = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).unwrap_or(0);
        left.min(wanted)
    }
}

impl<T: Read> Read for Cut<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.left(buffer.len());
        self.0.read(&mut buffer[..len])
    }
}

impl<T: Write> Write for Cut<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.left(buffer.len()) {
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            len => self.0.write(&buffer[..len]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Each connection is a server of its own at the other end of two pipes; it breaks after so many bytes.
struct Pipes {
    options: DoorOptions,
    lives: Mutex<Vec<usize>>,
    connections: AtomicUsize,
}

impl Pipes {
    fn new(options: DoorOptions, lives: Vec<usize>) -> Arc<Self> {
        Arc::new(Self { options, lives: Mutex::new(lives), connections: AtomicUsize::new(0) })
    }
}

/// Starts a server and gives the client's ends.
fn serve(options: &DoorOptions) -> (PipeReader, PipeWriter, tokio::task::JoinHandle<Result<(), ServeError>>) {
    let ((input, to), (from, output)) = (pipe().unwrap(), pipe().unwrap());
    let (options, env) = (options.clone(), env());
    (from, to, tokio::spawn(async move { door(input, output, &options, &env).await }))
}

impl Connect for Pipes {
    fn connect(&self) -> Result<Wires, DoorError> {
        let (from, to, _) = serve(&self.options);
        let life = Arc::new(AtomicUsize::new(self.lives.lock().unwrap().pop().unwrap_or(usize::MAX)));
        self.connections.fetch_add(1, Ordering::Relaxed);
        let (input, output) = (Cut(from, Arc::clone(&life)), Cut(to, life));
        Ok(Wires { input: Box::new(input), output: Box::new(output), far: Arc::new(Pipe) })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

fn store(options: DoorOptions) -> Store {
    Store::behind(Pipes::new(options, Vec::new()), "", &StoreOptions::default(), env())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_a_door_conforms() {
    let place = tempfile::tempdir().unwrap();
    let store = store(options(place.path(), Role::Admin));
    conformance::run_below(&store, "probe/").await.unwrap();
    assert!(store.free_space().await.unwrap() > 0);
    assert_eq!(files(place.path()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_begun_and_then_left_alone_holds_up_nobody() {
    let place = tempfile::tempdir().unwrap();
    let store = store(options(place.path(), Role::Writer));
    let mut alone = std::pin::pin!(store.list(""));
    let _ = futures::poll!(alone.as_mut());
    assert!(store.list("").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_are_all_answered() {
    let place = tempfile::tempdir().unwrap();
    let store = store(options(place.path(), Role::Writer));
    let body = |number: u8| Bytes::from(vec![number; 100_000 + 7000 * usize::from(number)]);
    let all = (0..100).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            store.put(&key(number), vec![body(number).slice(..77), body(number).slice(77..)]).await.unwrap();
            let found = store.get(&key(number), u64::MAX).await.unwrap();
            assert!(found == body(number));
            let part = store.get_range(&key(number), 100..90_000).await.unwrap();
            assert!(part == body(number).slice(100..90_000));
        })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(store.list("packs/").await.unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_anywhere_lose_nothing_and_leave_nothing_half_done() {
    let place = tempfile::tempdir().unwrap();
    let mut state = 20_260_728_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    let lives: Vec<usize> = (0..200).map(|_| 100 + next() % 600_000).collect();
    let pipes = Pipes::new(options(place.path(), Role::Admin), lives);
    let patience = StoreOptions { retry_for: Duration::from_secs(1_000_000_000), ..StoreOptions::default() };
    let connect = Arc::<Pipes>::clone(&pipes);
    let store = Store::behind(connect, "", &patience, env_with(Leaping::default()));
    for round in 0..3_u8 {
        for number in 0..10 {
            let body = Bytes::from(vec![number; 150_000 + usize::from(number)]);
            store.put(&key(number), vec![body.clone()]).await.unwrap();
            assert!(store.get(&key(number), u64::MAX).await.unwrap() == body, "round {round}");
        }
        assert_eq!(store.list("").await.unwrap().len(), 10);
        store.delete(&key(round)).await.unwrap();
        assert!(store.get(&key(round), 1).await.unwrap_err().is_not_found());
    }
    assert!(pipes.connections.load(Ordering::Relaxed) > 10);
    drop(store);
    let left = || std::fs::read_dir(place.path().join("tmp")).unwrap().count();
    while left() > 0 {
        // A server notices that its client is gone, and takes away what that had begun.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_and_a_quota_hold_and_failures_keep_their_kind() {
    let place = tempfile::tempdir().unwrap();
    let body = || vec![Bytes::from(vec![7; 600_000])];
    let admin = store(options(place.path(), Role::Admin));
    admin.put(&key(1), body()).await.unwrap();
    let writer = store(options(place.path(), Role::Writer));
    writer.put(&key(1), body()).await.unwrap();
    let other = writer.put(&key(1), vec![Bytes::from_static(b"other")]).await.unwrap_err();
    assert!(matches!(other, StoreError::Conflict { .. }), "{other}");
    let hold = Key::new(ObjectName::Hold(ObjectHash::new([1; 32])).key()).unwrap();
    let slot = Key::new(ObjectName::KeySlot(ObjectHash::new([1; 32])).key()).unwrap();
    let foreign = Key::new(".ssh/authorized_keys").unwrap();
    for (role, allowed, denied) in [
        (Role::Reader, None, key(2)),
        (Role::Writer, Some(key(2)), hold.clone()),
        (Role::Maintainer, Some(hold), slot.clone()),
        (Role::Admin, Some(slot), foreign),
    ] {
        let store = store(options(place.path(), role));
        assert!(store.get(&key(1), u64::MAX).await.is_ok() && store.list("").await.is_ok());
        if let Some(key) = allowed {
            store.put(&key, body()).await.unwrap();
        }
        let error = store.put(&denied, body()).await.unwrap_err();
        assert_eq!(error.class(), Class::Denied, "{role}: {error}");
        let said = std::error::Error::source(&error).unwrap().to_string();
        assert!(said.contains(&role.to_string()) && said.contains(denied.as_str()), "{said}");
    }
    for role in [Role::Reader, Role::Writer] {
        let error = store(options(place.path(), role)).delete(&key(1)).await.unwrap_err();
        assert_eq!(error.class(), Class::Denied);
    }
    let limited = DoorOptions { quota: Some(3_000_000), ..options(place.path(), Role::Maintainer) };
    let limited = store(limited);
    limited.put(&key(3), body()).await.unwrap();
    let error = limited.put(&key(4), body()).await.unwrap_err();
    assert_eq!(error.class(), Class::NoSpace, "{error}");
    assert_eq!(limited.put(&key(5), Vec::new()).await.unwrap_err().class(), Class::NoSpace);
    limited.delete(&key(3)).await.unwrap();
    assert!(limited.list("packs/").await.unwrap().iter().all(|object| object.key != key(3)));
    let again = async { while limited.put(&key(4), body()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("what was deleted is room again");
    assert!(limited.free_space().await.unwrap() <= 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_missing_or_another_one_is_said() {
    let place = tempfile::tempdir().unwrap();
    let top = place.path().join("top");
    let prefix = DoorOptions { prefix: Some(Key::new("web1").unwrap()), ..options(&top, Role::Writer) };
    let error = store(prefix.clone()).list("packs/").await.unwrap_err();
    assert_eq!(error.class(), Class::NoRepository, "{error}");
    assert_eq!(store(prefix.clone()).create_root().await.unwrap_err().class(), Class::NoRepository);
    store(DoorOptions { role: Role::Admin, ..prefix.clone() }).create_root().await.unwrap();
    store(prefix.clone()).put(&key(1), vec![Bytes::from_static(b"x")]).await.unwrap();
    assert!(top.join("web1/packs").is_dir());
    let open = |path: &str| {
        let pipes = Pipes::new(DoorOptions { home: place.path().to_owned(), ..prefix.clone() }, Vec::new());
        Store::behind(pipes, path, &StoreOptions::default(), env())
    };
    for path in [top.join("web1").to_str().unwrap(), "/~/top/web1", "/~/top/../top/web1"] {
        assert_eq!(open(path).list("").await.unwrap().len(), 1, "{path}");
    }
    for path in [top.to_str().unwrap(), "/", "/etc", "/~/top", "web1", "/~/top/web2"] {
        let error = open(path).list("").await.unwrap_err();
        assert_eq!(error.class(), Class::Denied, "{path}: {error}");
    }
}

/// Says this, and gives what the server said until it ended.
async fn conversation(options: &DoorOptions, said: &[u8]) -> (Vec<(u32, Answer)>, Result<(), ServeError>) {
    let (mut from, mut to, server) = serve(options);
    let said = said.to_vec();
    let speaking = std::thread::spawn(move || drop(to.write_all(&said)));
    let hearing = tokio::task::spawn_blocking(move || {
        let mut answers = Vec::new();
        read_preamble(&mut from).unwrap();
        while let Some(frame) = Frame::read(&mut from).unwrap() {
            answers.push((frame.id, Answer::parse(&frame).unwrap()));
        }
        answers
    });
    let answers = hearing.await.unwrap();
    speaking.join().unwrap();
    (answers, server.await.unwrap())
}

pub(super) fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_preamble(&mut bytes).unwrap();
    frames.iter().for_each(|frame| frame.write(&mut bytes).unwrap());
    bytes
}

pub(super) fn hello() -> Frame {
    Ask::Open { again: false, path: String::new() }.frame(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_rules_ends_the_connection_and_is_told() {
    let place = tempfile::tempdir().unwrap();
    let options = options(place.path(), Role::Admin);
    let pack = || key(1).to_string();
    let put = || Ask::Put { key: pack(), size: OBJECT_MAX }.frame(1);
    let data = |len: usize| Ask::Data(vec![0; len].into()).frame(1);
    let list = || Ask::List { directory: String::new(), after: String::new() };
    let empty = || vec![data(0); WINDOW as usize / 1024 + 100];
    let mut too_many: Vec<Frame> = vec![hello()];
    too_many.extend((1..=REQUESTS as u32 + 1).map(|id| Ask::Put { key: pack(), size: 1 }.frame(id)));
    for (what, frames) in [
        ("a request first", vec![list().frame(1)]),
        ("two greetings", vec![hello(), hello()]),
        ("a number again", vec![hello(), list().frame(1), list().frame(1)]),
        ("number zero", vec![hello(), list().frame(0)]),
        ("content for nothing", vec![hello(), data(1)]),
        ("too much content", [vec![hello(), put()], vec![data(DATA_MAX); 500]].concat()),
        (
            "too many frames",
            [vec![hello(), put()], empty(), empty(), empty(), empty(), empty(), empty()].concat(),
        ),
        ("too much credit", vec![hello(), list().frame(1), Ask::Credit(u32::MAX).frame(1)]),
        ("an unknown kind", vec![hello(), Frame { kind: 0x77, id: 1, payload: Bytes::new() }]),
        ("a reply", vec![hello(), Answer::Done.frame(1)]),
        ("too many requests", too_many),
    ] {
        let (answers, ended) = conversation(&options, &bytes_of(&frames)).await;
        // Content that the disk takes as fast as it comes never fills a window, and a listing may be done before it is given
        // too much credit.
        let lenient =
            ["too much content", "too many frames", "too much credit", "too many requests"].contains(&what);
        let told = matches!(answers.last(), Some((0, Answer::Error { code: Code::Broken, .. })));
        assert!(lenient || (told && ended.is_err()), "{what}: {answers:?}");
        assert!(!place.path().join(pack()).exists());
    }
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"LIFEBOAT\x09\0\x09\0"] {
        assert!(conversation(&options, bytes).await.1.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_done_are_refused_and_the_next_is_answered() {
    let place = tempfile::tempdir().unwrap();
    let options = options(place.path(), Role::Admin);
    let (pack, name) = (key(1).to_string(), |key: &str| key.to_owned());
    let content = || Ask::Data(Bytes::from_static(b"abc"));
    let frames = [
        hello(),
        Ask::Get { key: name("../../etc/passwd"), range: 0..1 }.frame(1),
        Ask::Get { key: name("tmp/x"), range: 0..1 }.frame(2),
        Ask::Put { key: name("/etc/passwd"), size: 1 }.frame(3),
        Ask::List { directory: name("../"), after: String::new() }.frame(4),
        Ask::Delete { key: name("packs") }.frame(5),
        Ask::Put { key: pack.clone(), size: OBJECT_MAX + 1 }.frame(6),
        Ask::Put { key: pack.clone(), size: 2 }.frame(7),
        content().frame(7),
        Ask::Put { key: pack.clone(), size: 4 }.frame(8),
        content().frame(8),
        Ask::Commit.frame(8),
        Ask::Get { key: pack.clone(), range: std::ops::Range { start: 5, end: 2 } }.frame(9),
        Ask::Put { key: pack, size: 3 }.frame(10),
        content().frame(10),
    ];
    let (answers, ended) = conversation(&options, &bytes_of(&frames)).await;
    ended.unwrap();
    for id in 1..=9 {
        let answer = answers.iter().find(|(to, _)| *to == id).map(|(_, answer)| answer);
        let refused = matches!(answer, Some(Answer::Error { code: Code::Invalid | Code::Denied, .. }));
        assert!(refused, "{id}: {answer:?}");
    }
    // The tenth was given up: it is not there, and neither is its file.
    assert!(!answers.iter().any(|(id, _)| *id == 10));
    assert_eq!(files(place.path()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_shows_nothing_and_what_a_killed_server_left_is_swept() {
    let place = tempfile::tempdir().unwrap();
    let half = bytes_of(&[
        hello(),
        Ask::Put { key: key(1).to_string(), size: 6 }.frame(1),
        Ask::Data(Bytes::from_static(b"half")).frame(1),
    ]);
    let (_from, mut to, server) = serve(&options(place.path(), Role::Writer));
    to.write_all(&half).unwrap();
    let tmp = place.path().join("tmp");
    let begun = || std::fs::read_dir(&tmp).is_ok_and(|mut names| names.next().is_some());
    while !begun() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let other = store(options(place.path(), Role::Writer));
    assert!(other.list("").await.unwrap().is_empty());
    other.put(&key(1), vec![Bytes::from_static(b"whole!")]).await.unwrap();
    assert_eq!(other.list("").await.unwrap().len(), 1, "the one that stopped is in nobody's way");
    drop(to);
    server.await.unwrap().unwrap();
    assert!(!begun());
    // As a server leaves it that is killed, eight days ago and just now.
    for (name, age) in [("old", 8), ("new", 0)] {
        let file = std::fs::File::create(tmp.join(name)).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_nanos(SystemClock::new().now().0 as u64);
        file.set_modified(time - Duration::from_secs(age * 24 * 3600)).unwrap();
    }
    store(options(place.path(), Role::Reader)).list("").await.unwrap();
    assert!(tmp.join("old").exists(), "a reader changes nothing");
    store(options(place.path(), Role::Writer)).list("").await.unwrap();
    while tmp.join("old").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(tmp.join("new").exists());
}

/// Requests without end, which are counted as they are read.
struct Endless(Cursor<Vec<u8>>, u32, Arc<AtomicUsize>);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.position() == self.0.get_ref().len() as u64 {
            let mut next = Vec::new();
            self.1 += 1;
            Ask::Head { key: "packs/none".to_owned() }.frame(self.1).write(&mut next)?;
            self.0 = Cursor::new(next);
            self.2.fetch_add(1, Ordering::Relaxed);
        }
        self.0.read(buffer)
    }
}

/// Takes nothing until it is told to, and then fails.
struct Stuck(mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_not_read_either() {
    let place = tempfile::tempdir().unwrap();
    let (release, stuck) = mpsc::channel();
    let read = Arc::new(AtomicUsize::new(0));
    let input = Endless(Cursor::new(bytes_of(&[hello()])), 0, Arc::clone(&read));
    let (options, env) = (options(place.path(), Role::Reader), env());
    let cancel = env.cancel.clone();
    let server = tokio::spawn(async move { door(input, Stuck(stuck), &options, &env).await });
    let mut before = usize::MAX;
    while before != read.load(Ordering::Relaxed) {
        before = read.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < 10 * REQUESTS, "{before} requests were read of a client that takes no answer");
    cancel.raise();
    drop(release);
    // Whichever is noticed first: the wish to stop, that nothing can be said any more, or, where nothing was answered before the
    // next request was read, that these are more than there may be.
    assert!(matches!(server.await.unwrap(), Ok(()) | Err(ServeError::Stopped | ServeError::Wire(_))));
}
