//! A repository behind `https://`: the server listens on this machine, with a certificate that `openssl` makes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::support::{Place, Run, noise};
use crate::wire::{self, Wire, answer, frame, request};

fn openssl(place: &Place, args: &str) {
    let made = Command::new("openssl").args(args.split(' ')).current_dir(place.path("")).output();
    let made = made.expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// What `openssl` needs to make a certificate whose time is over.
const AUTHORITY: &str = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\nserial=serial\nrand_serial=yes\n\
                         default_md=sha256\npolicy=p\ncopy_extensions=copy\n[p]\ncommonName=supplied\n";

/// A certificate `NAME.cert` for this machine, and `NAME.key`; good for a month, or for a day of the year 2020.
fn certificate(place: &Place, name: &str, is_good: bool) {
    openssl(
        place,
        &format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr \
             -subj /CN=lifeboat -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
        ),
    );
    if is_good {
        openssl(
            place,
            &format!(
                "x509 -req -in {name}.csr -signkey {name}.key -days 30 -copy_extensions copy -out {name}.cert"
            ),
        );
        return;
    }
    place.write("ca.cnf", AUTHORITY.as_bytes());
    place.write("index.txt", b"");
    openssl(
        place,
        &format!(
            "ca -batch -notext -config ca.cnf -selfsign -keyfile {name}.key -in {name}.csr -out {name}.cert \
             -startdate 20200101000000Z -enddate 20200102000000Z"
        ),
    );
}

/// Its fingerprint, as another program sees it.
fn fingerprint(place: &Place, name: &str) -> String {
    let args = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
    let printed =
        Command::new("openssl").args(args).arg(place.path(&format!("{name}.cert"))).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    format!("sha256:{}", printed.trim().split_once('=').unwrap().1)
}

fn token(place: &Place, name: &str, more: &[&str]) -> String {
    let mut command = place.bare();
    let made = command.args(["serve", "--tokens", "tokens", "--new-token", name]).args(more);
    let made = Run::of(made.output().unwrap()).exits(0);
    fs::write(place.path(&format!("{name}.token")), &made.out).unwrap();
    made.out.trim().to_owned()
}

/// A running server, ended with the test.
struct Server {
    child: Child,
    address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(place: &Place, more: &[&str]) -> Self {
        Self::at(
            place,
            &[&["--listen", "127.0.0.1:0", "--cert", "own.cert", "--key", "own.key"], more].concat(),
        )
    }

    fn at(place: &Place, args: &[&str]) -> Self {
        let mut command = place.bare();
        command.args(["serve", "--root", "server", "--tokens", "tokens"]).args(args);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().expect("it says where it listens").unwrap();
        let (_, rest) = first.split_once("listening at ").unwrap_or_else(|| panic!("{first}"));
        let address = rest.split([',', ' ']).next().unwrap().to_owned();
        let log = Arc::new(Mutex::new(vec![first]));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line))
        });
        Self { child, address, log }
    }

    fn port(&self) -> u16 {
        self.address.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    /// Waits for a line with these words.
    fn logs(&self, words: &str) -> String {
        loop {
            let log = self.log.lock().unwrap();
            if let Some(line) = log.iter().find(|line| line.contains(words)) {
                return line.clone();
            }
            drop(log);
            std::thread::yield_now();
        }
    }

    /// Most memory it had, in KiB.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A place with a certificate and an empty directory to serve.
fn place() -> Place {
    let place = Place::empty();
    certificate(&place, "own", true);
    fs::create_dir(place.path("server")).unwrap();
    place.write("src/a", b"first\n");
    place.write("src/d/b", &noise(3 << 20, 5));
    place
}

fn client(place: &Place, url: &str, token: &str) -> Command {
    let mut command = place.command();
    command.env("LIFEBOAT_REPO", url).env("LIFEBOAT_TOKEN_FILE", place.path(&format!("{token}.token")));
    command.env("LIFEBOAT_CA_FILE", place.path("own.cert"));
    command
}

fn run(place: &Place, url: &str, token: &str, args: &[&str]) -> Run {
    Run::of(client(place, url, token).args(args).output().unwrap())
}

/// Objects that have not come to their end.
fn begun(place: &Place) -> usize {
    let server = place.path("server");
    let is_begun = |path: &Path| path.strip_prefix(&server).unwrap().iter().any(|part| part == "tmp");
    place.files("server").iter().filter(|path| is_begun(path)).count()
}

#[test]
fn every_verb_works_over_the_network_and_a_role_is_what_the_line_says() {
    let place = place();
    token(&place, "boss", &["--role", "admin", "--repo-prefix", "web1"]);
    token(&place, "web1", &[]);
    token(&place, "look", &["--role", "reader", "--repo-prefix", "web1"]);
    let server = Server::start(&place, &[]);
    let url = server.url("/web1");
    let boss = |args: &[&str]| run(&place, &url, "boss", args);
    boss(&["init", "-q", "--new-key-file", "key"]).exits(0);
    let writer = |args: &[&str]| run(&place, &server.url(""), "web1", args);
    writer(&["backup", "src"]).exits(0);
    place.write("src/c", b"third\n");
    writer(&["backup", "src"]).exits(0);
    writer(&["verify", "--data"]).exits(0);
    for args in [&["forget", "--keep-last", "1"][..], &["tag", "latest", "--add", "x"]] {
        let denied = writer(args).exits(12);
        assert!(denied.err.contains("another token"), "{}", denied.err);
    }
    let source = place.path("src");
    let latest = format!("latest:{}", source.display());
    run(&place, &url, "look", &["restore", &latest, "--target", "target"]).exits(0);
    let differ = Command::new("diff").arg("-r").args([&source, &place.path("target")]).status();
    assert!(differ.unwrap().success());
    run(&place, &url, "look", &["backup", "src", "/etc/hostname"]).exits(12);
    boss(&["doctor"]).exits(0);
    boss(&["hold", "add", "latest"]).exits(0);
    boss(&["forget", "--keep-last", "1"]).exits(0);
    boss(&["prune", "--grace", "0s", "--undo-window", "0s", "--force", "--yes"]).exits(0);
    boss(&["verify", "--data"]).exits(0);
    // The same directory without a door shows the same repository.
    let near =
        place.command().env("LIFEBOAT_REPO", place.path("server/web1")).arg("verify").output().unwrap();
    Run::of(near).exits(0);
    let line = server.logs("boss from 127.0.0.1");
    assert!(
        server.log.lock().unwrap().iter().any(|line| line.contains("deleted") && line.contains("boss")),
        "{line}"
    );
    server.signal(Signal::TERM);
    let mut server = server;
    assert_eq!(server.child.wait().unwrap().code(), Some(0), "to be asked to stop is its regular end");
    let log = server.log.lock().unwrap().join("\n");
    assert!(!log.contains("lbt_"), "{log}");
}

#[test]
fn a_certificate_is_believed_for_its_authority_or_its_fingerprint_and_for_nothing_else() {
    let place = place();
    token(&place, "web1", &["--role", "admin"]);
    let server = Server::start(&place, &[]);
    let of = |server: &Server, more: &str, authority: Option<&str>| {
        let mut command = client(&place, &format!("{}{more}", server.url("")), "web1");
        command.env_remove("LIFEBOAT_CA_FILE");
        if let Some(authority) = authority {
            command.args(["-o", &format!("https.ca_file={authority}")]);
        }
        Run::of(command.args(["--retry-for", "0", "snapshots"]).output().unwrap())
    };
    let own = fingerprint(&place, "own");
    let plain = own.replace(':', "").to_lowercase().replace("sha256", "sha256:");
    // It is let in where there is nothing yet.
    of(&server, "", Some("own.cert")).exits(10);
    of(&server, &format!("#{own}"), None).exits(10);
    let unknown = of(&server, "", None).exits(12);
    assert!(unknown.err.contains(&plain) && unknown.err.contains("#sha256:"), "{}", unknown.err);
    assert!(server.logs("listening").contains(&plain), "the server shows the same");
    certificate(&place, "other", true);
    let other = of(&server, &format!("#{}", fingerprint(&place, "other")), None).exits(12);
    assert!(other.err.contains("it is another one"), "{}", other.err);
    of(&server, "", Some("other.cert")).exits(12);
    of(&server, "", Some("own.key")).exits(2);
    of(&server, "", Some("nowhere")).exits(12);
    of(&server, "#sha256:00", None).exits(2);
}

#[test]
fn what_is_not_the_right_server_is_told_from_one_that_does_not_answer() {
    let place = place();
    token(&place, "web1", &["--role", "admin"]);
    let of = |url: &str, code: i32, wanted: &str| {
        let run = run(&place, url, "web1", &["--retry-for", "0", "snapshots"]).exits(code);
        assert!(run.err.contains(wanted), "{}", run.err);
    };
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in free.incoming().take(1) {
            let mut stream = stream.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    of(&format!("https://localhost:{port}"), 1, "no server of lifeboat answers there");
    of("https://localhost:1", 13, "refused");
    let server = Server::start(&place, &[]);
    of(&server.url("/elsewhere"), 12, "leads to another directory");
    fs::write(place.path("web1.token"), "lbt_wrong\n").unwrap();
    of(&server.url(""), 12, "no such token");
    fs::write(place.path("web1.token"), "not a token\n").unwrap();
    of(&server.url(""), 12, "there is no token");
    fs::remove_file(place.path("web1.token")).unwrap();
    of(&server.url(""), 12, "web1.token");
    let mut none = place.command();
    none.env("LIFEBOAT_REPO", server.url(""))
        .env("LIFEBOAT_CA_FILE", place.path("own.cert"))
        .arg("snapshots");
    let none = Run::of(none.output().unwrap()).exits(2);
    assert!(none.err.contains("LIFEBOAT_TOKEN_FILE"), "{}", none.err);
    let two = client(&place, &server.url(""), "web1").env("LIFEBOAT_TOKEN", "x").arg("snapshots").output();
    Run::of(two.unwrap()).exits(2);
    server.logs("refused 127.0.0.1");
    assert!(!server.log.lock().unwrap().join("\n").contains("lbt_wrong"));
}

#[test]
fn a_server_does_not_begin_with_files_that_are_wrong_or_where_it_would_be_exposed() {
    let place = place();
    token(&place, "web1", &[]);
    let of = |args: &[&str], code: i32, wanted: &str| {
        let mut command = place.bare();
        let run = Run::of(command.args(["serve"]).args(args).output().unwrap()).exits(code);
        assert!(run.err.contains(wanted), "{}", run.err);
    };
    let tls = ["--cert", "own.cert", "--key", "own.key"];
    let with = |more: &[&'static str]| [&["--listen", "127.0.0.1:0"], more, &tls].concat();
    of(&with(&["--root", "server", "--tokens", "nowhere"]), 2, "nowhere");
    of(&with(&["--root", "nowhere", "--tokens", "tokens"]), 10, "nowhere");
    of(
        &[
            "--listen",
            "127.0.0.1:0",
            "--root",
            "server",
            "--tokens",
            "tokens",
            "--cert",
            "own.cert",
            "--key",
            "own.cert",
        ],
        2,
        "own.cert",
    );
    let exposed = ["--listen", "0.0.0.0:0", "--plain", "--root", "server", "--tokens", "tokens"];
    of(&exposed, 2, "--cert and --key");
    fs::write(place.path("bad"), "\nweb1 root web1 - sha256:00\n").unwrap();
    of(&with(&["--root", "server", "--tokens", "bad"]), 2, "line 2");
    of(&["--tokens", "tokens", "--new-token", "web1"], 2, "is there already");
    of(&["--tokens", "tokens", "--new-token", "web\u{1b}[31m"], 2, "a name has");
    of(&["--tokens", "tokens", "--new-token", "in", "--repo-prefix", "web1/in"], 2, "one inside the other");
}

#[test]
fn tenants_see_and_fill_their_own_directories_only() {
    let place = place();
    for name in ["one", "two"] {
        token(&place, name, &["--role", "admin", "--quota", "8M"]);
    }
    let server = Server::start(&place, &[]);
    let url = server.url("");
    run(&place, &url, "one", &["init", "-q", "--new-key-file", "key"]).exits(0);
    run(&place, &url, "one", &["backup", "src"]).exits(0);
    run(&place, &url, "two", &["snapshots"]).exits(10);
    run(&place, &server.url("/one"), "two", &["snapshots"]).exits(12);
    run(&place, &server.url("/two/../one"), "two", &["snapshots"]).exits(2);
    assert!(place.path("server/one/config").exists() && !place.path("server/two").exists());
    place.write("src/large", &noise(12 << 20, 9));
    let full = run(&place, &url, "one", &["backup", "src"]).exits(14);
    assert!(full.err.contains("the quota of 8.0 MiB has"), "{}", full.err);
    let secret = place.path("two.key");
    fs::rename(place.path("key"), place.path("one.key")).unwrap();
    run(&place, &url, "two", &["init", "-q", "--new-key-file", secret.to_str().unwrap()]).exits(0);
    fs::remove_file(place.path("src/large")).unwrap();
    let mut other = client(&place, &url, "two");
    Run::of(other.args(["--key-file", "two.key", "backup", "src"]).output().unwrap()).exits(0);
}

#[test]
fn who_is_taken_out_of_the_file_has_to_go_and_the_others_stay() {
    let place = place();
    token(&place, "web1", &["--role", "admin"]);
    let other = token(&place, "other", &[]);
    let server = Server::start(&place, &[]);
    let url = server.url("");
    run(&place, &url, "web1", &["init", "-q", "--new-key-file", "key"]).exits(0);
    place.write("src/large", &noise(40 << 20, 3));
    fs::create_dir(place.path("server/other")).unwrap();
    let mut staying = Wire::open(wire::tls(&wire::config(&place.path("own.cert")), server.port()), &other);
    let mut slow = client(&place, &url, "web1");
    slow.args(["backup", "src", "--limit-upload", "2M"]).stderr(Stdio::piped());
    let child = slow.spawn().unwrap();
    while place.files("server/web1/packs").is_empty() {
        std::thread::yield_now();
    }
    let tokens = fs::read_to_string(place.path("tokens")).unwrap();
    // What cannot be read changes nothing, and is said.
    fs::write(place.path("tokens"), format!("{tokens}nonsense\n")).unwrap();
    server.signal(Signal::HUP);
    server.logs("what was read before counts");
    let left: String =
        tokens.lines().filter(|line| !line.starts_with("web1 ")).map(|l| format!("{l}\n")).collect();
    fs::write(place.path("tokens"), left).unwrap();
    let ended = Run::of(child.wait_with_output().unwrap()).exits(12);
    assert!(ended.err.contains("no such token"), "{}", ended.err);
    server.logs("connections ended: 1");
    staying.say(&frame(0x14, 0, b""));
    assert_eq!(staying.frame().unwrap().0, 0x86);
}

/// Carries bytes between clients and a server, until it is told to cut what it carries.
struct Relay {
    port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
    count: Arc<AtomicUsize>,
}

impl Relay {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let (open, count) = (Arc::<Mutex<Vec<TcpStream>>>::default(), Arc::<AtomicUsize>::default());
        let (kept, counted) = (Arc::clone(&open), Arc::clone(&count));
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
                counted.fetch_add(1, Ordering::Relaxed);
                for (mut from, mut to) in [(&near, &far), (&far, &near)]
                    .map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
                {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Self { port: own, open, count }
    }

    fn cut(&self) {
        self.open.lock().unwrap().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

#[test]
fn a_backup_whose_connection_breaks_goes_on() {
    let place = place();
    token(&place, "web1", &["--role", "admin"]);
    let server = Server::start(&place, &[]);
    run(&place, &server.url(""), "web1", &["init", "-q", "--new-key-file", "key"]).exits(0);
    let relay = Relay::to(server.port());
    for part in 0..3 {
        place.write(&format!("src/{part}"), &noise(20 << 20, part + 1));
    }
    let mut command = client(&place, &format!("https://localhost:{}/web1", relay.port), "web1");
    command.args(["backup", "src", "--limit-upload", "10M"]).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    for count in 1..3 {
        while place.files("server/web1/packs").len() < count {
            std::thread::yield_now();
        }
        relay.cut();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(relay.count.load(Ordering::Relaxed) >= 3);
    run(&place, &server.url(""), "web1", &["verify", "--data"]).exits(0);
}

fn pack(number: usize) -> String {
    format!("packs/{:02x}/{:02x}{:062x}", number % 256, number % 256, number)
}

#[test]
fn an_object_that_does_not_come_to_its_end_leaves_nothing() {
    let place = place();
    let web1 = token(&place, "web1", &[]);
    fs::create_dir(place.path("server/web1")).unwrap();
    let server = Server::start(&place, &[]);
    let config = wire::config(&place.path("own.cert"));
    let mut wire = Wire::open(wire::tls(&config, server.port()), &web1);
    wire.put(1, &pack(1), (1 << 20, &noise(500_000, 1)));
    while begun(&place) == 0 {
        std::thread::yield_now();
    }
    drop(wire);
    while begun(&place) > 0 {
        std::thread::yield_now();
    }
    assert_eq!(place.files("server").len(), 0);
    // The next one is not disturbed by it, and a server that ends finishes what it has got.
    let mut wire = Wire::open(wire::tls(&config, server.port()), &web1);
    wire.put(1, &pack(1), (3, b"abc"));
    wire.say(&frame(0x11, 1, b""));
    wire.done(1);
    assert_eq!(fs::read(place.path("server/web1").join(pack(1))).unwrap(), b"abc");
    server.logs("stored 0 (0 B), read 0, deleted 0, refused 0");
}

#[test]
fn nobody_is_harmed_by_who_says_little_or_nonsense() {
    let place = place();
    let web1 = token(&place, "web1", &[]);
    fs::create_dir(place.path("server/web1")).unwrap();
    let server = Server::start(&place, &["--max-per-token", "2"]);
    let (port, config) = (server.port(), wire::config(&place.path("own.cert")));
    let raw = |said: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(said).unwrap();
        stream
    };
    // Some say nothing at all, some stop within TLS, some within the request.
    let mut waiting: Vec<TcpStream> = (0..60).map(|_| raw(b"")).collect();
    waiting.extend((0..60).map(|_| raw(b"\x16\x03\x01\x02\x00\x01")));
    let slow: Vec<_> = (0..30)
        .map(|_| {
            let mut stream = wire::tls(&config, port);
            stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0xff; 3000]] {
        // It ends; what TLS has to say about it is no matter.
        let _ = raw(nonsense).read_to_end(&mut Vec::new());
    }
    let said = |text: &str| {
        let mut stream = wire::tls(&config, port);
        stream.write_all(text.as_bytes()).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        String::from_utf8_lossy(&all).lines().next().unwrap_or("").to_owned()
    };
    assert!(said("GET / HTTP/1.1\r\nHost: x\r\n\r\n").contains(" 426 "));
    assert!(said("POST / HTTP/1.1\r\nHost: x\r\n\r\n").contains(" 405 "));
    assert!(said("\x01\x02\r\n\r\n").contains(" 400 "));
    assert!(said(&request("", "lbt_0")).contains(" 401 "));
    assert!(said(&request("web2", &web1)).contains(" 403 "));
    assert!(said(&format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(8192 - 19))).contains(" 431 "));
    let mut first = Wire::open(wire::tls(&config, port), &web1);
    let mut second = Wire::open(wire::tls(&config, port), &web1);
    assert!(said(&request("", &web1)).contains(" 429 "), "two of one token are enough here");
    first.say(&frame(0x07, 1, b""));
    first.done(1);
    // A version that nobody speaks, and frames that nobody may send.
    second.say(&frame(0x77, 1, b""));
    assert!(matches!(second.frame(), Ok((0x85, 0, why)) if why[0] == 6));
    drop(second);
    server.logs("the client cannot be understood");
    drop((waiting, slow));
}

#[test]
fn no_bytes_after_the_request_harm_the_server() {
    let place = place();
    let boss = token(&place, "boss", &["--role", "admin"]);
    fs::create_dir(place.path("server/boss")).unwrap();
    let server = Server::start(&place, &[]);
    let config = wire::config(&place.path("own.cert"));
    let good = {
        let mut bytes = b"LIFEBOAT\x01\0\x01\0".to_vec();
        bytes.extend(frame(0x01, 0, b"\0"));
        let mut ask = 5_u64.to_le_bytes().to_vec();
        ask.extend_from_slice(pack(1).as_bytes());
        bytes.extend(frame(0x04, 1, &ask));
        bytes.extend([frame(0x10, 1, b"hello"), frame(0x11, 1, b""), frame(0x05, 2, b"\0\0")].concat());
        bytes
    };
    let mut state = 20_261_128_u64;
    let mut next = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % most
    };
    for _ in 0..150 {
        let mut bytes = good.clone();
        for _ in 0..next(5) {
            let at = next(bytes.len());
            bytes[at] = u8::try_from(next(256)).unwrap();
        }
        bytes.truncate(bytes.len() - next(bytes.len() / 4));
        let mut stream = wire::tls(&config, server.port());
        stream.write_all(request("", &boss).as_bytes()).unwrap();
        assert!(answer(&mut stream).starts_with("HTTP/1.1 101 "));
        let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
        // It is not waited for, which is one more thing that a client may do.
    }
    let mut wire = Wire::open(wire::tls(&config, server.port()), &boss);
    wire.say(&frame(0x07, 1, b""));
    wire.done(1);
    while begun(&place) > 0 {
        std::thread::yield_now();
    }
    for file in place.files("server") {
        assert!(
            file.starts_with(place.path("server/boss/packs"))
                || file.starts_with(place.path("server/boss/probe")),
            "{}",
            file.display()
        );
    }
}

#[test]
fn a_proxy_on_this_machine_comes_by_a_socket_without_encryption() {
    let place = place();
    let web1 = token(&place, "web1", &[]);
    fs::create_dir(place.path("server/web1")).unwrap();
    let socket = place.path("socket");
    let address = format!("unix:{}", socket.display());
    let server = Server::at(&place, &["--listen", &address, "--plain"]);
    server.logs("without encryption");
    let mut wire = Wire::open(UnixStream::connect(&socket).unwrap(), &web1);
    wire.put(1, &pack(1), (3, b"abc"));
    wire.say(&frame(0x11, 1, b""));
    wire.done(1);
    drop(server);
    assert!(socket.exists(), "it was killed");
    let mut server = Server::at(&place, &["--listen", &address, "--plain"]);
    server.signal(Signal::TERM);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[test]
fn a_thousand_clients_at_once_are_answered_within_bounded_memory() {
    const THREADS: usize = 8;
    const EACH: usize = 125;
    const SIZE: usize = 128 << 10;
    raise_descriptors();
    let place = place();
    let web1 = token(&place, "web1", &[]);
    fs::create_dir(place.path("server/web1")).unwrap();
    let server = Server::start(&place, &["--max-per-token", "1000"]);
    let (port, config) = (server.port(), wire::config(&place.path("own.cert")));
    let all_here = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (web1, config, all_here) = (&web1, &config, &all_here);
            scope.spawn(move || {
                let mut wires: Vec<_> =
                    (0..EACH).map(|_| Wire::open(wire::tls(config, port), web1)).collect();
                all_here.wait();
                let body = |at: usize| noise(SIZE, 1 + (thread * EACH + at) as u64);
                for (at, wire) in wires.iter_mut().enumerate() {
                    wire.put(1, &pack(thread * EACH + at), (SIZE as u64, &body(at)));
                    wire.say(&frame(0x11, 1, b""));
                }
                for (at, wire) in wires.iter_mut().enumerate() {
                    wire.done(1);
                    let mut ask = [0_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
                    ask.extend_from_slice(pack(thread * EACH + at).as_bytes());
                    wire.say(&frame(0x03, 2, &ask));
                }
                for (at, wire) in wires.iter_mut().enumerate() {
                    assert!(wire.done(2) == body(at), "{thread} {at}");
                }
                // Nobody goes before everybody was answered.
                all_here.wait();
            });
        }
    });
    assert_eq!(place.files("server/web1/packs").len(), THREADS * EACH);
    let peak = server.peak();
    println!("1,000 clients: VmHWM of the server {peak} KiB");
    assert!(peak < 512 << 10, "{peak} KiB");
}

/// So that a page and a program do not part: what the page says of a line of tokens.
#[test]
fn a_token_stands_nowhere_but_where_it_is_printed() {
    let place = place();
    let token = token(&place, "web1", &["--quota", "500GiB"]);
    let text = fs::read_to_string(place.path("tokens")).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..4], ["web1", "writer", "web1", "536870912000"]);
    assert!(!text.contains(&token) && !text.contains(&token[4..]));
    // Another program makes the same of it.
    let hash = Command::new("sh").args(["-c", &format!("printf %s {token} | sha256sum")]).output().unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    assert_eq!(words[4], format!("sha256:{}", hash.split_whitespace().next().unwrap()));
    assert_eq!(mode(&place.path("tokens")), 0o600);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_certificate_that_is_renewed_is_used_and_one_that_has_expired_is_not_believed() {
    let place = place();
    token(&place, "web1", &["--role", "admin"]);
    certificate(&place, "old", false);
    let copy = |name: &str| {
        for kind in ["cert", "key"] {
            fs::copy(place.path(&format!("{name}.{kind}")), place.path(&format!("now.{kind}"))).unwrap();
        }
    };
    copy("old");
    let args = ["--listen", "127.0.0.1:0", "--cert", "now.cert", "--key", "now.key"];
    let server = Server::at(&place, &args);
    let of = |authority: &str| {
        let mut command = client(&place, &server.url(""), "web1");
        command.env("LIFEBOAT_CA_FILE", place.path(authority));
        Run::of(command.args(["--retry-for", "0", "snapshots"]).output().unwrap())
    };
    let expired = of("old.cert").exits(12);
    assert!(expired.err.contains("expired"), "{}", expired.err);
    copy("own");
    server.signal(Signal::HUP);
    server.logs("read the files again");
    of("own.cert").exits(10);
}
