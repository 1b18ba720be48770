//! The configuration: what is wrong with it is named, and what is right counts after options and environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::support::{Place, Run};

/// Writes the user's configuration, as nobody else may.
pub(crate) fn configure(place: &Place, text: &str) {
    place.write("config/lifeboat/lifeboat.toml", text.as_bytes());
    secure(place);
}

/// Takes from others what an unusual umask gave them.
fn secure(place: &Place) {
    for (name, mode) in
        [("config", 0o755), ("config/lifeboat", 0o755), ("config/lifeboat/lifeboat.toml", 0o644)]
    {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// The table of a repository in this place that opens with the key file.
pub(crate) fn repository(place: &Place, name: &str, at: &str) -> String {
    let (location, key) = (place.path(at), place.path("key"));
    format!(
        "[repositories.{name}]\nlocation = {:?}\nkey-file = {:?}\n",
        location.to_str().unwrap(),
        key.to_str().unwrap()
    )
}

fn bare(place: &Place, args: &[&str]) -> Run {
    Run::of(place.bare().args(args).output().unwrap())
}

#[test]
fn one_repository_in_the_file_needs_no_naming_and_several_do() {
    let place = Place::with_repository();
    configure(&place, &repository(&place, "main", "repo"));
    bare(&place, &["backup", "-q", "src"]).exits(0);
    assert_eq!(bare(&place, &["snapshots", "--json"]).exits(0).objects().len(), 1);
    assert_eq!(bare(&place, &["snapshots", "--json", "--repo", "main"]).exits(0).objects().len(), 1);
    let two = format!("{}{}", repository(&place, "main", "repo"), repository(&place, "second", "other"));
    configure(&place, &two);
    let run = bare(&place, &["snapshots"]).exits(2);
    assert!(run.err.contains("main, second") && run.err.contains("--repo"), "{run:?}");
    assert_eq!(bare(&place, &["snapshots", "--json", "-r", "main"]).exits(0).objects().len(), 1);
    bare(&place, &["snapshots", "-r", "second"]).exits(10);
    let mut named = place.bare();
    Run::of(named.env("LIFEBOAT_REPO", "main").arg("snapshots").output().unwrap()).exits(0);
}

#[test]
fn options_count_before_the_environment_and_that_before_the_file() {
    let place = Place::with_repository();
    let file = repository(&place, "main", "repo").replace("/key\"", "/no-such-key\"");
    configure(&place, &file);
    let run = bare(&place, &["snapshots"]).exits(2);
    assert!(run.err.contains("no-such-key"), "{run:?}");
    let with = |variable: &str, args: &[&str]| {
        Run::of(place.bare().env("LIFEBOAT_KEY_FILE", place.path(variable)).args(args).output().unwrap())
    };
    with("key", &["snapshots"]).exits(0);
    let shown = with("key", &["config", "show", "--effective", "--origins"]).exits(0).out;
    assert!(shown.contains("# LIFEBOAT_KEY_FILE") && !shown.contains("no-such-key"), "{shown}");
    with("nor-this", &["snapshots", "--key-file", "key"]).exits(0);
    assert!(with("nor-this", &["snapshots"]).exits(2).err.contains("nor-this"));
}

#[test]
fn a_credential_of_systemd_opens_it() {
    let place = Place::with_repository();
    let file = repository(&place, "main", "repo");
    let line = file.lines().find(|line| line.starts_with("key-file")).unwrap();
    configure(&place, &file.replace(line, "key-credential = \"backup\""));
    let run = bare(&place, &["snapshots"]).exits(2);
    assert!(run.err.contains("CREDENTIALS_DIRECTORY") && run.err.contains("LoadCredential"), "{run:?}");
    fs::create_dir(place.path("credentials")).unwrap();
    fs::copy(place.path("key"), place.path("credentials/backup")).unwrap();
    let mut command = place.bare();
    command.env("CREDENTIALS_DIRECTORY", place.path("credentials")).arg("snapshots");
    Run::of(command.output().unwrap()).exits(0);
}

#[test]
fn check_names_every_fault_by_line_and_the_way_on() {
    let place = Place::empty();
    assert!(bare(&place, &["config", "check"]).exits(0).out.contains("no configuration"));
    configure(
        &place,
        "[repositories.main]\nlocation = \"/r\"\npassword = \"hunter2\"\n\n[jobs.web]\nexcludes = []\n",
    );
    let run = bare(&place, &["config", "check"]).exits(2);
    for part in
        ["lifeboat.toml:3: ", "password-file", "lifeboat.toml:6: ", "`exclude` is meant", "lifeboat.toml:5: "]
    {
        assert!(run.err.contains(part), "{part}: {run:?}");
    }
    assert!(!run.err.contains("hunter2") && run.out.is_empty(), "{run:?}");
    let run = bare(&place, &["config", "check", "--json"]).exits(2);
    let faults: Vec<serde_json::Value> =
        run.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(faults.iter().any(|fault| fault["line"] == 6 && fault["nearest"] == "exclude"), "{faults:?}");
    // Whoever names all of it is not kept from a backup by a mistake in the file, and whoever does not is told.
    assert!(bare(&place, &["snapshots"]).exits(2).err.contains("and 2 more"));
    bare(&place, &["snapshots", "-r", "./nowhere"]).exits(10);
    configure(
        &place,
        "[repositories.main]\nlocation = \"/r\"\n[jobs.web]\nsources = [\"/x\"]\nexclude = [\"[z-a]\"]\n",
    );
    let run = bare(&place, &["config", "check"]).exits(2);
    assert!(run.err.contains("job web cannot run: ") && run.err.contains("[z-a]"), "{run:?}");
    configure(
        &place,
        "[repositories.main]\nlocation = \"/r\"\n[jobs.clock]\ncommand = [\"date\"]\nas = \"/\"\n",
    );
    let run = bare(&place, &["config", "check"]).exits(2);
    assert!(run.err.contains("job clock cannot run: / cannot be stored"), "{run:?}");
}

#[test]
fn what_others_may_write_is_refused_with_the_command_that_helps() {
    let place = Place::with_repository();
    configure(&place, &repository(&place, "main", "repo"));
    let file = place.path("config/lifeboat/lifeboat.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let run = bare(&place, &["snapshots"]).exits(2);
    assert!(run.err.contains("others may write it") && run.err.contains("chmod go-w"), "{run:?}");
    secure(&place);
    bare(&place, &["snapshots"]).exits(0);
    // Whoever may rename a directory above it may put another one in its place.
    fs::set_permissions(place.path("config"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(bare(&place, &["snapshots"]).exits(2).err.contains("others may write it"));
    secure(&place);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let own = |path: &Path, owner| std::os::unix::fs::chown(path, Some(owner), None).unwrap();
    own(&place.path("config"), 12345);
    assert!(bare(&place, &["snapshots"]).exits(2).err.contains("belongs to somebody else"));
    own(&place.path("config"), 0);
    bare(&place, &["snapshots"]).exits(0);
    own(&file, 12345);
    assert!(bare(&place, &["snapshots"]).exits(2).err.contains("because it belongs to somebody else"));
    let commands = format!("{}[jobs.x]\ncommand = [\"date\"]\n", repository(&place, "main", "repo"));
    fs::write(&file, commands).unwrap();
    let run = bare(&place, &["snapshots"]).exits(2);
    assert!(run.err.contains("names commands and belongs to somebody else"), "{run:?}");
}

#[test]
fn show_says_what_holds_and_where_it_comes_from() {
    let place = Place::with_repository();
    let job = "[jobs.web]\nsources = [\"/etc\"]\nretention = { daily = 7 }\n";
    configure(&place, &format!("{}{job}", repository(&place, "main", "repo")));
    let checked = bare(&place, &["config", "check"]).exits(0).out;
    assert_eq!(checked, "good: 1 file, 1 repository, 1 job\n");
    let plain = bare(&place, &["config", "show"]).exits(0).out;
    assert!(plain.contains("[jobs.web]\nsources = [\"/etc\"]\n") && !plain.contains("level"), "{plain}");
    // What is shown can be the file.
    configure(&place, &plain);
    assert_eq!(bare(&place, &["config", "show"]).exits(0).out, plain);
    let whole = bare(&place, &["config", "show", "--effective", "--origins"]).exits(0).out;
    for part in [
        "level = 1  # default",
        "repository = \"main\"",
        "daily = 7  # ",
        "lifeboat.toml:",
        "# schedule: only when",
    ] {
        assert!(whole.contains(part), "{part}: {whole}");
    }
    let objects = bare(&place, &["config", "show", "--json", "--effective"]).exits(0).objects();
    let level = objects.iter().find(|object| object["key"] == "level").unwrap();
    assert_eq!((&level["value"], &level["origin"]), (&json!(1), &json!("default")));
    let schema = bare(&place, &["config", "schema"]).exits(0).out;
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.schema.json");
    assert_eq!(schema, fs::read_to_string(published).unwrap());
}

#[test]
fn every_example_of_the_page_is_a_good_file() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let place = Place::empty();
        configure(&place, example);
        let run = bare(&place, &["config", "check"]);
        assert!(run.code == 0, "{example}\n{run:#?}");
        bare(&place, &["config", "show", "--effective"]).exits(0);
    }
}
