//! A bucket that cannot be emptied: locks, and what it was before, against a server that has versions and Object Lock.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::client::Client;
use crate::server::Server;
use crate::{fill, skipped};

pub(crate) const BUCKET: &str = "locked";

/// What the store has of a name: its kind, name, id of the version.
pub(crate) fn versions(client: &Client<'_>, prefix: &str) -> Vec<(bool, String, String)> {
    let (status, body) =
        client.request("GET", &format!("/{BUCKET}?versions&prefix=repository/{prefix}"), b"");
    assert!(status == 200 && body.contains("<IsTruncated>false"), "{status} {body}");
    let field = |entry: &str, name: &str| {
        let rest = entry.split_once(&format!("<{name}>")).unwrap().1;
        rest.split_once(&format!("</{name}>")).unwrap().0.to_owned()
    };
    let entries = body.split("</Version>").flat_map(|part| part.split("</DeleteMarker>"));
    let entries = entries.filter(|part| part.contains("<VersionId>"));
    entries
        .map(|entry| (entry.contains("<DeleteMarker>"), field(entry, "Key"), field(entry, "VersionId")))
        .collect()
}

/// When the lock of an object ends.
pub(crate) fn end(client: &Client<'_>, key: &str) -> Timestamp {
    let (status, body) = client.request("GET", &format!("/{BUCKET}/{key}?retention"), b"");
    assert_eq!(status, 200, "{key}: {body}");
    let text = body.split_once("<RetainUntilDate>").unwrap().1;
    text.split_once("</RetainUntilDate>").unwrap().0.parse().unwrap()
}

/// Waits until it is past this time.
#[expect(clippy::disallowed_methods, reason = "the server's clock is the machine's")]
pub(crate) fn wait_for(time: Timestamp) {
    while let Ok(left) = Duration::try_from(time.duration_since(Timestamp::now())) {
        std::thread::sleep(left.max(Duration::from_millis(50)));
    }
}

/// What `doctor` says, by name.
fn checks(client: &Client<'_>) -> HashMap<String, Value> {
    let output = client.run(&["doctor", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let checks = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    checks.map(|check| (check["name"].as_str().unwrap_or_default().to_owned(), check)).collect()
}

pub(crate) fn start<'a>(server: &'a Server, lock: &str) -> (Client<'a>, std::path::PathBuf) {
    let owner = Client::owner(server, BUCKET);
    let made =
        owner.request_with("PUT", &format!("/{BUCKET}"), &["x-amz-bucket-object-lock-enabled:true"], b"");
    assert_eq!(made.0, 200, "{}", made.1);
    let (key, source) = (owner.path("key"), owner.path("source"));
    owner.exits(0, &["init", "--lock", lock, "--new-key-file", key.to_str().unwrap()]);
    fill(&source);
    (owner, source)
}

pub(crate) fn everything(client: &Client<'_>) -> Vec<String> {
    ["config/", "keys/", "writers/", "packs/", "index/", "snapshots/"]
        .iter()
        .flat_map(|p| client.keys(p))
        .collect()
}

#[test]
fn what_is_stored_is_locked_and_longer_while_it_is_needed() {
    if skipped() {
        return;
    }
    let server = Server::ceph();
    let owner = Client::owner(&server, "bucket");
    let key = owner.path("key");
    let said = owner.exits(2, &["init", "--lock", "compliance:1d", "--new-key-file", key.to_str().unwrap()]);
    assert!(said.contains("does not lock objects") && owner.keys("").is_empty(), "{said}");

    let (owner, source) = start(&server, "compliance:90s");
    let text = source.to_str().unwrap();
    owner.exits(0, &["backup", text]);
    // At once: later than after half of the time there is nothing to tell.
    let checks = checks(&owner);
    assert_eq!(checks["lock"]["state"], "ok", "{checks:?}");
    let protection = checks["protection"]["detail"].as_str().unwrap();
    assert!(protection.contains("1 snapshot confirmed"), "{protection}");
    let packs = owner.keys("packs/");
    for key in everything(&owner) {
        assert!(end(&owner, &key) > Timestamp::now(), "{key} is not locked");
    }
    // `status` says until when every confirmed snapshot is safe: the first end of a lock that the store itself names.
    let status = owner.json(&["status"]);
    let first: Timestamp =
        status["first_end"].as_str().unwrap_or_else(|| panic!("{status}")).parse().unwrap();
    let needed = everything(&owner).into_iter().filter(|key| !key.contains("/probe/"));
    let earliest = needed.map(|key| end(&owner, &key)).min().unwrap();
    let apart = first.duration_since(earliest).abs();
    assert!(apart <= jiff::SignedDuration::from_secs(1), "{status}: the store says {earliest}");
    for (_, key, id) in versions(&owner, "") {
        if !key.contains("/probe/") {
            assert_eq!(
                owner.request("DELETE", &format!("/{BUCKET}/{key}?versionId={id}"), b"").0,
                403,
                "{key}"
            );
        }
    }

    // Half of the time later the same backup locks what it needs anew, and a backup after that has nothing to do.
    let before: Vec<Timestamp> = packs.iter().map(|key| end(&owner, key)).collect();
    wait_for(*before.iter().max().unwrap() - Duration::from_secs(44));
    owner.exits(0, &["backup", text]);
    for (key, before) in packs.iter().zip(before) {
        assert!(end(&owner, key) > before, "{key} is needed and was not locked anew");
    }
    let kept: Vec<Timestamp> = everything(&owner).iter().map(|key| end(&owner, key)).collect();
    assert!(kept.iter().all(|end| *end > Timestamp::now()), "{kept:?}");

    // What is deleted is there still, and a later collection gives it back.
    fs::remove_file(source.join("large")).unwrap();
    owner.exits(0, &["backup", text, "--allow-shrink"]);
    owner.exits(0, &["forget", "latest~1", "latest~2"]);
    let line = ["prune", "--grace", "0", "--yes", "--force", "--max-unused", "0"];
    let report = owner.json(&line);
    assert!(report["packs_deleted"].as_u64().unwrap() > 0, "{report}");
    let locked = report["bytes_locked"].as_u64().unwrap();
    assert!(locked >= report["bytes_deleted"].as_u64().unwrap(), "{report}");
    let hidden = versions(&owner, "packs/").iter().filter(|(deleted, ..)| *deleted).count();
    assert_eq!(hidden as u64, report["packs_deleted"], "what is locked is hidden, and there: {report}");
    owner.restores(&source, &[]);
    let free: Timestamp = report["free_at"].as_str().unwrap().parse().unwrap();
    wait_for(free + Duration::from_secs(2));
    // Those that were locked anew are locked longer than can be told without asking: the store refuses, and says until when.
    let mut given_back = 0;
    for _ in 0..4 {
        let report = owner.json(&line);
        given_back += report["bytes_given_back"].as_u64().unwrap();
        let Some(free) = report["free_at"].as_str().filter(|_| given_back < locked) else { break };
        wait_for(free.parse::<Timestamp>().unwrap() + Duration::from_secs(2));
    }
    assert!(given_back >= locked, "{given_back} of {locked}");
    let left = versions(&owner, "packs/");
    assert!(left.iter().all(|(deleted, key, _)| !deleted && owner.keys("packs/").contains(key)), "{left:?}");
    owner.restores(&source, &[]);
}

#[test]
fn what_somebody_deleted_and_replaced_is_read_as_it_was() {
    if skipped() {
        return;
    }
    let server = Server::ceph();
    let (owner, source) = start(&server, "governance:1d");
    owner.exits(0, &["backup", source.to_str().unwrap()]);
    let before = Timestamp::now();
    wait_for(before + Duration::from_secs(2));
    for (number, key) in everything(&owner).iter().enumerate() {
        let path = format!("/{BUCKET}/{key}");
        let status = match number % 2 {
            0 => owner.request("DELETE", &path, b"").0,
            _ => owner.request("PUT", &path, b"encrypted by somebody else").0,
        };
        assert!(status < 300, "{status} {path}");
    }
    assert_ne!(owner.run(&["snapshots"]).status.code(), Some(0), "nothing is left");
    let time = (before + Duration::from_secs(1)).to_string();
    let as_of = ["--as-of", time.as_str()];
    let then = |verb: &[&str]| owner.exits(0, &[verb, &as_of[..]].concat());
    assert_eq!(then(&["snapshots", "--json"]).lines().count(), 1);
    then(&["verify", "--data"]);
    owner.restores(&source, &as_of);
    restores_elsewhere(&owner, &source, &as_of);
    // A time before there was anything.
    owner.exits(10, &["snapshots", "--as-of", "2020-01-01"]);
    for verb in [
        &["backup", "/etc/hostname"][..],
        &["forget", "latest"],
        &["prune"],
        &["hold", "add", "latest"],
        &["doctor"],
    ] {
        let said = owner.exits(2, &[verb, &as_of[..]].concat());
        assert!(said.contains("cannot be changed"), "{said}");
    }
    let plain = Client::owner(&server, "bucket");
    let said = plain.exits(2, &["snapshots", "--as-of", &time]);
    assert!(said.contains("keeps no versions"), "{said}");
}

/// From what was, a repository somewhere else.
fn restores_elsewhere(owner: &Client<'_>, source: &Path, as_of: &[&str]) {
    let (place, key) = (owner.path("rescued"), owner.path("rescued.key"));
    let (place, key) = (place.to_str().unwrap(), key.to_str().unwrap());
    owner.exits(0, &["init", "--repo", place, "--new-key-file", key]);
    owner.exits(0, &[&["copy", "--to", place, "--to-key-file", key][..], as_of].concat());
    let target = owner.path("from-rescued");
    let from = format!("latest:{}", source.display());
    let line = ["restore", &from, "--target", target.to_str().unwrap(), "--repo", place, "--key-file", key];
    owner.exits(0, &line);
    let same =
        std::process::Command::new("diff").args(["-r", "--no-dereference"]).args([source, &target]).output();
    assert!(same.unwrap().status.success());
}

/// Whether the store keeps an object by a legal hold.
fn is_kept(client: &Client<'_>, key: &str) -> bool {
    let (status, body) = client.request("GET", &format!("/{BUCKET}/{key}?legal-hold"), b"");
    assert!(status == 200 || body.contains("ObjectLockConfigurationNotFound"), "{key}: {status} {body}");
    body.contains("<Status>ON</Status>")
}

/// Has the store keep an object by a legal hold.
fn keep(client: &Client<'_>, key: &str) {
    let body = b"<LegalHold><Status>ON</Status></LegalHold>";
    assert_eq!(client.request("PUT", &format!("/{BUCKET}/{key}?legal-hold"), body).0, 200);
}

/// Packs that no held snapshot needs, and that are kept all the same, as by a hold that was not removed in whole.
fn keep_others(client: &Client<'_>, source: &Path) -> Vec<String> {
    let before = client.keys("packs/");
    fs::write(source.join("others"), "kept by nobody knows whom").unwrap();
    client.exits(0, &["backup", source.to_str().unwrap()]);
    let mut others = client.keys("packs/");
    others.retain(|key| !before.contains(key));
    assert!(!others.is_empty());
    others.iter().for_each(|key| keep(client, key));
    others
}

/// Tells whoever waits for clients at a port that there will be no more.
struct Over<'a>(&'a AtomicBool, u16);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        drop(TcpStream::connect(("127.0.0.1", self.1)));
    }
}

/// Somebody on the way to a server. Before the first request passes whose head begins with `method`, and has `mark` in its first
/// line, `act` is called; everything else goes through at once.
fn on_the_way(
    address: String,
    (method, mark): (&'static str, &'static str),
    act: impl FnOnce() + Send,
    then: impl FnOnce(u16),
) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let act = Mutex::new(Some(act));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (act, over) = (&act, &over);
        scope.spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    break;
                }
                let (mut client, server) = (client.unwrap(), TcpStream::connect(&address).unwrap());
                let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                scope.spawn(move || {
                    let _ = std::io::copy(&mut answers, &mut to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
                scope.spawn(move || {
                    let (mut server, mut part) = (server, vec![0; 65_536]);
                    while let Ok(len @ 1..) = client.read(&mut part) {
                        let line = part[..len].split(|byte| *byte == b'\r').next().unwrap_or_default();
                        let line = String::from_utf8_lossy(line);
                        if line.starts_with(method) && line.contains(mark) {
                            // Whoever comes second waits until it is done.
                            let mut act = act.lock().unwrap();
                            if let Some(act) = act.take() {
                                act();
                            }
                        }
                        if server.write_all(&part[..len]).is_err() {
                            break;
                        }
                    }
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        let _over = Over(over, port);
        then(port);
    });
    assert!(act.lock().unwrap().is_none(), "nothing of that kind was asked");
}

#[test]
fn a_legal_hold_that_is_made_while_another_is_removed_keeps_what_it_needs() {
    if skipped() {
        return;
    }
    let server = Server::ceph();
    let (owner, source) = start(&server, "governance:1d");
    owner.exits(0, &["backup", source.to_str().unwrap()]);
    let held = owner.json(&["hold", "add", "--legal", "latest"]);
    owner.exits(0, &["backup", source.to_str().unwrap()]);
    let other = owner.as_user("test");
    let late = || drop(other.exits(0, &["hold", "add", "--legal", "latest"]));
    let address = server.environment["AWS_ENDPOINT_URL"].trim_start_matches("http://").to_owned();
    on_the_way(address, ("PUT ", "?legal-hold"), late, |port| {
        let remover = owner.through(port);
        let removed = remover.json(&["hold", "remove", held["id"].as_str().unwrap()]);
        assert!(removed["released"].as_u64().unwrap() > 0, "{removed}");
    });
    let lost: Vec<String> = owner.keys("packs/").into_iter().filter(|key| !is_kept(&owner, key)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let holds = owner.json(&["hold", "list"]);
    assert!(holds["legal"] == true && holds["id"] != held["id"], "{holds}");
    owner.exits(0, &["hold", "remove", holds["id"].as_str().unwrap()]);
    assert!(!everything(&owner).iter().any(|key| is_kept(&owner, key)));
}

#[test]
fn a_legal_hold_keeps_what_a_snapshot_needs_and_no_more() {
    if skipped() {
        return;
    }
    let server = Server::ceph();
    let (owner, source) = start(&server, "governance:15s");
    let text = source.to_str().unwrap();
    owner.exits(0, &["backup", text]);
    let first: Vec<String> = owner.keys("packs/");
    let more = source.join("more");
    fs::write(&more, (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    owner.exits(0, &["backup", text]);
    let held = owner.json(&["hold", "add", "--legal", "latest~1"]);
    assert!(held["legal"] == true && held["objects"].as_u64().unwrap() > first.len() as u64, "{held}");
    let later: Vec<String> = owner.keys("packs/").into_iter().filter(|key| !first.contains(key)).collect();
    assert!(!later.is_empty() && first.iter().all(|key| is_kept(&owner, key)));
    assert!(!later.iter().any(|key| is_kept(&owner, key)), "the other snapshot alone needs these");
    // Again, it is the same hold.
    assert_eq!(owner.json(&["hold", "add", "--legal", "latest~1"])["id"], held["id"]);
    assert_eq!(owner.json(&["hold", "list"])["legal"], true);
    let both = owner.json(&["hold", "add", "--legal", "latest~1", "latest"]);
    assert!(both["id"] != held["id"] && later.iter().all(|key| is_kept(&owner, key)));

    // The lock is over, and the store keeps it all the same, from whoever may do everything.
    wait_for(everything(&owner).iter().map(|key| end(&owner, key)).max().unwrap() + Duration::from_secs(1));
    for (_, key, id) in versions(&owner, "packs/") {
        let status = owner.request("DELETE", &format!("/{BUCKET}/{key}?versionId={id}"), b"").0;
        assert_eq!(status, 403, "{key}");
    }

    // What the other hold needs stays.
    let id = |hold: &Value| hold["id"].as_str().unwrap().to_owned();
    let removed = owner.json(&["hold", "remove", &id(&both)]);
    assert!(removed["released"].as_u64().unwrap() >= later.len() as u64, "{removed}");
    assert!(first.iter().all(|key| is_kept(&owner, key)) && !later.iter().any(|key| is_kept(&owner, key)));

    // A collection counts what a legal hold keeps, whoever set that, as locked: nobody knows until when.
    keep(&owner, &later[0]);
    owner.exits(0, &["forget", "latest"]);
    let line = ["prune", "--grace", "0", "--undo-window", "0s", "--yes", "--force"];
    let report = owner.json(&line);
    assert!(report["packs_deleted"].as_u64().unwrap() >= later.len() as u64, "{report}");
    wait_for(report["free_at"].as_str().unwrap().parse::<Timestamp>().unwrap() + Duration::from_secs(1));
    assert!(owner.json(&line)["bytes_locked"].as_u64().unwrap() > 0);
    let left = |key: &str| {
        let of_key = versions(&owner, "packs/").into_iter().filter(|(deleted, k, _)| !deleted && k == key);
        of_key.count()
    };
    assert_eq!([left(&later[0]), left(&later[1])], [1, 0], "its lock is over");
    fs::remove_file(&more).unwrap();
    owner.restores(&source, &[]);

    let stray = keep_others(&owner, &source);
    let removed = owner.json(&["hold", "remove", &id(&held)]);
    assert!(removed["released"].as_u64().unwrap() >= (first.len() + stray.len()) as u64, "{removed}");
    assert!(!everything(&owner).iter().any(|key| is_kept(&owner, key)));
    assert_eq!(left(&later[0]), 1, "below a mark");
    owner.exits(0, &line);
    assert_eq!(left(&later[0]), 0);

    // Where nothing is locked there is no such hold.
    let plain = Client::owner(&server, "bucket");
    let key = plain.path("key");
    plain.exits(0, &["init", "--new-key-file", key.to_str().unwrap()]);
    plain.exits(0, &["backup", text]);
    let said = plain.exits(2, &["hold", "add", "--legal", "latest"]);
    assert!(said.contains("has no locks") && plain.keys("holds/").is_empty(), "{said}");
}
