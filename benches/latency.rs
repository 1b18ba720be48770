//! A store that is far away: how much of the line a first backup, a restore and a full check use, and what an unchanged run asks.
//!
//! The stand-in for Google's store (`tests/servers/gcs.py`, so Python is needed) waits 30 ms before each answer and lets
//! 125 MB a second through each way. 1.08 GB of content that cannot be compressed are made below `TMPDIR`, and a tenth of a
//! second is short: keep the machine quiet, and repeat it. `LIFEBOAT_BENCH_REQUESTS=1` prints each request as the stand-in saw it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark may stop at any error, measures time, and says what came of it"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the store keeps everybody waiting, in milliseconds.
const WAIT: u32 = 30;
/// Megabytes a second of the line, each way.
const SPEED: u32 = 125;
const FILES: u64 = 216;
const FILE_LEN: u64 = 5_000_000;

/// The stand-in, and the lines it has printed since they were taken.
struct Server {
    child: Child,
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/gcs.py"))
            .args([&port.to_string(), "--line", &WAIT.to_string(), &SPEED.to_string(), "--log", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "ready");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&lines);
        std::thread::spawn(move || {
            said.map_while(Result::ok).for_each(|line| noted.lock().unwrap().push(line))
        });
        Self { child, port, lines }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

struct World {
    place: PathBuf,
    server: Server,
}

impl World {
    /// Runs the program; prints how long it took, what share of the line `moved` bytes are, its requests and its memory.
    fn step(&self, name: &str, moved: u64, arguments: &[&str]) {
        let address = format!("http://127.0.0.1:{}", self.server.port);
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .args(["--repo", "gs://bucket/repository", "--quiet"])
            .args(arguments)
            .env_clear()
            .env("HOME", &self.place)
            .env("GOOGLE_SERVICE_ACCOUNT", self.place.join("account.json"))
            .env("GOOGLE_BASE_URL", address)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut memory = 0;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            memory = memory.max(anonymous(child.id()));
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = begun.elapsed();
        assert!(status.success(), "{arguments:?} ended with {status}");
        // The stand-in prints a line when it has sent an answer, which may have come before that.
        std::thread::sleep(Duration::from_millis(100));
        let lines = std::mem::take(&mut *self.server.lines.lock().unwrap());
        let line = moved as f64 / f64::from(SPEED) / 1e6 / took.as_secs_f64();
        let share = if moved == 0 { String::new() } else { format!("{:.1} % of the line, ", line * 100.0) };
        let (took, count, memory) = (took.as_secs_f64(), lines.len(), memory >> 10);
        println!("{name}: {took:.2} s, {share}{count} requests, {memory} MiB of anonymous memory at most");
        if std::env::var_os("LIFEBOAT_BENCH_REQUESTS").is_some() {
            lines.iter().for_each(|line| println!("    {line}"));
        }
    }
}

/// Kibibytes of anonymous memory that a process has now.
fn anonymous(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let row = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    row.and_then(|row| row.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Files that cannot be compressed; returns their bytes.
fn fill(source: &Path) -> u64 {
    let mut state = 1_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (state >> 32)
    };
    for number in 0..FILES {
        let folder = source.join(format!("d{}", number % 12));
        fs::create_dir_all(&folder).unwrap();
        let bytes: Vec<u8> = (0..FILE_LEN / 8).flat_map(|_| word().to_le_bytes()).collect();
        fs::File::create(folder.join(number.to_string())).unwrap().write_all(&bytes).unwrap();
    }
    FILES * FILE_LEN
}

fn main() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    let bytes = fill(&source);
    let world = World { place: place.path().to_owned(), server: Server::start() };
    let account = format!(
        r#"{{"gcs_base_url": "http://127.0.0.1:{}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#,
        world.server.port
    );
    fs::write(place.path().join("account.json"), account).unwrap();
    let [key, target] = ["key", "target"].map(|name| place.path().join(name).to_str().unwrap().to_owned());
    let source = source.to_str().unwrap();
    world.step("init", 0, &["init", "--new-key-file", &key]);
    let run = |name: &str, moved: u64, arguments: &[&str]| {
        world.step(name, moved, &[&["--key-file", &key], arguments].concat());
    };
    run("first backup", bytes, &["backup", source]);
    run("unchanged", 0, &["backup", source]);
    run("restore", bytes, &["restore", &format!("latest:{source}"), "--target", &target]);
    fs::remove_dir_all(&target).unwrap();
    run("verify --data", bytes, &["verify", "--data"]);
}
