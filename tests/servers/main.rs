//! Real servers: every promise of a store, and a whole backup, verify and restore, against each of them.
//!
//! A missing server is a failure. `LIFEBOAT_SKIP_SERVERS=1` leaves these tests out, and they say so.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed step fails the test, and one left out is named"
)]

mod client;
mod dumps;
mod lock;
mod postgres;
mod postgres_backup;
mod rights;
mod roles;
mod server;
mod sftp;
mod ssh;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lifeboat::cancel::Cancel;
use lifeboat::clock::SystemClock;
use lifeboat::event::CountingObserver;
use lifeboat::random::SystemRandom;
use lifeboat::store::{Environment, Store, StoreEnv, StoreOptions, conformance};

use server::Server;

#[test]
fn ceph_keeps_every_promise_and_a_repository() {
    run(Server::ceph);
}

#[test]
fn azurite_keeps_every_promise_and_a_repository() {
    run(Server::azurite);
}

#[test]
fn the_stand_in_for_google_keeps_every_promise_and_a_repository() {
    run(Server::gcs);
}

#[test]
fn a_postgresql_comes_back_whole_or_not_at_all() {
    if !skipped() {
        postgres::comes_back_whole_or_not_at_all();
    }
}

#[test]
fn a_postgresql_comes_back_as_it_was_at_a_moment() {
    if !skipped() {
        postgres_backup::comes_back_as_it_was();
    }
}

#[test]
fn a_base_backup_of_postgresql_is_whole_or_none() {
    if !skipped() {
        postgres_backup::is_whole_or_none();
    }
}

#[test]
fn the_log_of_postgresql_goes_with_its_base_backups() {
    if !skipped() {
        postgres_backup::log_goes_with_its_backups();
    }
}

#[test]
fn a_postgresql_is_checked() {
    if !skipped() {
        postgres_backup::is_checked();
    }
}

#[test]
fn the_page_about_postgresql_holds() {
    if !skipped() {
        postgres::the_page_holds();
    }
}

#[test]
fn dumps_of_postgresql_come_back_whole_or_not_at_all() {
    if !skipped() {
        dumps::of_postgresql();
    }
}

#[test]
fn dumps_of_mariadb_come_back_whole_or_not_at_all() {
    if !skipped() {
        dumps::of_mariadb();
    }
}

#[test]
fn dumps_of_redis_come_back_whole_or_not_at_all() {
    if !skipped() {
        dumps::of_redis();
    }
}

#[test]
fn the_page_about_dumps_holds() {
    if !skipped() {
        dumps::page_holds();
    }
}

#[test]
fn a_door_behind_ssh_keeps_every_promise() {
    if !skipped() {
        ssh::conforms();
    }
}

#[test]
fn the_page_about_a_server_of_ones_own_holds() {
    if !skipped() {
        ssh::the_page_holds();
    }
}

#[test]
fn a_writer_behind_ssh_is_held_and_a_dead_server_is_waited_for() {
    if !skipped() {
        ssh::a_writer_is_held_and_a_dead_server_is_waited_for();
    }
}

#[test]
fn a_server_of_sftp_keeps_every_promise() {
    if !skipped() {
        sftp::conforms();
    }
}

#[test]
fn a_repository_lives_in_a_chroot_where_only_sftp_is_let_in() {
    if !skipped() {
        sftp::lives_in_a_chroot();
    }
}

#[test]
fn what_goes_wrong_with_sftp_is_said_and_a_dead_server_is_waited_for() {
    if !skipped() {
        sftp::says_what_is_wrong();
    }
}

fn run(start: fn() -> Server) {
    if skipped() {
        return;
    }
    let server = start();
    conforms(&server);
    backs_up_and_restores(&server);
}

/// Whether these tests are left out, which is said.
fn skipped() -> bool {
    let skipped = std::env::var_os("LIFEBOAT_SKIP_SERVERS").is_some();
    if skipped {
        println!("left out: LIFEBOAT_SKIP_SERVERS is set");
    }
    skipped
}

fn conforms(server: &Server) {
    let environment = Environment { variables: server.environment.clone(), ..Environment::default() };
    let (url, options) = (format!("{}/conformance", server.url), StoreOptions::default());
    conforms_at(&url, StoreOptions { environment, ..options }, "");
}

/// Every promise of a store at `url`, below a prefix of it.
fn conforms_at(url: &str, options: StoreOptions, prefix: &str) {
    let options = StoreOptions { retry_for: Duration::from_secs(10), ..options };
    let env = StoreEnv {
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        observer: Arc::new(CountingObserver::default()),
        cancel: Cancel::new(),
    };
    let place = url.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(async {
        let store = Store::open(&place, &options, env).await.unwrap();
        conformance::run_below(&store, prefix).await
    });
    if let Err(failure) = result {
        panic!("{url}: {}", explain(&failure));
    }
}

fn explain(failure: &conformance::Failure) -> String {
    let mut chain = failure.to_string();
    let mut source = std::error::Error::source(failure);
    while let Some(error) = source {
        chain = format!("{chain}: {error}");
        source = error.source();
    }
    chain
}

fn backs_up_and_restores(server: &Server) {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    fill(&source);
    let repository = format!("{}/repository", server.url);
    let key = place.path().join("key");
    let lifeboat = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .args(["--repo", &repository, "--cache-dir", place.path().join("cache").to_str().unwrap()])
            .args(arguments)
            .env_clear()
            .env("HOME", place.path())
            .envs(&server.environment)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?} ended with {}:\n{said}", output.status);
    };
    let key = key.to_str().unwrap();
    lifeboat(&["init", "--new-key-file", key]);
    lifeboat(&["--key-file", key, "backup", source.to_str().unwrap()]);
    fs::write(source.join("later"), "a second run finds this").unwrap();
    lifeboat(&["--key-file", key, "backup", source.to_str().unwrap()]);
    lifeboat(&["--key-file", key, "verify", "--data"]);
    let target = place.path().join("target");
    let from = format!("latest:{}", source.display());
    lifeboat(&["--key-file", key, "restore", &from, "--target", target.to_str().unwrap()]);
    let difference =
        Command::new("diff").args(["-r", "--no-dereference"]).arg(&source).arg(&target).output().unwrap();
    assert!(difference.status.success(), "{}", String::from_utf8_lossy(&difference.stdout));
}

/// Small files, and one that takes more than one pack.
fn fill(source: &Path) {
    for folder in ["a", "b/c"] {
        fs::create_dir_all(source.join(folder)).unwrap();
        for number in 0..100 {
            fs::write(
                source.join(folder).join(format!("file {number}")),
                format!("{folder} {number}\n").repeat(number),
            )
            .unwrap();
        }
    }
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let large: Vec<u8> = (0..24 << 20).map(|_| noise()).collect();
    fs::write(source.join("large"), large).unwrap();
    std::os::unix::fs::symlink("a/file 1", source.join("link")).unwrap();
}
