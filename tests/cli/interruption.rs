//! Signals in the middle of a backup.

use std::io::{BufRead, BufReader, Write};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Place, noise};

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_stopped_backup_ends_cleanly_and_the_next_one_goes_on() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = Place::with_repository();
        for part in 0..6 {
            place.write(&format!("src/{part}"), &noise(20 << 20, part + 1));
        }
        // The first pack goes at once, the next one waits for the limit: long enough to be met.
        let child = place.start(["backup", "src", "--limit-upload", "2M"]);
        while place.files("repo/packs").is_empty() {
            std::thread::yield_now();
        }
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert!(err.contains("press again"), "{err}");
        assert!(place.run(["snapshots", "--json"]).exits(0).out.is_empty(), "nothing is acknowledged");
        let again = place.run(["backup", "src", "--json"]).exits(0).last();
        assert!(again["resumed_bytes"].as_u64().unwrap() > 0, "{again}");
        place.run(["verify", "--data"]).exits(0);
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    let place = Place::with_repository();
    let mut child = place.start(["backup", "-", "-v"]);
    child.stdin.as_mut().unwrap().write_all(b"some").unwrap();
    while !place.files("state").iter().any(|path| path.ends_with("lock")) {
        std::thread::yield_now();
    }
    send(&child, Signal::INT);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("press again")));
    send(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130), "though standard input is still open");
}
