//! `run`: jobs of the configuration, as cron starts them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::configuring::{configure, repository};
use crate::support::{Place, Run, damage, is_gone, noise, pid, until};

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

pub(crate) fn record(place: &Place, name: &str) -> PathBuf {
    let begin = format!("backup-{name}-");
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap();
        file.starts_with(&begin) && file.ends_with(".json")
    };
    let runs = fs::read_dir(place.path("state/lifeboat/runs")).unwrap();
    runs.map(|entry| entry.unwrap().path()).find(is_it).unwrap()
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
        let mut started = Command::new("env");
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

#[test]
fn without_a_whole_source_nothing_is_forgotten_and_status_says_so() {
    let jobs = "[jobs.web]\nsources = [\"{src}\", \"{here}/other\"]\nschedule = \"every 360d\"\nretention = { last = 1 }\n";
    let place = with_jobs(jobs);
    place.write("other/data", b"what counts");
    run(&place, &[]).exits(0);
    fs::rename(place.path("other"), place.path("away")).unwrap();
    for _ in 0..2 {
        let run = run(&place, &["--force"]).exits(3);
        assert!(run.out.contains("other: the source is not there, so nothing is forgotten"), "{run:?}");
    }
    assert_eq!(snapshots(&place).len(), 3);
    let status = Run::of(place.bare().arg("status").output().unwrap()).exits(5);
    assert!(status.out.contains("missed: web: the last run failed with exit code 3"), "{status:?}");
    fs::rename(place.path("away"), place.path("other")).unwrap();
    run(&place, &["--force"]).exits(0);
    assert_eq!(snapshots(&place).len(), 1);
    Run::of(place.bare().arg("status").output().unwrap()).exits(0);
}

#[test]
fn a_job_of_this_name_elsewhere_has_not_run() {
    let place = with_jobs(DAILY);
    run(&place, &[]).exits(0);
    let file = fs::read_to_string(place.path("config/lifeboat/lifeboat.toml")).unwrap();
    place.write("config/lifeboat/other.toml", file.as_bytes());
    configure(&place, &file);
    let other = place.path("config/lifeboat/other.toml");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let of_other = run(&place, &["--config", other.to_str().unwrap()]).exits(0);
    assert!(of_other.out.contains("web: done"), "{of_other:?}");
    assert!(run(&place, &[]).exits(0).out.contains("web: skipped"));
    fs::rename(place.path("repo"), place.path("moved")).unwrap();
    configure(&place, &file.replace("/repo\"", "/moved\""));
    assert!(run(&place, &[]).exits(0).out.contains("web: done"));
}

#[test]
fn a_repository_is_not_pruned_until_its_jobs_end_well() {
    let place = with_jobs("[jobs.a]\nsources = [\"{here}/nowhere\"]\nschedule = \"every 360d\"\n");
    let file = fs::read_to_string(place.path("config/lifeboat/lifeboat.toml")).unwrap();
    configure(&place, &file.replace("key-file", "prune = { schedule = \"every 360d\" }\nkey-file"));
    for code in [1, 0] {
        let objects = run(&place, &["--json"]).exits(code).objects();
        assert_eq!(objects[1]["outcome"], "skipped", "{objects:?}");
        assert!(objects[1]["reason"].as_str().unwrap().contains("job a did not end well"), "{objects:?}");
    }
    place.write("nowhere/x", b"x");
    run(&place, &["--force", "a"]).exits(0);
    assert!(run(&place, &[]).exits(0).out.contains("prune of main: skipped: not due"));
}

#[test]
fn a_repository_that_no_job_saves_to_is_pruned() {
    let place = Place::with_repository();
    let file = repository(&place, "main", "repo");
    configure(&place, &format!("{file}prune = {{ schedule = \"every 360d\" }}\n"));
    Run::of(place.bare().arg("status").output().unwrap()).exits(5);
    assert!(run(&place, &[]).exits(0).out.contains("prune of main: done"));
    Run::of(place.bare().arg("status").output().unwrap()).exits(0);
    Run::of(place.bare().args(["schedule", "install", "--cron"]).output().unwrap()).exits(0);
    configure(&place, &file);
    assert!(run(&place, &[]).exits(2).err.contains("no job to run"));
}

#[test]
fn a_job_that_ends_the_process_each_time_keeps_no_other_from_running() {
    let place = with_jobs(
        "[jobs.a]\nsources = [\"{src}\"]\nschedule = \"every 360d\"\nhooks.before = \"kill -9 $PPID; sleep 1\"\n\
         [jobs.b]\nsources = [\"{src}\"]\nschedule = \"every 360d\"\n",
    );
    let killed = || assert_eq!(run(&place, &[]).code, -1);
    killed();
    assert!(snapshots(&place).is_empty());
    for _ in 0..2 {
        killed();
        assert_eq!(snapshots(&place).len(), 1);
        let status = Run::of(place.bare().arg("status").output().unwrap()).exits(5);
        assert!(status.out.contains("missed: a: no run ended well"), "{status:?}");
        assert!(!status.out.contains("missed: b"), "{status:?}");
    }
    // Without a schedule, too, what began should have ended.
    write_jobs(&place, "[jobs.c]\nsources = [\"{src}\"]\nhooks.before = \"kill -9 $PPID; sleep 1\"\n");
    Run::of(place.bare().arg("status").output().unwrap()).exits(0);
    assert_eq!(run(&place, &["c"]).code, -1);
    let status = Run::of(place.bare().arg("status").output().unwrap()).exits(5);
    assert!(status.out.contains("missed: c: the last run was interrupted"), "{status:?}");
}

#[test]
fn jobs_run_even_if_nobody_hears_of_it() {
    let place = with_jobs(&format!("{DAILY}{}", DAILY.replace("web", "db")));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let run = Run::of(place.bare().arg("run").stdout(full).output().unwrap()).exits(14);
    assert!(run.err.contains("No space left"), "{run:?}");
    assert_eq!(snapshots(&place).len(), 2);
}

#[test]
fn a_hook_that_does_not_end_is_ended() {
    let place = with_jobs(
        "[jobs.web]\nsources = [\"{src}\"]\n[jobs.web.hooks]\nbefore = \"sleep 600\"\ntimeout = \"1s\"\n\
         failed = \"touch {here}/failed\"\n",
    );
    let run = run(&place, &["web"]).exits(1);
    assert!(run.err.contains("the hook `before` took longer than 1s"), "{run:?}");
    assert!(place.path("failed").exists() && snapshots(&place).is_empty());
}

#[test]
fn a_second_signal_ends_the_hook_too() {
    let place = with_jobs(
        "[jobs.web]\nsources = [\"{src}\"]\n\
         hooks.before = \"trap '' TERM; echo $$ >{here}/pid; exec sleep 1000\"\n",
    );
    let mut child = place.start(["run", "web"]);
    until("the hook", || pid(&place.path("pid")).is_some());
    for _ in 0..2 {
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        // Two that wait together are one.
        pause("0.3");
    }
    // Not with its output, which the hook would hold open.
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let hook = pid(&place.path("pid")).unwrap();
    until("the end of the hook", || is_gone(hook));
}

fn pause(seconds: &str) {
    assert!(Command::new("sleep").arg(seconds).status().unwrap().success());
}

#[test]
fn a_store_that_shows_less_is_told_once_and_nothing_is_forgotten() {
    let place = with_jobs("[jobs.web]\nsources = [\"{src}\"]\nretention = { last = 1 }\n");
    run(&place, &["web"]).exits(0);
    for path in place.files("repo/snapshots") {
        fs::remove_file(path).unwrap();
    }
    let run = run(&place, &["web", "--json"]).exits(15);
    assert!(run.last()["snapshot"].is_string() && run.last()["kept"].is_null(), "{run:?}");
    assert_eq!(run.err.matches("the store lacks snapshots").count(), 1, "{run:?}");
}

#[test]
fn next_is_when_it_is_due_again_as_it_ended() {
    let place = with_jobs(
        "[jobs.web]\nsources = [\"{here}/nowhere\"]\nschedule = \"every 360d\"\nretry-after = \"1h\"\n",
    );
    let shown =
        || Run::of(place.bare().args(["schedule", "show", "--json"]).output().unwrap()).exits(0).last();
    for code in [1, 0] {
        // It failed, and then it is not yet tried again.
        let last = run(&place, &["--json"]).exits(code).last();
        assert!(last["next"].is_string() && last["next"] == shown()["next"], "{last}");
        assert!(last["ended"].is_null() || last["next"].as_str() > last["ended"].as_str(), "{last}");
    }
    // Nobody waits for what was stopped.
    let place = with_jobs(&format!("{DAILY}hooks.before = \"kill -TERM $PPID; sleep 600\"\n"));
    let last = run(&place, &["--json"]).exits(143).last();
    assert_eq!((&last["outcome"], &last["next"]), (&"stopped".into(), &last["ended"]), "{last}");
}

#[test]
fn damage_that_retention_or_prune_meets_is_named() {
    let place = with_jobs("[jobs.web]\nsources = [\"{src}\"]\nretention = { last = 5 }\n");
    for _ in 0..2 {
        run(&place, &["web"]).exits(0);
    }
    let first = snapshots(&place)[0]["id"].as_str().unwrap().to_owned();
    let object =
        place.files("repo/snapshots").into_iter().find(|path| path.to_str().unwrap().ends_with(&first));
    damage(&object.unwrap());
    // Where it is remembered it is not read again.
    fs::remove_dir_all(place.path("cache")).unwrap();
    let last = run(&place, &["web", "--json"]).exits(4).last();
    assert!(last["message"].as_str().unwrap().contains(&first), "{last}");

    // A pack that is none, and old.
    let place = with_jobs(DAILY);
    let file = fs::read_to_string(place.path("config/lifeboat/lifeboat.toml")).unwrap();
    let prune = "prune = { schedule = \"every 360d\", grace = \"1s\", undo-window = \"0s\" }\nkey-file";
    configure(&place, &file.replace("key-file", prune));
    let pack = format!("repo/packs/ee/{}", "ee".repeat(32));
    place.write(&pack, &[7; 5000]);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(place.path(&pack)).unwrap().set_modified(old).unwrap();
    run(&place, &[]).exits(0);
    // The grace has to pass.
    let mut runs = (0..20).map(|_| {
        pause("0.5");
        run(&place, &["--force", "--json"])
    });
    let found = runs.find(|run| run.code != 0).expect("damage").exits(4);
    let message = found.last()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("was condemned and left alone") && message.contains("eeee"), "{message}");
    assert!(found.err.contains("damage: packs/ee/"), "{found:?}");
}

#[test]
fn a_backup_by_hand_takes_nobodys_turn() {
    let place = with_jobs(DAILY);
    let wait =
        format!("touch {0}/began; while [ ! -e {0}/go ]; do sleep 0.05; done", place.path("").display());
    let mut hand = place.bare();
    hand.args(["backup", "--job", "web", "--as", "/x", "--command", "sh", "-c", &wait]);
    let hand = hand.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !place.path("began").exists() {
        std::thread::yield_now();
    }
    assert!(run(&place, &[]).exits(11).out.contains("web: busy"));
    fs::write(place.path("go"), b"").unwrap();
    Run::of(hand.wait_with_output().unwrap()).exits(0);
    assert!(run(&place, &[]).exits(0).out.contains("web: done"));
}

#[test]
fn a_token_is_not_shown_to_several_servers() {
    let place = Place::empty();
    let entry = |name: &str| format!("[repositories.{name}]\nlocation = \"https://{name}.invalid\"\n");
    configure(
        &place,
        &format!("{}{}[jobs.j]\nsources = [\"/x\"]\nrepository = \"a\"\n", entry("a"), entry("b")),
    );
    let given =
        Run::of(place.bare().env("LIFEBOAT_TOKEN", "hunter2").args(["run", "-n"]).output().unwrap()).exits(2);
    assert!(given.err.contains("LIFEBOAT_TOKEN would be sent to each https:// server"), "{given:?}");
    run(&place, &["-n"]).exits(0);
}
