//! `forget`, `undelete`, `hold`, `tag`.

use serde_json::json;

use crate::support::Place;

/// A repository with three snapshots of job `j`, oldest first.
fn three() -> (Place, Vec<String>) {
    let place = Place::with_repository();
    let mut ids = Vec::new();
    for n in 0..3 {
        place.write("src/a", format!("state {n}").as_bytes());
        let tag = format!("n={n}");
        let run = place.run(["backup", "--json", "src", "--job", "j", "--host", "h", "--tag", &tag]).exits(0);
        ids.push(run.last()["snapshot"].as_str().unwrap().to_owned());
    }
    (place, ids)
}

fn listed(place: &Place, more: &[&str]) -> Vec<String> {
    let objects = place.run(["snapshots", "--json"].iter().chain(more)).exits(0).objects();
    objects.iter().map(|object| object["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_policy_forgets_and_undelete_takes_it_back() {
    let (place, ids) = three();
    let before = place.files("repo").len();
    let run = place.run(["forget", "--keep-last", "2", "--dry-run"]).exits(0);
    assert!(run.out.contains("job j of h") && run.out.contains("no rule keeps it"), "{run:?}");
    assert!(run.out.contains("would keep 2 and forget 1"), "{run:?}");
    assert_eq!(place.files("repo").len(), before, "a dry run stores nothing");

    let run = place.run(["forget", "--keep-last", "2", "--keep-daily", "1", "--json"]).exits(0);
    let objects = run.objects();
    let verdicts: Vec<_> = objects.iter().filter(|object| object["type"] == "verdict").collect();
    let of = |id: &String| verdicts.iter().find(|verdict| verdict["id"] == **id).unwrap();
    assert_eq!(of(&ids[0])["verdict"], "forget");
    assert_eq!((&of(&ids[2])["verdict"], &of(&ids[2])["job"]), (&json!("keep"), &json!("j")));
    let reasons = of(&ids[2])["reasons"].as_array().unwrap();
    assert!(
        reasons.len() == 2 && reasons[1].as_str().unwrap().starts_with("daily "),
        "all reasons: {reasons:?}"
    );
    let summary = run.last();
    assert_eq!((&summary["kept"], &summary["forgotten"]), (&json!(2), &json!(1)));
    assert!(summary["undelete_until"].is_string(), "{summary}");

    assert_eq!(listed(&place, &[]), ids[1..]);
    assert_eq!(listed(&place, &["--all"]), ids);
    let all = place.run(["snapshots", "--all"]).exits(0);
    assert!(all.out.contains("forgotten, undelete until "), "{all:?}");
    let hidden = place.run(["snapshots"]).exits(0);
    assert!(hidden.err.contains("1 forgotten"), "{hidden:?}");
    let forgotten = &place.run(["snapshots", "--all", "--json"]).exits(0).objects()[0];
    assert!(forgotten["forgotten"].is_string() && forgotten["undelete_until"].is_string(), "{forgotten}");
    place.run(["restore", &ids[0], "--target", "target"]).exits(0);
    place.run(["verify", "--data"]).exits(0);

    let run = place.run(["undelete", &ids[0][..12]]).exits(0);
    assert!(run.out.contains("is back"), "{run:?}");
    assert_eq!(listed(&place, &[]), ids);
    let run = place.run(["undelete", &ids[0], "--json"]).exits(0);
    assert_eq!(run.last()["state"], "not_forgotten");
    let verify = place.run(["verify", "--data", "--json"]).exits(0);
    assert_eq!((&verify.last()["damage"], &verify.last()["warnings"]), (&json!(0), &json!(0)));
}

#[test]
fn latest_passes_by_what_is_forgotten() {
    let (place, ids) = three();
    place.run(["forget", "latest", "-q"]).exits(0);
    assert_eq!(listed(&place, &[]), ids[..2]);
    place.run(["forget", "latest~1", "--job", "j"]).exits(0);
    assert_eq!(listed(&place, &[]), ids[1..2]);
    let below = format!("latest:{}", place.path("src/a").display());
    assert_eq!(place.run(["cat", &below]).exits(0).out, "state 1");
    let run = place.run(["forget", &ids[0]]).exits(0);
    assert!(run.out.contains("forgotten") && run.out.contains("since "), "{run:?}");
}

#[test]
fn forget_collects_as_well_if_it_is_asked_to() {
    let (place, ids) = three();
    let before = place.files("repo").len();
    let run = place.run(["forget", &ids[0], "--prune", "-n", "--json"]).exits(0);
    assert_eq!((&run.last()["type"], &run.last()["dry_run"]), (&json!("prune"), &json!(true)));
    assert_eq!(place.files("repo").len(), before, "a dry run stores nothing");
    let run = place.run(["forget", &ids[0], "--prune", "--json"]).exits(0);
    // It has only just been forgotten.
    assert_eq!((&run.last()["snapshots_waiting"], &run.last()["snapshots_removed"]), (&json!(1), &json!(0)));
    let run = place.run(["forget", &ids[1], "--prune"]).exits(0);
    assert!(run.out.contains("2 forgotten snapshots can still be taken back"), "{run:?}");
    // Nothing is collected when nothing may be forgotten.
    let run = place.run(["forget", &ids[2], "--prune"]).exits(7);
    assert!(run.out.is_empty(), "{run:?}");
}

#[test]
fn forget_refuses_to_leave_nothing() {
    let (place, ids) = three();
    let other = place.run(["backup", "--json", "src", "--job", "other"]).exits(0).last();
    let other = other["snapshot"].as_str().unwrap();
    let tombs = || place.files("repo/tombs").len();
    let run = place.run(["forget", &ids[0], other]).exits(7);
    assert!(run.err.contains("job other of") && run.err.contains("--allow-empty"), "{run:?}");
    place.run(["forget", "--keep-tag", "none", "--dry-run"]).exits(7);
    for wrong in [
        &["forget"][..],
        &["forget", "--keep-last", "0"],
        &["forget", "--keep-last", "x"],
        &["forget", "--keep-within", "3 weeks"],
        &["forget", "latest", "--keep-last", "1"],
        &["forget", "newest"],
        &["hold", "add", "latest", "--until", "2001-01-01"],
        &["hold", "add", "latest", "--until", "whenever"],
        &["tag", "latest"],
        &["tag", "latest", "--add", "x", "--set", "y"],
        &["undelete"],
        &["undelete", "latest"],
    ] {
        let run = place.run(wrong.iter().copied()).exits(2);
        assert!(run.out.is_empty() && !run.err.is_empty(), "{wrong:?}: {run:?}");
    }
    place.run(["forget", "ffffffffffff"]).exits(1);
    assert_eq!(tombs(), 0);
    place.run(["forget", &ids[0], other, "--allow-empty"]).exits(0);
    assert_eq!(tombs(), 2);
    place.run(["verify"]).exits(0);
}

#[test]
fn a_hold_wins_over_policies_and_names() {
    let (place, ids) = three();
    let run = place.run(["hold", "add", &ids[0][..10], "--json"]).exits(0);
    let hold = run.last()["id"].as_str().unwrap().to_owned();
    assert_eq!(run.last()["snapshots"], json!([ids[0]]));
    place.run(["hold", "add", "latest~1", "--job", "j", "--until", "90d"]).exits(0);
    let run = place.run(["forget", &ids[0]]).exits(7);
    assert!(run.err.contains(&hold) && run.err.contains("hold remove"), "{run:?}");
    let run = place.run(["forget", "--keep-last", "1"]).exits(0);
    assert_eq!(run.out.matches(" held").count(), 2, "{run:?}");
    assert_eq!(listed(&place, &[]), ids);

    let table = place.run(["hold", "list"]).exits(0).out;
    assert!(table.contains("until it is removed") && table.contains(&ids[1][..8]), "{table}");
    let objects = place.run(["hold", "list", "--json"]).exits(0).objects();
    assert!(
        objects.len() == 2 && objects.iter().all(|hold| hold["stands"] == true && hold["since"].is_string())
    );
    place.run(["verify"]).exits(0);
    place.run(["hold", "remove", &hold[..12]]).exits(0);
    place.run(["hold", "remove", &hold]).exits(1);
    place.run(["forget", &ids[0]]).exits(0);
    assert!(place.run(["hold", "list"]).exits(0).out.lines().count() == 2);
}

#[test]
fn tags_change_and_decide() {
    let (place, ids) = three();
    let run = place.run(["tag", &ids[0], "--add", "release=1", "--add", "n=0", "--json"]).exits(0);
    assert_eq!((&run.last()["tags"], &run.last()["changed"]), (&json!(["n=0", "release=1"]), &json!(true)));
    assert_eq!(listed(&place, &["--tag", "release"]), ids[..1]);
    assert!(place.run(["snapshots"]).exits(0).out.contains("n=0,release=1"));
    place.run(["tag", "latest", "--remove", "n"]).exits(0);
    let last = place.run(["snapshots", "--json"]).exits(0).last();
    assert_eq!((&last["id"], &last["tags"]), (&json!(ids[2]), &json!([])));
    place.run(["tag", "latest", &ids[1], "--set", "x=1", "--set", "y"]).exits(0);
    assert_eq!(listed(&place, &["--tag", "x", "--tag", "y", "--no-cache"]), ids[1..]);
    place.run(["tag", "latest", "--set", ""]).exits(0);
    assert_eq!(listed(&place, &["--tag", "x"]), ids[1..2]);
    assert_eq!(place.run(["tag", "latest", "--set", "", "--json"]).exits(0).last()["changed"], false);

    place.run(["forget", "--keep-tag", "release=1"]).exits(0);
    assert_eq!(listed(&place, &[]), ids[..1]);
    for depth in ["--packs", "--data"] {
        place.run(["verify", depth]).exits(0);
    }
    let secret = place
        .files("repo/labels")
        .iter()
        .any(|file| std::fs::read(file).unwrap().windows(7).any(|bytes| bytes == b"release"));
    assert!(!secret, "tags are sealed");
}

#[test]
fn hostile_tags_cannot_act_on_a_terminal() {
    let (place, ids) = three();
    place.run(["tag", &ids[0], "--add", "a\u{202e}b"]).exits(0);
    for args in [&["forget", "--keep-last", "1", "-n"][..], &["tag", &ids[0], "--add", "c"], &["snapshots"]] {
        let run = place.run(args.iter().copied()).exits(0);
        assert!(!run.out.contains('\u{202e}') && !run.err.contains('\u{202e}'), "{args:?}: {run:?}");
    }
    place.run(["tag", &ids[0], "--add", "a\nb"]).exits(2);
}

#[test]
fn after_a_prune_it_is_too_late() {
    let (place, ids) = three();
    place.run(["forget", "-q", &ids[0]]).exits(0);
    let now = ["--undo-window", "0", "--grace", "0", "--force", "--yes"];
    place.run(["prune", "-q"].iter().chain(&now)).exits(0);
    assert_eq!(listed(&place, &["--all"]), ids[1..]);
    let run = place.run(["undelete", &ids[0]]).exits(1);
    assert!(run.err.contains("too late") && run.err.contains(&ids[0]), "{run:?}");
    let run = place.run(["undelete", "--json", &ids[0], &ids[1]]).exits(1);
    let states: Vec<_> = run.objects().iter().map(|object| object["state"].clone()).collect();
    assert_eq!(states, ["not_forgotten", "too_late"]);
    place.run(["hold", "add", &ids[0]]).exits(1);
    assert!(place.run(["hold", "list"]).exits(0).out.is_empty());
    place.run(["verify", "--data"]).exits(0);
}
