//! The permissions that `policy generate` writes, in force at a server that goes by them.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::server::Server;
use crate::{fill, lock, skipped};

/// Puts the generated permissions of these roles, each for a user of that name, on the bucket.
pub(crate) fn permit(owner: &Client<'_>, bucket: &str, (roles, more): (&[&str], &[&str])) {
    let mut statements = Vec::new();
    for role in roles {
        let line = ["policy", "generate", "ceph", "--role", role, "--principal", role];
        let line: Vec<&str> = line.into_iter().chain(more.iter().copied()).collect();
        let mut policy: Value = serde_json::from_str(&owner.exits(0, &line)).unwrap();
        statements.append(policy["Statement"].as_array_mut().unwrap());
    }
    let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    let (status, body) = owner.request("PUT", &format!("/{bucket}?policy"), policy.as_bytes());
    assert!(status < 300, "{status} {body}");
}

#[test]
fn ceph_gives_each_role_what_it_needs_and_refuses_the_rest() {
    if skipped() {
        return;
    }
    let server = Server::ceph();
    let roles = ["writer", "reader", "maintainer", "verifier"];
    roles.iter().for_each(|role| server.add_user(role));
    let owner = Client::owner(&server, "bucket");
    let key = owner.path("key");
    owner.exits(0, &["init", "--new-key-file", key.to_str().unwrap()]);
    permit(&owner, "bucket", (&roles, &[]));
    let source = owner.path("source");
    fill(&source);
    let source_text = source.to_str().unwrap();

    let writer = owner.as_user("writer");
    writer.exits(0, &["backup", source_text]);
    fs::write(source.join("later"), "a second run finds this").unwrap();
    writer.exits(0, &["backup", source_text]);
    writer.exits(12, &["forget", "latest~1"]);
    writer.exits(12, &["prune", "--grace", "0", "--force"]);
    for prefix in ["packs/", "index/", "snapshots/", "config/", "keys/", "writers/"] {
        let path = format!("/bucket/{}", writer.keys(prefix)[0]);
        assert_eq!(writer.request("DELETE", &path, b"").0, 403, "{path}");
    }
    for name in
        ["config/x", "keys/x", "gc/condemned/x", "tombs/x", "holds/x", "probe/x", "../elsewhere", "other"]
    {
        let path = format!("/bucket/repository/{name}").replace("repository/../", "");
        assert_eq!(writer.request("PUT", &path, b"garbage").0, 403, "{path}");
    }
    for settings in ["policy", "lifecycle", "versioning"] {
        assert_eq!(writer.request("PUT", &format!("/bucket?{settings}"), b"{}").0, 403, "{settings}");
    }

    let reader = owner.as_user("reader");
    reader.restores(&source, &[]);
    reader.exits(12, &["backup", source_text]);
    let verifier = owner.as_user("verifier");
    verifier.exits(0, &["verify", "--data"]);
    for user in [&reader, &verifier] {
        assert_eq!(user.request("PUT", "/bucket/repository/packs/x", b"garbage").0, 403);
        let path = format!("/bucket/{}", user.keys("packs/")[0]);
        assert_eq!(user.request("DELETE", &path, b"").0, 403);
    }

    let maintainer = owner.as_user("maintainer");
    maintainer.exits(0, &["hold", "add", "latest"]);
    maintainer.exits(0, &["tag", "latest", "--add", "kept"]);
    maintainer.exits(0, &["forget", "latest~1"]);
    let line = ["prune", "--grace", "0", "--undo-window", "0", "--yes", "--force", "--max-unused", "0"];
    let report = maintainer.json(&line);
    assert_eq!(report["snapshots_removed"], 1, "{report}");
    assert!(report["packs_deleted"].as_u64().unwrap() > 0, "{report}");
    let path = format!("/bucket/{}", maintainer.keys("keys/")[0]);
    assert_eq!(maintainer.request("DELETE", &path, b"").0, 403);
    assert_eq!(maintainer.request("PUT", "/bucket?policy", b"{}").0, 403);
    reader.restores(&source, &[]);
}

#[test]
fn under_a_lock_a_writer_locks_anew_and_nobody_unlocks() {
    if skipped() {
        return;
    }
    let server = Server::ceph();
    let roles = ["writer", "maintainer"];
    roles.iter().for_each(|role| server.add_user(role));
    let (owner, source) = lock::start(&server, "governance:60s");
    permit(&owner, lock::BUCKET, (&roles, &["--lock", "governance:60s"]));
    let (writer, maintainer) = (owner.as_user("writer"), owner.as_user("maintainer"));
    writer.exits(0, &["backup", source.to_str().unwrap()]);
    let keys = lock::everything(&owner);
    // Not the owner of the bucket: what others stored there is theirs.
    let before: Vec<_> = keys.iter().map(|key| lock::end(&writer, key)).collect();
    lock::wait_for(*before.iter().max().unwrap() - Duration::from_secs(29));
    writer.exits(0, &["backup", source.to_str().unwrap()]);
    let needed = keys.iter().zip(before).filter(|(key, _)| !key.ends_with(".ok"));
    for (key, before) in needed {
        assert!(lock::end(&writer, key) > before, "{key} is needed and was not locked anew");
    }
    let bypass = ["x-amz-bypass-governance-retention:true"];
    let shorter = b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2020-01-01T00:00:00Z</RetainUntilDate></Retention>";
    for (_, key, id) in lock::versions(&owner, "packs/") {
        for user in [&writer, &maintainer] {
            let path = format!("/{}/{key}?versionId={id}", lock::BUCKET);
            assert_eq!(user.request_with("DELETE", &path, &bypass, b"").0, 403, "{path}");
            let path = format!("/{}/{key}?retention", lock::BUCKET);
            assert!(user.request_with("PUT", &path, &bypass, shorter).0 >= 400, "{path}");
        }
    }
}
