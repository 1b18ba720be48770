//! The default repository, and directories for state and cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Place, Run, damage_index};

#[test]
fn the_first_backup_makes_a_repository_and_names_it_and_its_key() {
    let place = Place::empty();
    place.write("src/a", b"x");
    let (repository, key) = (place.path("data/lifeboat/repo"), place.path("config/lifeboat/default.key"));
    let run = Run::of(place.bare().args(["backup", "src"]).output().unwrap()).exits(0);
    for path in [&repository, &key] {
        assert!(path.exists() && run.err.contains(path.to_str().unwrap()), "{run:?}");
    }
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let run = Run::of(place.bare().args(["backup", "src"]).output().unwrap()).exits(0);
    assert_eq!(run.err, "", "the second one has nothing to say");
    assert_eq!(run.out.lines().count(), 1);
    let run = Run::of(place.bare().args(["snapshots", "--json"]).output().unwrap()).exits(0);
    assert_eq!(run.objects().len(), 2);
}

#[test]
fn nothing_else_makes_the_default_repository() {
    let place = Place::empty();
    for args in
        [&["snapshots"][..], &["verify"], &["backup", "-n", "src"], &["backup", "src", "--exclude", "[z-a]"]]
    {
        assert_ne!(Run::of(place.bare().args(args).output().unwrap()).code, 0, "{args:?}");
    }
    assert!(!place.path("data").exists() && !place.path("config").exists());
}

#[test]
fn a_key_without_its_repository_is_no_reason_to_make_a_new_one() {
    let place = Place::empty();
    place.write("src/a", b"x");
    Run::of(place.bare().args(["backup", "-q", "src"]).output().unwrap()).exits(0);
    fs::rename(place.path("data"), place.path("unmounted")).unwrap();
    let run = Run::of(place.bare().args(["backup", "src"]).output().unwrap()).exits(10);
    assert!(run.err.contains("default.key") && !place.path("data").exists(), "{run:?}");
}

#[test]
fn without_a_home_the_option_is_named() {
    let place = Place::with_repository();
    let mut command = place.command();
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(variable);
    }
    command.args(["snapshots", "--no-cache"]);
    let run = Run::of(command.output().unwrap());
    if run.code == 0 {
        assert!(rustix::process::geteuid().is_root(), "root has places without a home");
        return;
    }
    assert!(run.exits(2).err.contains("--state-dir"));
    Run::of(command.args(["--state-dir", "s"]).output().unwrap()).exits(0);
}

#[test]
fn a_cache_that_cannot_be_made_does_not_stop_a_run() {
    let place = Place::with_repository();
    place.write("file", b"");
    place.run(["backup", "src", "--cache-dir", "file/cache"]).exits(0);
    place.run(["snapshots", "--cache-dir", "file/cache"]).exits(0);
}

/// Files of the cache are not synced: after a cut of the power one may be torn.
#[test]
fn a_damaged_index_on_this_machine_is_in_nobodys_way() {
    let place = Place::with_repository();
    (0..12_000).for_each(|n| place.write(&format!("many/{n}"), format!("file {n}").as_bytes()));
    place.run(["backup", "-q", "many"]).exits(0);
    let one = format!("latest:{}", place.path("many/77").display());
    for args in [
        &["restore", "latest", "--target", "restored"][..],
        &["cat", &one],
        &["forget", "latest", "--dry-run", "--allow-empty"],
        &["verify", "--data"],
    ] {
        damage_index(&place);
        // Who has no way to begin anew says so, and has removed what was damaged.
        let judges = args[0] == "forget";
        let run = place.run(args).exits(i32::from(judges));
        assert_eq!(run.err.contains("run it again"), judges, "{run:?}");
        place.run(args).exits(0);
    }
    assert_eq!(place.run(["cat", &one]).exits(0).out, "file 77");
}
