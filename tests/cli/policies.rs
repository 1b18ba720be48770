//! `policy generate`: the permission of each role at each provider, to the letter, and what it must never contain.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::support::Place;

const ROLES: [&str; 5] = ["writer", "reader", "maintainer", "verifier", "admin"];

/// Provider, where, and who.
const PROVIDERS: [(&str, &str, &str); 5] = [
    ("aws", "s3://bucket/team", "arn:aws:iam::111122223333:role/backup"),
    ("minio", "s3://bucket/team", "backup"),
    ("ceph", "s3://bucket/team", "backup"),
    ("gcs", "gs://bucket/team", "serviceAccount:backup@project.iam.gserviceaccount.com"),
    ("azure", "abfss://bucket@account.dfs.core.windows.net/team", "backup"),
];

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_provider_and_role_is_written_to_the_letter() {
    let place = Place::empty();
    for (provider, url, principal) in PROVIDERS {
        for role in ROLES {
            let line = ["policy", "generate", provider, "--role", role, "--principal", principal, "-r", url];
            let run = place.run(line).exits(0);
            assert_eq!(run.out, golden(&format!("policy-{provider}-{role}")), "{provider} {role}");
            assert!(
                run.err.lines().all(|line| line.starts_with("# ")) && run.err.contains("apply it"),
                "{}",
                run.err
            );
        }
    }
}

#[test]
fn with_a_lock_it_is_permitted_to_lock_and_never_to_unlock() {
    let place = Place::empty();
    for (provider, role) in
        [("aws", "writer"), ("aws", "maintainer"), ("ceph", "writer"), ("minio", "maintainer")]
    {
        let line =
            ["policy", "generate", provider, "--role", role, "--lock", "compliance:30d", "-r", "s3://bucket"];
        let run = place.run(line.into_iter().chain(["--principal", "someone"])).exits(0);
        assert_eq!(run.out, golden(&format!("policy-{provider}-{role}-lock")), "{provider} {role}");
    }
}

/// Every action that some statement allows, or denies.
fn actions(document: &Value, effect: &str) -> Vec<String> {
    let statements = document["Statement"].as_array().unwrap().iter();
    let of_effect = statements.filter(|statement| statement["Effect"] == effect);
    of_effect.flat_map(|s| s["Action"].as_array().unwrap()).map(|a| a.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_writer_deletes_overwrites_unlocks_and_configures_nothing() {
    let place = Place::empty();
    for (lock, may_lock) in [(&[][..], false), (&["--lock", "governance:1d"][..], true)] {
        let line = ["policy", "generate", "aws", "--role", "writer", "-r", "s3://bucket"];
        let document: Value = serde_json::from_str(&place.run(line.iter().chain(lock)).exits(0).out).unwrap();
        let allowed = actions(&document, "Allow");
        for word in ["Delete", "Bypass", "Lifecycle", "Policy", "PutBucket", "*", "Acl"] {
            assert!(!allowed.iter().any(|action| action.contains(word)), "{word}: {allowed:?}");
        }
        assert_eq!(allowed.contains(&"s3:PutObjectRetention".to_owned()), may_lock);
        let denied = actions(&document, "Deny");
        for action in ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"] {
            assert!(denied.iter().any(|denied| denied == action), "{action}: {denied:?}");
        }
        let put = |s: &&Value| s["Effect"] == "Allow" && s["Action"][0] == "s3:PutObject";
        let put = document["Statement"].as_array().unwrap().iter().find(put).unwrap();
        assert_eq!(put["Condition"]["Null"]["s3:if-none-match"], "false");
    }
}

#[test]
fn what_makes_no_permission_is_refused_with_the_way_on() {
    let place = Place::empty();
    for (line, said) in [
        (&["aws", "--role", "writer", "-r", "gs://bucket"][..], "s3://BUCKET"),
        (&["aws", "--role", "writer", "-r", "/srv/repo"], "s3://BUCKET"),
        (&["ceph", "--role", "writer", "-r", "s3://bucket"], "--principal"),
        (&["gcs", "--role", "reader", "-r", "gs://bucket"], "--principal"),
        (&["aws", "--role", "writer", "-r", "s3://bucket/a*b"], "prefix"),
        (&["aws", "--role", "writer", "-r", "s3://bucket", "--principal", "a\"b"], "does not name anybody"),
        (&["gcs", "--role", "writer", "-r", "gs://b", "--principal", "x';reboot;'"], "does not name anybody"),
        (
            &["gcs", "--role", "writer", "-r", "gs://b", "--principal", "x", "--lock", "compliance:1d"],
            "--lock",
        ),
        (&["aws", "--role", "owner", "-r", "s3://bucket"], "possible values"),
        (&["aws", "--role", "writer", "-r", "s3://bucket", "--lock", "forever:1d"], "compliance:30d"),
    ] {
        let run = place.run(["policy", "generate"].iter().chain(line)).exits(2);
        assert!(run.err.contains(said) && run.out.is_empty(), "{line:?}: {run:?}");
    }
}

#[test]
fn as_json_it_is_one_object() {
    let place = Place::empty();
    let line = ["policy", "generate", "aws", "--role", "reader", "-r", "s3://bucket", "--json"];
    let object = place.run(line).exits(0).last();
    assert_eq!((object["type"].as_str(), object["role"].as_str()), (Some("policy"), Some("reader")));
    let document: Value = serde_json::from_str(object["policy"].as_str().unwrap()).unwrap();
    assert!(!actions(&document, "Allow").contains(&"s3:PutObject".to_owned()));
    assert!(object["notes"][0].as_str().unwrap().contains("aws iam"));
}

#[test]
fn a_directory_locks_nothing_and_has_no_past() {
    let place = Place::with_repository();
    let run = place.run(["snapshots", "--as-of", "2026-01-01"]).exits(2);
    assert!(run.err.contains("not a bucket of S3"), "{run:?}");
    assert!(place.run(["snapshots", "--as-of", "soon"]).exits(2).err.contains("2026-03-01T14:00"));
    for verb in
        [&["backup", "src"][..], &["prune"], &["hold", "remove", "ab"], &["tag", "latest", "--add", "x"]]
    {
        let run = place.run(verb.iter().chain(&["--as-of", "2026-01-01"])).exits(2);
        assert!(run.err.contains("--as-of"), "{run:?}");
    }
    let line = ["init", "-r", "other", "--lock", "compliance:1d", "--new-key-file", "other.key"];
    let run = place.run(line).exits(2);
    assert!(run.err.contains("does not lock objects"), "{run:?}");
    assert!(!place.path("other/config").exists() && !place.path("other.key").exists(), "{run:?}");
}
