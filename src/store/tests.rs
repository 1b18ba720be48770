use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use object_store::memory::InMemory;

use super::fault::{Failure, Fault, FaultStore, Op, OpKind};
use super::*;
use crate::cancel::Cancel;
use crate::class::Class;
use crate::clock::{Clock, SystemClock};
use crate::event::{Counters, Observer};
use crate::random::SystemRandom;

/// A clock that advances by more than the longest pause whenever it is looked at.
#[derive(Default)]
struct Leaping(AtomicU64);

impl Clock for Leaping {
    fn now(&self) -> Timestamp {
        Timestamp(i64::try_from(self.monotonic().as_nanos()).unwrap())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(100 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Default)]
pub(super) struct Noted {
    counters: Counters,
    pub(super) retries: AtomicU32,
    pub(super) warnings: Mutex<Vec<String>>,
}

impl Observer for Noted {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Retrying { .. } => _ = self.retries.fetch_add(1, Ordering::Relaxed),
            Event::Warning { message } => self.warnings.lock().unwrap().push((*message).to_owned()),
            _ => {}
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

pub(super) fn env_with(clock: impl Clock + 'static) -> (StoreEnv, Arc<Noted>) {
    let noted = Arc::new(Noted::default());
    let env = StoreEnv {
        clock: Arc::new(clock),
        random: Arc::new(SystemRandom),
        observer: Arc::clone(&noted) as Arc<dyn Observer>,
        cancel: Cancel::new(),
    };
    (env, noted)
}

fn env() -> StoreEnv {
    env_with(SystemClock::new()).0
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn body(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

fn hours(hours: u64) -> StoreOptions {
    StoreOptions { retry_for: Duration::from_secs(hours * 3600), ..StoreOptions::default() }
}

/// A store in memory that fails as told, on a clock that leaps.
fn faulty(plan: impl Fn(&Op) -> Fault + Send + Sync + 'static) -> (Store, FaultStore, Arc<Noted>) {
    let fault = FaultStore::new(Arc::new(InMemory::new()), plan);
    let (env, noted) = env_with(Leaping::default());
    (Store::from_object_store(Arc::new(fault.clone()), &hours(10), env), fault, noted)
}

fn first(number: u64, fault: Fault) -> impl Fn(&Op) -> Fault + Send + Sync + 'static {
    move |op| if op.number < number { fault } else { Fault::None }
}

#[tokio::test]
async fn create_only_asks_a_bucket_to_replace_nothing() {
    for (value, wanted) in [("true", true), ("false", false)] {
        let (address, requests) = server(reply("200 OK", ""));
        let options = [
            ("endpoint", address.as_str()),
            ("access_key_id", "A"),
            ("secret_access_key", "S"),
            ("create_only", value),
        ];
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let options = StoreOptions { options, retry_for: Duration::ZERO, ..StoreOptions::default() };
        let store = Store::open(&"s3://bucket".parse().unwrap(), &options, env()).await.unwrap();
        store.put(&key("packs/a"), body("x")).await.unwrap();
        let request = requests.lock().unwrap()[0].to_ascii_lowercase();
        assert_eq!(request.contains("if-none-match: *"), wanted, "{request}");
    }
}

#[tokio::test]
async fn memory_conforms() {
    let store = Store::open(&StoreUrl::memory(), &StoreOptions::default(), env()).await.unwrap();
    conformance::run(&store).await.unwrap();
    fn sendable<T: Send>(_: T) {}
    sendable(store.put(&key("a"), body("x")));
    sendable(store.get(&key("a"), 1));
    sendable(store.list(""));
    sendable(store.delete(&key("a")));
    sendable(store.probe(ProbeExtent::Full));
}

#[tokio::test]
async fn a_directory_conforms_with_and_without_direct_writes() {
    for direct in ["true", "false"] {
        let directory = tempfile::tempdir().unwrap();
        let options =
            StoreOptions { options: vec![("direct_io".into(), direct.into())], ..StoreOptions::default() };
        let url = StoreUrl::local(directory.path().join("a/b"));
        let store = Store::open(&url, &options, env()).await.unwrap();
        assert!(matches!(store.list("").await, Err(StoreError::NoBucket { .. })));
        store.create_root().await.unwrap();
        store.create_root().await.unwrap();
        conformance::run(&store).await.unwrap();
        assert!(store.free_space().await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_probe_passes_on_a_good_store_and_leaves_nothing() {
    let (store, fault, _) = faulty(|_| Fault::None);
    let report = store.probe(ProbeExtent::Full).await.unwrap();
    assert!(report.passed() && report.upload_rate.is_some() && report.clock_offset.is_some(), "{report:?}");
    assert!(report.holds(ProbeStep::Range) && store.list("").await.unwrap().is_empty());
    assert!(fault.count(OpKind::Put) > 50);
    assert!(store.probe(ProbeExtent::Small).await.unwrap().passed());
}

#[tokio::test]
async fn a_probe_tells_what_a_store_does_not_keep() {
    let (store, _, _) = faulty(|op| match op.kind {
        OpKind::GetRange => Fault::Corrupt(0),
        OpKind::Delete => Fault::Before(Failure::Denied),
        _ => Fault::None,
    });
    let report = store.probe(ProbeExtent::Small).await.unwrap();
    let failed: Vec<ProbeStep> =
        report.checks.iter().filter(|check| check.failure.is_some()).map(|check| check.step).collect();
    assert_eq!(failed, [ProbeStep::Range, ProbeStep::Delete, ProbeStep::LongName, ProbeStep::DeleteMissing]);
    let (store, _, _) = faulty(|_| Fault::Before(Failure::Denied));
    assert_eq!(store.probe(ProbeExtent::Small).await.unwrap_err().class(), Class::Denied);
}

#[tokio::test]
async fn passing_faults_are_waited_out_and_told() {
    for fault in [Fault::Before(Failure::Unreachable), Fault::After(Failure::Unreachable)] {
        let (store, inner, noted) = faulty(first(5, fault));
        store.put(&key("a"), body("x")).await.unwrap();
        assert_eq!((inner.count(OpKind::Put), noted.retries.load(Ordering::Relaxed)), (6, 5));
        assert_eq!(store.get(&key("a"), 1).await.unwrap(), "x");
    }
}

#[tokio::test]
async fn patience_ends() {
    let (store, fault, _) = faulty(|_| Fault::Before(Failure::Unreachable));
    let error = store.get(&key("a"), 1).await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable);
    let tries = fault.count(OpKind::Get);
    assert!((20..400).contains(&tries), "ten hours in pauses of a hundred seconds: {tries}");
}

#[tokio::test]
async fn lasting_faults_are_not_repeated() {
    for (failure, class) in [(Failure::NoSpace, Class::NoSpace), (Failure::Denied, Class::Denied)] {
        let (store, fault, _) = faulty(move |_| Fault::Before(failure));
        assert_eq!(store.put(&key("a"), body("x")).await.unwrap_err().class(), class);
        assert_eq!(store.delete(&key("a")).await.unwrap_err().class(), class);
        assert_eq!(fault.record().len(), 2);
    }
    let (store, fault, _) = faulty(|op| if op.number == 1 { Fault::StopAfter } else { Fault::None });
    store.put(&key("a"), body("x")).await.unwrap();
    assert_eq!(store.put(&key("b"), body("x")).await.unwrap_err().class(), Class::Failed);
    assert_eq!(store.get(&key("a"), 1).await.unwrap_err().class(), Class::Failed);
    assert!(fault.is_stopped() && fault.record().len() == 2);
}

#[tokio::test]
async fn already_exists_is_settled_by_reading() {
    let exists = Failure::AlreadyExists;
    // An earlier try of our own.
    let (store, _, _) = faulty(first(1, Fault::After(exists)));
    store.put(&key("a"), body("x")).await.unwrap();
    // A conflict that left nothing: stored by the next try.
    let (store, fault, _) = faulty(first(1, Fault::Before(exists)));
    store.put(&key("a"), body("x")).await.unwrap();
    assert_eq!((fault.count(OpKind::Put), fault.count(OpKind::Get)), (2, 1));
    // Other contents, of the same and of another length.
    for other in ["y", "xx", ""] {
        let (store, _, _) = faulty(|op| match op {
            Op { number, kind: OpKind::Put, .. } if *number > 0 => Fault::Before(Failure::AlreadyExists),
            _ => Fault::None,
        });
        store.put(&key("a"), body(other)).await.unwrap();
        let error = store.put(&key("a"), body("x")).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_never_believed() {
    let (store, fault, _) = faulty(|op| match op.kind {
        OpKind::List if op.key.starts_with("never") => Fault::ListFails(1),
        OpKind::List if op.number < 5 => Fault::ListFails(2),
        _ => Fault::None,
    });
    for name in ["a/1", "a/2", "a/3", "never/1"] {
        store.put(&key(name), body("x")).await.unwrap();
    }
    let found: Vec<String> = store.list("a/").await.unwrap().into_iter().map(|o| o.key.to_string()).collect();
    assert_eq!((found, fault.count(OpKind::List)), (vec!["a/1".into(), "a/2".into(), "a/3".into()], 2));
    assert_eq!(store.list("never/").await.unwrap_err().class(), Class::Unreachable);
}

#[tokio::test]
async fn content_that_ends_early_is_read_again_and_then_an_error() {
    let (store, fault, _) = faulty(|op| match op.number {
        1 => Fault::Short(3),
        _ => Fault::None,
    });
    store.put(&key("a"), body("abcdef")).await.unwrap();
    assert_eq!(store.get(&key("a"), 10).await.unwrap(), "abcdef");
    assert_eq!(fault.count(OpKind::Get), 2);
    let (store, _, _) = faulty(|op| if op.kind == OpKind::Put { Fault::None } else { Fault::Short(3) });
    store.put(&key("a"), body("abcdef")).await.unwrap();
    for error in [store.get(&key("a"), 10).await, store.get_range(&key("a"), 1..6).await] {
        assert!(matches!(error, Err(StoreError::Short { found: 3, .. })), "{error:?}");
    }
}

#[tokio::test]
async fn a_stop_ends_waiting_at_once() {
    let fault = FaultStore::new(Arc::new(InMemory::new()), |_| Fault::Before(Failure::Unreachable));
    let env = env();
    let cancel = env.cancel.clone();
    let store = Store::from_object_store(Arc::new(fault), &hours(6), env);
    let waiting = tokio::spawn(async move { store.get(&key("a"), 1).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    cancel.raise();
    let error = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Cancelled { .. }), "{error}");
}

#[tokio::test]
async fn rates_hold() {
    let options = StoreOptions {
        limit_upload: Some(1 << 20),
        limit_download: Some(1 << 20),
        ..StoreOptions::default()
    };
    let env = env();
    let clock = Arc::clone(&env.clock);
    let store = Store::from_object_store(Arc::new(InMemory::new()), &options, env);
    let start = clock.monotonic();
    for name in ["a", "b", "c", "d"] {
        store.put(&key(name), vec![Bytes::from(vec![0; 400 << 10])]).await.unwrap();
    }
    let took = clock.monotonic() - start;
    assert!(took >= Duration::from_millis(150), "1.2 MiB wait for all but one second's worth: {took:?}");
}

#[tokio::test]
async fn what_is_sent_and_fetched_is_counted() {
    let (store, _, noted) = faulty(first(1, Fault::Before(Failure::Unreachable)));
    store.put(&key("a"), body("abc")).await.unwrap();
    store.get(&key("a"), 10).await.unwrap();
    store.get_range(&key("a"), 0..2).await.unwrap();
    let counters = noted.counters();
    assert_eq!(counters.bytes_stored.load(Ordering::Relaxed), 3);
    assert_eq!(counters.bytes_fetched.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn names_that_are_no_keys_are_left_out_and_told() {
    let objects = Arc::new(InMemory::new());
    let (env, noted) = env_with(SystemClock::new());
    let store = Store::from_object_store(Arc::clone(&objects) as _, &StoreOptions::default(), env);
    store.put(&key("a/1"), body("x")).await.unwrap();
    objects.put(&ObjectPath::parse("a/what is this").unwrap(), "x".into()).await.unwrap();
    assert_eq!(store.list("a/").await.unwrap().len(), 1);
    let warnings = noted.warnings.lock().unwrap().clone();
    assert!(warnings[0].contains("a/what is this"), "{warnings:?}");
    assert!(matches!(store.list("a/\n").await, Err(StoreError::Key(_))));
    assert!(matches!(store.list("../").await, Err(StoreError::Key(_))));
}

#[tokio::test]
async fn options_that_do_not_exist_are_named() {
    for url in ["/tmp/x", "memory://", "s3://bucket", "gs://bucket", "az://bucket"] {
        for (name, value) in [("regoin", "x"), ("create-only", "true")] {
            let options =
                StoreOptions { options: vec![(name.into(), value.into())], ..StoreOptions::default() };
            let error = Store::open(&url.parse().unwrap(), &options, env()).await.unwrap_err();
            assert!(error.class() == Class::Usage && error.to_string().contains(name), "{url}: {error}");
        }
    }
    let options =
        StoreOptions { options: vec![("direct_io".into(), "maybe".into())], ..StoreOptions::default() };
    let error = Store::open(&StoreUrl::local("/tmp/x"), &options, env()).await.unwrap_err();
    assert!(matches!(error, StoreError::Open(OpenError::OptionValue { .. })), "{error}");
    let error = Store::open(&StoreUrl::local("x"), &StoreOptions::default(), env()).await.unwrap_err();
    assert!(matches!(error, StoreError::Open(OpenError::Relative { .. })), "{error}");
}

/// Answers every request with the same reply, and remembers the requests' first lines and headers.
pub(super) fn server(reply: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 65536];
            let count = stream.read(&mut request).unwrap();
            seen.lock().unwrap().push(String::from_utf8_lossy(&request[..count]).into_owned());
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    (address, requests)
}

pub(super) async fn s3(address: &str, url: &str) -> Store {
    let options = [("endpoint", address), ("access_key_id", "A"), ("secret_access_key", "S")];
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let options = StoreOptions { options, retry_for: Duration::ZERO, ..StoreOptions::default() };
    Store::open(&url.parse().unwrap(), &options, env()).await.unwrap()
}

pub(super) fn reply(status: &str, body: &str) -> &'static str {
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\nlast-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n\
         etag: \"e\"\r\n\r\n{body}",
        body.len()
    );
    Box::leak(text.into_boxed_str())
}

#[tokio::test]
async fn replies_of_a_cloud_are_sorted() {
    for (status, text, class) in [
        ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>", Class::Denied),
        ("401 Unauthorized", "", Class::Denied),
        ("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>", Class::NoRepository),
        ("507 Insufficient Storage", "", Class::NoSpace),
        ("400 Bad Request", "<Error><Code>QuotaExceeded</Code></Error>", Class::NoSpace),
        ("400 Bad Request", "<Error><Code>Odd</Code></Error>", Class::Failed),
        ("503 Slow Down", "", Class::Unreachable),
        ("429 Too Many", "", Class::Unreachable),
    ] {
        let (address, _) = server(reply(status, text));
        let store = s3(&address, "s3://bucket/some/prefix").await;
        let error = store.put(&key("a"), body("x")).await.unwrap_err();
        assert_eq!(error.class(), class, "{status}: {error}");
    }
    let (address, _) = server(reply("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"));
    let store = s3(&address, "s3://bucket").await;
    assert!(store.get(&key("a"), 10).await.unwrap_err().is_not_found());
    assert!(matches!(store.list("").await, Err(StoreError::NoBucket { .. })));
    let (address, _) = server(reply("416 Range Not Satisfiable", ""));
    let found = s3(&address, "s3://bucket").await.get_range(&key("a"), 5..6).await;
    assert!(matches!(found, Err(StoreError::Short { .. })), "{found:?}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = s3(&format!("http://{closed}"), "s3://bucket").await.get(&key("a"), 1).await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable, "{error}");
}

#[tokio::test]
async fn a_bucket_is_listed_below_its_prefix_and_past_a_hostile_name() {
    let entry = |key: &str| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>3</Size></Contents>"
        )
    };
    let entries = entry("pre/packs/b") + &entry("pre/packs//evil") + &entry("pre/packs/a");
    let text = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
    );
    let (address, requests) = server(reply("200 OK", &text));
    let store = s3(&address, "s3://bucket/pre").await;
    let found: Vec<String> = store.list("packs/").await.unwrap().iter().map(|o| o.key.to_string()).collect();
    assert_eq!(found, ["packs/a", "packs/b"]);
    let requests = requests.lock().unwrap();
    assert!(requests[0].starts_with("GET /bucket?list-type=2&prefix=pre%2Fpacks%2F "), "{}", requests[0]);
}

#[tokio::test]
async fn in_the_clear_the_payload_is_signed() {
    let (address, requests) = server(reply("200 OK", ""));
    s3(&address, "s3://bucket/pre").await.put(&key("packs/a"), body("x")).await.unwrap();
    let requests = requests.lock().unwrap();
    let request = requests[0].to_ascii_lowercase();
    assert!(request.starts_with("put /bucket/pre/packs/a "), "{request}");
    // SHA-256 of "x".
    assert!(request.contains("x-amz-content-sha256: 2d711642b726b04401627ca9fbac32f5"), "{request}");
}
