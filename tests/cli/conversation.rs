//! How much is said.

use crate::support::Place;

#[test]
fn without_a_terminal_a_backup_says_one_line() {
    let place = Place::with_repository();
    let run = place.run(["backup", "src"]).exits(0);
    assert_eq!((run.out.lines().count(), run.err.as_str()), (1, ""), "{run:?}");
    assert!(run.out.starts_with("snapshot "), "{run:?}");
}

#[test]
fn quiet_means_nothing_but_errors() {
    let place = Place::empty();
    place.write("src/a", b"x");
    for args in [
        &["init", "-q", "--new-key-file", "key"][..],
        &["backup", "-q", "src"],
        &["restore", "-q", "latest", "--target", "target"],
        &["verify", "-q"],
        &["doctor", "-q"],
    ] {
        let run = place.run(args.iter().copied()).exits(0);
        assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""), "{args:?}");
    }
    let run = place.run(["backup", "-q", "src", "no/such"]).exits(3);
    assert!(run.out.is_empty() && run.err.contains("no/such"), "{run:?}");
}

#[test]
fn verbose_names_every_entry_that_changed() {
    let place = Place::with_repository();
    let run = place.run(["backup", "-v", "src"]).exits(0);
    for name in ["src/a", "src/d/b"] {
        assert!(run.err.lines().any(|line| line.starts_with("new ") && line.ends_with(name)), "{run:?}");
    }
}

#[test]
fn an_error_has_a_cause_and_a_next_step() {
    let place = Place::with_repository();
    let run = place.run(["snapshots", "--key-file", "no/such/key"]).exits(2);
    assert!(run.err.starts_with("error: cannot read no/such/key\n  caused by: "), "{run:?}");
    let run = place.run(["ls", "ffff"]).exits(1);
    assert!(run.err.contains("  next step: "), "{run:?}");
}
