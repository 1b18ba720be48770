//! `schedule` and what `status` knows of jobs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::configuring::{configure, repository};
use crate::jobs::record;
use crate::support::{Place, Run};

fn bare(place: &Place, args: &[&str]) -> Run {
    Run::of(place.bare().args(args).output().unwrap())
}

fn with_job(more: &str) -> Place {
    let place = Place::with_repository();
    let src = place.path("src");
    let job =
        format!("[jobs.web]\nsources = [{:?}]\nschedule = \"every 360d\"\n{more}", src.to_str().unwrap());
    configure(&place, &format!("{}{job}", repository(&place, "main", "repo")));
    place
}

#[test]
fn units_are_written_and_taken_away_and_nobody_elses_is_touched() {
    let place = with_job("");
    let dry = bare(&place, &["schedule", "install", "--dry-run"]).exits(0).out;
    assert!(dry.contains("/etc/systemd/system/lifeboat.timer") && dry.contains("Persistent=true"), "{dry}");
    let own = bare(&place, &["schedule", "install", "--dry-run", "--user"]).exits(0).out;
    assert!(own.contains("ExecStart=/") && !own.contains("User="), "{own}");
    bare(&place, &["schedule", "install", "--into", "units"]).exits(0);
    let read = |name: &str| fs::read_to_string(place.path(&format!("units/{name}"))).unwrap();
    let service = read("lifeboat.service");
    for part in [
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "User=root\n",
        "ExecStart=/",
        &format!("ReadWritePaths=-{}", place.path("repo").display()),
    ] {
        assert!(service.contains(part), "{part}: {service}");
    }
    assert!(read("lifeboat.timer").contains("WantedBy=timers.target"));
    bare(&place, &["schedule", "install", "--into", "units"]).exits(0);
    assert!(
        bare(&place, &["schedule", "remove", "--into", "units", "-n"]).exits(0).out.contains("would remove")
    );
    place.write("units/lifeboat.timer", b"[Timer]\n");
    bare(&place, &["schedule", "install", "--into", "units"]).exits(7);
    bare(&place, &["schedule", "remove", "--into", "units"]).exits(7);
    fs::remove_file(place.path("units/lifeboat.timer")).unwrap();
    bare(&place, &["schedule", "remove", "--into", "units"]).exits(0);
    assert!(!place.path("units/lifeboat.service").exists());
    let cron = bare(&place, &["schedule", "install", "--cron"]).exits(0).out;
    let state = place.path("state/lifeboat");
    for part in
        ["*/5 * * * * XDG_CONFIG_HOME=/", &format!(" run --state-dir {} --cache-dir /", state.display())]
    {
        assert!(cron.contains(part), "{part}: {cron}");
    }
    assert!(cron.trim_end().ends_with(" --quiet-unless-error"), "{cron}");
    configure(&place, &repository(&place, "main", "repo"));
    assert!(bare(&place, &["schedule", "install", "--cron"]).exits(2).err.contains("no job"));
}

/// As after a removal that was interrupted, or by hand.
#[test]
fn a_service_without_its_timer_is_taken_away() {
    let place = with_job("");
    bare(&place, &["schedule", "install", "--user", "--into", "config/systemd/user"]).exits(0);
    place.write(
        "bin/systemctl",
        b"#!/bin/sh\necho \"$@\" >>\"$HOME/calls\"\ncase \"$*\" in *disable*) test -e \"$XDG_CONFIG_HOME/systemd/user/$4\" ;; esac\n",
    );
    fs::set_permissions(place.path("bin/systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    let remove = || {
        let mut command = place.bare();
        let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).args(["schedule", "remove", "--user"]);
        Run::of(command.output().unwrap()).exits(0);
        fs::read_to_string(place.path("home/calls")).unwrap()
    };
    fs::remove_file(place.path("config/systemd/user/lifeboat.timer")).unwrap();
    assert_eq!(remove(), "--user daemon-reload\n");
    assert!(!place.path("config/systemd/user/lifeboat.service").exists());
    bare(&place, &["schedule", "install", "--user", "--into", "config/systemd/user"]).exits(0);
    assert!(remove().ends_with("--user disable --now lifeboat.timer\n--user daemon-reload\n"));
    assert!(place.files("config/systemd").is_empty());
}

#[test]
fn a_configuration_with_commands_gets_a_service_that_may_run_them() {
    let place = with_job("hooks.before = \"true\"\n");
    let file = fs::read_to_string(place.path("config/lifeboat/lifeboat.toml")).unwrap();
    let key = file.lines().find(|line| line.starts_with("key-file")).unwrap();
    configure(&place, &file.replace(key, "key-credential = \"backup\""));
    let dry = bare(&place, &["schedule", "install", "--dry-run"]).exits(0).out;
    assert!(dry.contains("LoadCredential=backup") && dry.contains("UMask=0077"), "{dry}");
    assert!(!dry.contains("ProtectSystem"), "{dry}");
}

/// What systemd has to say of the units of this directory.
fn judged(place: &Place) -> String {
    let units: Vec<PathBuf> =
        ["lifeboat.service", "lifeboat.timer"].map(|name| place.path(&format!("units/{name}"))).into();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// systemd itself reads what is written, where it is installed.
#[test]
fn systemd_takes_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    for (more, user) in [("", false), ("hooks.before = \"true\"\n", false), ("", true)] {
        let place = with_job(more);
        let mut args = vec!["schedule", "install", "--into", "units"];
        args.extend(user.then_some("--user"));
        bare(&place, &args).exits(0);
        let said = judged(&place);
        assert!(!said.contains("lifeboat."), "{said}");
        // It would say so.
        let path = place.path("units/lifeboat.service");
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("UMask=", "UMusk=")).unwrap();
        assert!(judged(&place).contains("lifeboat.service"));
    }
}

#[test]
fn show_says_when_each_ran_and_runs_next() {
    let place = with_job("[jobs.byhand]\nsources = [\"/nowhere\"]\n");
    let shown = bare(&place, &["schedule", "show"]).exits(0).out;
    assert!(shown.contains("never ran") && shown.contains("now") && shown.contains("when named"), "{shown}");
    bare(&place, &["run"]).exits(0);
    let objects = bare(&place, &["schedule", "show", "--json"]).exits(0).objects();
    let web = &objects[0];
    assert_eq!(
        (&web["type"], &web["code"], &web["standing"]),
        (&json!("scheduled"), &json!(0), &json!("good"))
    );
    assert!(web["snapshot"].is_string() && web["next"].is_string() && web["at_work"] == false, "{web}");
}

#[test]
fn status_is_loud_about_a_job_that_did_not_run() {
    let place = with_job("");
    let run = bare(&place, &["status"]).exits(5);
    assert!(
        run.out.contains("missed: web: no run ended well that was due on 2") && run.out.contains("never ran"),
        "{run:?}"
    );
    bare(&place, &["run"]).exits(0);
    bare(&place, &["status"]).exits(0);
    let record = record(&place, "web");
    let good = fs::read(&record).unwrap();
    fs::write(&record, &good[1..]).unwrap();
    assert!(bare(&place, &["status"]).exits(5).out.contains("is damaged"));
    fs::write(&record, good).unwrap();
    bare(&place, &["status"]).exits(0);
    fs::rename(place.path("src"), place.path("gone")).unwrap();
    bare(&place, &["run", "--force"]).exits(1);
    let run = bare(&place, &["status", "--json"]).exits(5);
    let objects = run.objects();
    assert_eq!((&objects[0]["name"], &objects[0]["standing"]), (&json!("web"), &json!("failed")));
    assert_eq!(objects.last().unwrap()["missed"], 1);
    // A repository that cannot be opened keeps nobody from knowing.
    fs::rename(place.path("repo"), place.path("away")).unwrap();
    let run = bare(&place, &["status"]).exits(10);
    assert!(run.out.contains("missed: web: the last run failed with exit code 1"), "{run:?}");
}

#[test]
fn what_is_installed_depends_on_nothing_that_is_set_now() {
    let place = with_job("");
    let file = fs::read_to_string(place.path("config/lifeboat/lifeboat.toml")).unwrap();
    configure(&place, &file.replace("location = \"/", "location = \"file:///"));
    let mut command = place.bare();
    let config = place.path("config/lifeboat/lifeboat.toml");
    command
        .env("LIFEBOAT_CONFIG", &config)
        .env("LIFEBOAT_STATE_DIR", "kept")
        .env("LIFEBOAT_CACHE_DIR", "/var/c");
    command.args(["schedule", "install", "--into", "units"]);
    Run::of(command.output().unwrap()).exits(0);
    let service = fs::read_to_string(place.path("units/lifeboat.service")).unwrap();
    let call = format!(
        "--config {} --state-dir {} --cache-dir /var/c\n",
        config.display(),
        place.path("kept").display()
    );
    assert!(service.contains(&call), "{call}: {service}");
    assert!(service.contains(&format!("ReadWritePaths=-{}", place.path("repo").display())), "{service}");
    // What starts the jobs of another file is not replaced unseen.
    let other = bare(&place, &["schedule", "install", "--into", "units", "--no-cache"]).exits(7);
    assert!(other.err.contains("--cache-dir /var/c") && other.err.contains("schedule remove"), "{other:?}");
    assert_eq!(fs::read_to_string(place.path("units/lifeboat.service")).unwrap(), service);
    bare(&place, &["schedule", "remove", "--into", "units"]).exits(0);
    bare(&place, &["schedule", "install", "--into", "units", "--no-cache"]).exits(0);
    let service = fs::read_to_string(place.path("units/lifeboat.service")).unwrap();
    let base = format!("Environment=XDG_CONFIG_HOME={}\n", place.path("config").display());
    assert!(service.contains("--no-cache\n") && service.contains(&base), "{service}");
    for lost in [
        ["--key-file", "key"],
        ["--limit-upload", "1M"],
        ["--retry-for", "1h"],
        ["--workers", "2"],
        ["-o", "a=b"],
    ] {
        let run = bare(&place, &[&["schedule", "install", "--cron"], &lost[..]].concat()).exits(2);
        assert!(run.err.contains("would not hold for the jobs"), "{run:?}");
    }
}

#[test]
fn late_jobs_are_told_whatever_is_wrong_beside_them() {
    let place = with_job("");
    let file = fs::read_to_string(place.path("config/lifeboat/lifeboat.toml")).unwrap();
    let two = format!(
        "{}{}",
        repository(&place, "second", "other"),
        file.replace("schedule", "repository = \"main\"\nschedule")
    );
    configure(&place, &two);
    let run = bare(&place, &["status"]).exits(2);
    assert!(run.out.contains("missed: web: ") && run.err.contains("--repo"), "{run:?}");
    let key = file.lines().find(|line| line.starts_with("key-file")).unwrap();
    configure(&place, &file.replace(key, "key-credential = \"backup\""));
    let run = bare(&place, &["status", "--json"]).exits(2);
    assert_eq!(run.objects()[0]["standing"], "missed");
    // Who names the place needs no file.
    configure(&place, "jobs = 1\n");
    let run = place.run(["status"]).exits(0);
    assert!(run.err.contains("jobs are not looked at"), "{run:?}");
    let mut nobody = place.command();
    nobody.env("HOME", "/dev/null").env_remove("XDG_CONFIG_HOME").arg("status");
    Run::of(nobody.output().unwrap()).exits(0);
    let mut nobody = place.bare();
    nobody.env("HOME", "/dev/null").env_remove("XDG_CONFIG_HOME").args(["config", "check"]);
    assert!(Run::of(nobody.output().unwrap()).exits(0).out.contains("no configuration"));
}
