//! `run`: jobs of the configuration, as cron starts them.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::configuring::{configure, repository};
use crate::support::{Place, Run, noise};

/// A repository, and these jobs; `{src}` is the sources.
fn with_jobs(jobs: &str) -> Place {
    let place = Place::with_repository();
    write_jobs(&place, jobs);
    place
}

fn write_jobs(place: &Place, jobs: &str) {
    let jobs = jobs.replace("{src}", place.path("src").to_str().unwrap());
    let jobs = jobs.replace("{here}", place.path("").to_str().unwrap().trim_end_matches('/'));
    configure(place, &format!("{}{jobs}", repository(place, "main", "repo")));
}

fn run(place: &Place, args: &[&str]) -> Run {
    Run::of(place.bare().arg("run").args(args).output().unwrap())
}

fn snapshots(place: &Place) -> Vec<Value> {
    place.run(["snapshots", "--json"]).exits(0).objects()
}

fn record(place: &Place, name: &str) -> PathBuf {
    place.path(&format!("state/lifeboat/runs/backup-{name}.json"))
}

const DAILY: &str = "[jobs.web]\nsources = [\"{src}\"]\nschedule = \"every 360d\"\n";

#[test]
fn what_is_due_is_run_once_and_then_left_alone() {
    let place = with_jobs(&format!("{DAILY}tags = [\"t=1\"]\n[jobs.byhand]\nsources = [\"{{src}}\"]\n"));
    assert!(run(&place, &["--dry-run"]).exits(0).out.contains("web: due"));
    assert!(snapshots(&place).is_empty());
    let first = run(&place, &[]).exits(0);
    assert!(first.out.starts_with("web: done: snapshot "), "{first:?}");
    assert!(first.out.contains("byhand: skipped: it has no schedule"), "{first:?}");
    let second = run(&place, &[]).exits(0);
    assert!(second.out.contains("web: skipped: not due before 2"), "{second:?}");
    run(&place, &["web"]).exits(0);
    let all = snapshots(&place);
    assert!(all.len() == 1 && all[0]["job"] == "web" && all[0]["tags"][0] == "t=1", "{all:?}");
    let objects = run(&place, &["--force", "--json", "web", "byhand"]).exits(0).objects();
    assert_eq!(objects.len(), 2);
    for object in &objects {
        assert!(object["type"] == "run" && object["outcome"] == "done" && object["code"] == 0, "{object}");
        assert!(object["snapshot"].is_string() && object["repository"] == "main", "{object}");
    }
    assert_eq!(snapshots(&place).len(), 3);
    assert!(run(&place, &["-q"]).exits(0).out.is_empty());
    assert!(run(&place, &["wbe"]).exits(2).err.contains("perhaps web is meant"));
    run(&place, &["-r", "main"]).exits(2);
}

#[test]
fn a_record_that_is_damaged_does_not_say_that_it_ran() {
    let place = with_jobs(DAILY);
    run(&place, &[]).exits(0);
    let path = record(&place, "web");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"code\":0", "\"code\":1")).unwrap();
    assert!(run(&place, &[]).exits(0).out.contains("web: done"));
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(run(&place, &[]).exits(0).out.contains("web: done"));
    assert!(run(&place, &[]).exits(0).out.contains("web: skipped"));
}

#[test]
fn without_a_terminal_a_home_or_a_directory_it_runs_as_cron_has_it() {
    let place = with_jobs(DAILY);
    let mut command = place.bare();
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(variable);
    }
    command.current_dir("/").arg("run").arg("--quiet-unless-error").arg("--no-cache");
    command.arg("--config").arg(place.path("config/lifeboat/lifeboat.toml"));
    command.arg("--state-dir").arg(place.path("state/lifeboat"));
    let done = Run::of(command.output().unwrap()).exits(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("", ""));
    assert_eq!(snapshots(&place).len(), 1);
}

#[test]
fn the_worst_end_of_all_is_the_end_and_the_others_run_all_the_same() {
    let jobs = "[jobs.a]\nsources = [\"{here}/nowhere\"]\nschedule = \"every 360d\"\n\
                [jobs.b]\nsources = [\"{src}\", \"{here}/nowhere\"]\nschedule = \"every 360d\"\n\
                [jobs.c]\nsources = [\"{src}\"]\nschedule = \"every 360d\"\n";
    let place = with_jobs(jobs);
    let done = run(&place, &["--json"]).exits(1);
    let ends: Vec<_> = done.objects().iter().map(|object| object["code"].clone()).collect();
    assert_eq!(ends, [1, 3, 0]);
    assert!(done.objects()[0]["message"].as_str().unwrap().contains("none of the sources exists"));
    // What failed is not tried again before its time, and what has entries that failed did run.
    run(&place, &[]).exits(0);
    write_jobs(&place, &jobs.replacen("\"every 360d\"\n", "\"every 360d\"\nretry-after = \"0\"\n", 1));
    run(&place, &[]).exits(1);
}

#[test]
fn a_log_is_shown_whole_if_something_went_wrong() {
    let place = with_jobs(
        "[jobs.a]\nsources = [\"{src}\"]\nschedule = \"every 360d\"\nhooks.before = \"echo from the hook\"\n",
    );
    let good = run(&place, &["--quiet-unless-error"]).exits(0);
    assert_eq!((good.out.as_str(), good.err.as_str()), ("", ""));
    write_jobs(
        &place,
        "[jobs.a]\nsources = [\"{src}\"]\nhooks.before = \"echo from the hook\"\n\
         [jobs.b]\nsources = [\"{here}/nowhere\"]\n",
    );
    let bad = run(&place, &["--quiet-unless-error", "a", "b"]).exits(1);
    assert!(bad.out.contains("a: done") && bad.out.contains("b: failed (exit code 1)"), "{bad:?}");
    assert!(bad.err.contains("from the hook") && bad.err.contains("none of the sources"), "{bad:?}");
    fs::write(place.path("config/lifeboat/lifeboat.toml"), "jobs = 1").unwrap();
    assert!(run(&place, &["--quiet-unless-error"]).exits(2).err.contains("configuration is wrong"));
}

#[test]
fn retention_forgets_and_prune_runs_when_it_is_due() {
    let place = with_jobs(
        "[jobs.web]\nsources = [\"{src}\"]\nretention = { last = 1 }\n[jobs.all]\nsources = [\"{src}\"]\n",
    );
    for _ in 0..3 {
        run(&place, &["web", "all"]).exits(0);
    }
    let jobs: Vec<_> = snapshots(&place).iter().map(|snapshot| snapshot["job"].clone()).collect();
    assert_eq!(jobs.iter().filter(|job| *job == "web").count(), 1);
    assert_eq!(jobs.iter().filter(|job| *job == "all").count(), 3);
    let last = run(&place, &["--json", "web"]).exits(0).last();
    assert_eq!((&last["kept"], &last["forgotten"]), (&1.into(), &1.into()));
    let file = fs::read_to_string(place.path("config/lifeboat/lifeboat.toml")).unwrap();
    configure(&place, &file.replace("key-file", "prune = { schedule = \"every 360d\" }\nkey-file"));
    let objects = run(&place, &["--json", "web"]).exits(0).objects();
    assert!(
        objects.len() == 2 && objects[1]["kind"] == "prune" && objects[1]["outcome"] == "done",
        "{objects:?}"
    );
    let objects = run(&place, &["--json", "web"]).exits(0).objects();
    assert_eq!(objects[1]["outcome"], "skipped");
}

#[test]
fn hooks_know_what_they_need_and_no_secret() {
    let hook = |name: &str| format!("{name} = \"env > {{here}}/{name}.env\"\n");
    let hooks: String = ["before", "after", "failed", "always"].map(hook).concat();
    let place = with_jobs(&format!("[jobs.web]\nsources = [\"{{src}}\"]\n[jobs.web.hooks]\n{hooks}"));
    let mut command = place.bare();
    command.env("LIFEBOAT_KEY_FILE", place.path("key")).env("AWS_SECRET_ACCESS_KEY", "hunter2");
    command.env("CREDENTIALS_DIRECTORY", "/x").env("KEPT", "yes").args(["run", "web"]);
    Run::of(command.output().unwrap()).exits(0);
    let env = |name: &str| fs::read_to_string(place.path(&format!("{name}.env"))).unwrap();
    for name in ["before", "after", "always"] {
        let text = env(name);
        for part in
            ["LIFEBOAT_JOB=web", "LIFEBOAT_REPOSITORY=main", &format!("LIFEBOAT_HOOK={name}"), "KEPT=yes"]
        {
            assert!(text.contains(part), "{name} lacks {part}: {text}");
        }
        for secret in ["hunter2", "LIFEBOAT_KEY_FILE", "CREDENTIALS_DIRECTORY"] {
            assert!(!text.contains(secret), "{name} has {secret}");
        }
    }
    let snapshot = snapshots(&place)[0]["id"].as_str().unwrap().to_owned();
    assert!(env("after").contains(&format!("LIFEBOAT_SNAPSHOT={snapshot}")));
    assert!(env("always").contains("LIFEBOAT_EXIT_CODE=0") && !place.path("failed.env").exists());
}

#[test]
fn a_hook_that_fails_before_skips_the_job_and_is_a_failure() {
    let jobs = "[jobs.web]\nsources = [\"{src}\"]\n[jobs.web.hooks]\nbefore = [\"true\", \"exit 7\", \"touch {here}/no\"]\n\
                after = \"touch {here}/after\"\nfailed = \"echo $LIFEBOAT_EXIT_CODE $LIFEBOAT_MESSAGE > {here}/failed\"\n\
                always = \"touch {here}/always\"\n";
    let place = with_jobs(jobs);
    let failed = run(&place, &["web"]).exits(1);
    assert!(failed.err.contains("the hook `before` ended with exit status: 7"), "{failed:?}");
    assert!(snapshots(&place).is_empty());
    assert!(!place.path("no").exists() && !place.path("after").exists() && place.path("always").exists());
    let told = fs::read_to_string(place.path("failed")).unwrap();
    assert!(told.starts_with("1 the hook `before` ended"), "{told}");
    // After the backup there is a snapshot, and so it is not nothing that was done.
    write_jobs(&place, "[jobs.web]\nsources = [\"{src}\"]\nhooks.after = \"false\"\n");
    run(&place, &["web"]).exits(3);
    assert_eq!(snapshots(&place).len(), 1);
}

#[test]
fn a_second_run_of_a_job_is_told_and_a_timer_passes_by() {
    let place = with_jobs(
        "[jobs.web]\nsources = [\"{src}\"]\nschedule = \"every 360d\"\n\
         hooks.before = \"touch {here}/began; while [ ! -e {here}/go ]; do sleep 0.05; done\"\n",
    );
    let first = place.bare().arg("run").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !place.path("began").exists() {
        std::thread::yield_now();
    }
    let second = run(&place, &["web"]).exits(11);
    assert!(second.err.contains("another run of backup web is at work"), "{second:?}");
    assert!(run(&place, &[]).exits(0).out.contains("web: skipped: another run"));
    fs::write(place.path("go"), b"").unwrap();
    Run::of(first.wait_with_output().unwrap()).exits(0);
    run(&place, &["--force", "web"]).exits(0);
    assert_eq!(snapshots(&place).len(), 2);
}

#[test]
fn a_run_that_is_stopped_or_killed_is_due_again() {
    for (signal, code) in [(Signal::TERM, Some(143)), (Signal::KILL, None)] {
        let place = with_jobs(
            "[jobs.web]\nsources = [\"{src}\"]\nschedule = \"every 360d\"\n\
             hooks.before = \"touch {here}/began; while [ ! -e {here}/go ]; do sleep 0.05; done\"\nhooks.always = \"touch {here}/always\"\n\
             [jobs.other]\nsources = [\"{src}\"]\nschedule = \"every 360d\"\n",
        );
        place.write("src/large", &noise(1 << 20, 9));
        let mut started = std::process::Command::new("env");
        started.arg("--default-signal=INT,TERM,HUP").arg(env!("CARGO_BIN_EXE_lifeboat")).arg("run");
        started.env("XDG_CONFIG_HOME", place.path("config")).env("XDG_STATE_HOME", place.path("state"));
        started.env("XDG_CACHE_HOME", place.path("cache"));
        started.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = started.spawn().unwrap();
        while !place.path("began").exists() {
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        if code.is_some() {
            let ended = child.wait_with_output().unwrap();
            assert_eq!(ended.status.code(), code, "{ended:?}");
            assert!(place.path("always").exists(), "what was set up is taken down");
        } else {
            // The hook lives on, and has the pipes.
            let mut child = child;
            child.wait().unwrap();
        }
        fs::write(place.path("go"), b"").unwrap();
        let again = run(&place, &[]).exits(0);
        assert!(again.out.contains("web: done") && again.out.contains("other: done"), "{again:?}");
        assert_eq!(snapshots(&place).len(), 2);
    }
}
