//! `snapshots`, `ls`, `stats`: what there is.

use crate::support::Place;

#[test]
fn snapshots_are_listed_and_filtered() {
    let place = Place::with_repository();
    place.run(["backup", "-q", "src", "--job", "one", "--tag", "a", "--host", "h1"]).exits(0);
    place.run(["backup", "-q", "src", "--job", "two", "--tag", "b", "--host", "h2"]).exits(0);
    let run = place.run(["snapshots"]).exits(0);
    assert_eq!(run.out.lines().count(), 3, "{run:?}");
    for heading in ["ID", "TIME", "HOST", "JOB", "TAGS", "PATHS", "SIZE"] {
        assert!(run.out.lines().next().unwrap().contains(heading), "{heading}");
    }
    for (filter, job) in [
        (["--job", "one"], "one"),
        (["--tag", "b"], "two"),
        (["--host", "h1"], "one"),
        (["--path", "src"], "two"),
    ] {
        let found = place.run(["snapshots", "--json"].iter().chain(&filter)).exits(0);
        assert_eq!(found.last()["job"], job, "{filter:?}");
    }
    assert!(place.run(["snapshots", "--job", "none"]).exits(0).out.is_empty());
}

#[test]
fn entries_are_listed_like_ls() {
    let place = Place::with_repository();
    place.backup();
    let below = format!("latest:{}", place.path("src").display());
    let all = place.run(["ls", &below]).exits(0).out;
    assert!(all.contains("src/d/b"), "{all}");
    let flat = place.run(["ls", &below, "--no-recursive"]).exits(0).out;
    assert!(flat.contains("src/d") && !flat.contains("src/d/b"), "{flat}");
    let long = place.run(["ls", "-l", &below]).exits(0).out;
    assert!(long.lines().any(|line| line.starts_with("-rw") && line.contains(" 6 ")), "{long}");
    let run = place.run(["ls", "latest:/no/such"]).exits(1);
    assert!(run.err.contains("/no/such"), "{run:?}");
}

#[test]
fn hostile_names_cannot_act_on_a_terminal() {
    let place = Place::with_repository();
    place.write("src/\u{1b}[2Jx\ny\u{202e}z", b"x");
    place.run(["backup", "-v", "src", "--job", "a\u{202e}b"]).exits(0);
    for args in
        [&["ls"][..], &["ls", "-l"], &["snapshots"], &["restore", "latest", "-v", "--target", "target"]]
    {
        let run = place.run(args.iter().copied()).exits(0);
        for bad in ["\u{1b}", "\u{202e}", "x\ny"] {
            assert!(!run.out.contains(bad) && !run.err.contains(bad), "{args:?}: {run:?}");
        }
    }
    assert!(place.run(["ls"]).out.contains("\\x1b[2Jx\\ny\\u{202e}z"));
}

#[test]
fn stats_and_doctor_speak_to_people() {
    let place = Place::with_repository();
    place.backup();
    assert!(place.run(["stats"]).exits(0).out.contains("snapshots"));
    let doctor = place.run(["doctor"]).exits(0);
    assert!(doctor.out.lines().any(|line| line.starts_with("ok")), "{doctor:?}");
}
