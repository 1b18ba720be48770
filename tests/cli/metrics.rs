//! `metrics`, with `promtool` as the judge.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::configuring::{configure, repository};
use crate::support::{Place, Run, damage};

/// What `promtool check metrics` says of a text.
fn check(text: &str) {
    let mut tool = Command::new("promtool");
    let tool =
        tool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut child = tool.spawn().expect("promtool is installed by tests/setup");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert!(run.code == 0 && run.err.is_empty() && run.out.is_empty(), "{run:#?}\n{text}");
}

/// The value of the only sample of a name.
fn value(text: &str, name: &str) -> f64 {
    let samples: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).collect();
    let [sample] = samples[..] else { panic!("{name}: {samples:?}\n{text}") };
    sample.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_repository_is_told_of_and_promtool_finds_nothing_to_say() {
    let place = Place::with_repository();
    let empty = place.run(["metrics"]).exits(0).out;
    check(&empty);
    assert_eq!(value(&empty, "lifeboat_repository_bytes"), 0.0);
    place.run(["backup", "src", "--job", "a\"b\\c", "--host", "host"]).exits(0);
    place.run(["hold", "add", "latest"]).exits(0);
    place.run(["verify", "--data", "-q"]).exits(0);
    let text = place.run(["metrics"]).exits(0).out;
    check(&text);
    assert!(text.contains("host=\"host\",job=\"a\\\"b\\\\\\\\c\"}"), "{text}");
    assert_eq!(value(&text, "lifeboat_job_held"), 1.0);
    assert_eq!(value(&text, "lifeboat_verified_bytes"), value(&text, "lifeboat_repository_bytes"));
    assert_eq!(value(&text, "lifeboat_verify_damages"), 0.0);
    let age = value(&text, "lifeboat_collected_timestamp_seconds")
        - value(&text, "lifeboat_job_last_success_timestamp_seconds");
    assert!((0.0..600.0).contains(&age), "{age}");
    damage(&place.files("repo/packs")[0]);
    place.run(["verify", "--packs", "-q"]).exits(4);
    let text = place.run(["metrics"]).exits(0).out;
    assert_eq!(
        [value(&text, "lifeboat_verify_damages"), value(&text, "lifeboat_verify_damaged_objects")],
        [1.0, 1.0]
    );
}

#[test]
fn a_run_writes_them_whole_where_the_configuration_says() {
    let place = Place::with_repository();
    let file = place.path("out.prom");
    let write = |to: &Path, sources: &str| {
        let text = repository(&place, "main", "repo");
        let metrics = format!("metrics = \"{}\"\n", to.display());
        let job = format!(
            "[jobs.web]\nsources = [\"{}\"]\nschedule = \"every 1h\"\n",
            place.path(sources).display()
        );
        configure(&place, &format!("{text}{metrics}{job}"));
    };
    // A mask as the service has it.
    let masked = |args: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 077; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_lifeboat")]).args(args);
        place.furnish(shell).output().unwrap()
    };
    let run = || Run::of(masked(&["run", "--force"]));
    write(&file, "src");
    run().exits(0);
    let text = fs::read_to_string(&file).unwrap();
    check(&text);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(text.contains("kind=\"backup\",name=\"web\"} 0\n"), "{text}");
    for (name, wanted) in [("last_exit_code", 0.0), ("consecutive_failures", 0.0), ("missed", 0.0)] {
        assert_eq!(value(&text, &format!("lifeboat_run_{name}")), wanted);
    }
    // A run that fails is told of, and so are those that follow.
    write(&file, "nothing");
    for failures in [1.0, 2.0] {
        run().exits(1);
        let text = fs::read_to_string(&file).unwrap();
        check(&text);
        assert_eq!(value(&text, "lifeboat_run_consecutive_failures"), failures);
        assert_eq!(
            [value(&text, "lifeboat_run_last_exit_code"), value(&text, "lifeboat_run_missed")],
            [1.0, 1.0]
        );
        assert!(value(&text, "lifeboat_run_last_success_timestamp_seconds") > 0.0);
    }
    assert_eq!(
        fs::read_dir(place.path(""))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".new"))
            .count(),
        0
    );
    // Nobody watches any more: that is no good run.
    write(&place.path("no/such/directory.prom"), "src");
    assert!(run().exits(1).err.contains("cannot write"));
}

#[test]
fn another_repository_of_the_file_is_another_matter() {
    let place = Place::with_repository();
    let other = ["--repo", place.path("other").to_str().unwrap()].map(str::to_owned);
    let bare = |args: &[&str]| Run::of(place.bare().args(&other).args(args).output().unwrap());
    bare(&["init", "-q", "--new-key-file", "other.key"]).exits(0);
    let text = repository(&place, "main", "repo");
    configure(&place, &format!("{text}[jobs.web]\nsources = [\"/x\"]\nschedule = \"every 1h\"\n"));
    let here = Run::of(place.bare().arg("metrics").output().unwrap()).exits(0).out;
    assert!(here.contains("name=\"web\""), "{here}");
    let located = place.run(["metrics"]).exits(0).out;
    assert!(located.contains("name=\"web\""), "it is the same place: {located}");
    let elsewhere = bare(&["metrics", "--key-file", "other.key"]).exits(0).out;
    assert!(!elsewhere.contains("lifeboat_run_"), "{elsewhere}");
}

#[test]
fn the_alerts_of_the_page_are_rules() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let rules = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let place = Place::empty();
    place.write("rules.yml", rules.as_bytes());
    let run = Run::of(
        Command::new("promtool").args(["check", "rules"]).arg(place.path("rules.yml")).output().unwrap(),
    );
    assert!(run.exits(0).out.contains("5 rules found"));
    // Each name of the page is printed, and each that is printed is on the page.
    let source =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/render/metrics.rs")).unwrap();
    let names = |text: &str| -> std::collections::BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("lifeboat_")).map(str::to_owned).collect()
    };
    assert_eq!(names(&page), names(&source));
}
