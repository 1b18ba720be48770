//! The reader held against its schema, and against what people write.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::{Value as Json, json};

use super::super::args::Cli;
use super::*;

fn read(text: &str) -> (Said, Vec<String>) {
    let (said, faults) = Reader::read(PathBuf::from("f.toml"), text);
    (said, faults.iter().map(ToString::to_string).collect())
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
}

fn load(directory: &Path, options: &[&str]) -> Result<Config, CliError> {
    let args = Cli::try_parse_from(["lifeboat", "stats"].into_iter().chain(options.iter().copied())).unwrap();
    let around = Surroundings::of(&[("XDG_CONFIG_HOME", directory.to_str().unwrap())]);
    Config::load(&args.global, &around)
}

const GOOD: &str = r#"
[repositories.main]
location = "s3://bucket/x"
key-file = "/etc/lifeboat/main.key"

[jobs.web]
sources = ["/etc", "/srv"]
exclude = ["*.tmp"]
schedule = "daily 02:30"
retention = { daily = 7, weekly = "unlimited" }
hooks.before = "mount /srv"
"#;

#[test]
fn a_good_file_is_understood() {
    let (said, faults) = read(GOOD);
    assert_eq!(faults, [""; 0]);
    let job = &said[1][0];
    assert_eq!((job.name.as_str(), job.origin.line), ("web", 6));
    assert_eq!(job.section.list("sources"), ["/etc", "/srv"]);
    assert_eq!(job.section.section("hooks").unwrap().list("before"), ["mount /srv"]);
    assert!(job.section.names_commands() && !said[0][0].section.names_commands());
    let retention = job.section.section("retention").unwrap().options(&RETENTION);
    assert_eq!(retention, ["--keep-daily=7", "--keep-weekly=unlimited"]);
}

#[test]
fn what_is_wrong_is_named_by_line_and_what_was_meant() {
    for (text, fault) in [
        (
            "[jobs.a]\nsources = [\"/x\"]\nexcludes = []\n",
            "f.toml:3: [jobs.a] knows no `excludes`; perhaps `exclude` is meant",
        ),
        ("[job.a]\n", "f.toml:1: the file knows no `job`; perhaps `jobs` is meant"),
        ("\n\n[jobs.a]\nlevel = 99\n", "f.toml:4: `level` in [jobs.a]: 99 is not in 1..=22"),
        ("[jobs.a]\nlevel = \"1\"\n", "f.toml:2: `level` in [jobs.a] must be a number"),
        ("[jobs.a]\nsources = \"/x\"\n", "must be a list of absolute paths"),
        ("[jobs.a]\nsources = [\"x\"]\n", "must be a list of absolute paths"),
        ("[jobs.a]\ntags = [\"\"]\n", "must be a list of texts"),
        ("[jobs.a]\nschedule = \"dayly\"\n", "f.toml:2: `schedule` in [jobs.a]: expected `every 6h`"),
        ("[jobs.a]\njitter = \"1w\"\n", "`jitter` in [jobs.a]: expected a time"),
        ("[jobs.a.retention]\ndaily = \"7x\"\n", "`daily` in [jobs.a.retention]: 'x' is no unit"),
        (
            "[jobs.a.retention]\ndialy = 7\n",
            "f.toml:2: [jobs.a.retention] knows no `dialy`; perhaps `daily` is meant",
        ),
        ("[jobs.a]\nretention = 7\n", "`retention` in [jobs.a] must be a table"),
        ("[jobs.\"a b\"]\n", "\"a b\" cannot be a name"),
        ("[jobs.\"../x\"]\n", "cannot be a name"),
        ("jobs = 1\n", "`jobs` in the file must be a table of tables"),
        ("[repositories.a]\n", "f.toml:1: [repositories.a] lacks `location`"),
        (
            "[repositories.a]\nlocation = \"/x\"\nprune = {}\n",
            "f.toml:3: [repositories.a.prune] lacks `schedule`",
        ),
        ("[repositories.a]\nlocation = \"/x\"\npassword = \"hunter2\"\n", "would be a secret"),
        ("\na = [\n", "f.toml:2: this is not TOML"),
        ("[jobs.a]\n[jobs.a]\n", "f.toml:2: this is not TOML"),
    ] {
        let (_, faults) = read(text);
        assert!(faults.iter().any(|found| found.contains(fault)), "{text:?}: {faults:?}");
        assert!(!faults.iter().any(|found| found.contains("hunter2")), "{faults:?}");
    }
}

#[test]
fn no_bytes_make_the_reader_fail() {
    for text in [
        "\u{0}",
        "[jobs.a]\nsources=[\"/\\u0000\"]",
        "[[jobs]]",
        "[jobs]\na=1",
        "jobs.a.b.c.d=1",
        "\u{feff}[jobs]",
    ] {
        read(text);
    }
    let deep = format!("jobs = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    read(&deep);
}

#[test]
fn tables_are_held_against_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lifeboat/lifeboat.toml");
    let faults = |text: &str| -> Vec<String> {
        write(&file, text);
        match load(dir.path(), &[]) {
            Ok(_) => Vec::new(),
            Err(CliError::Config { faults }) => faults.iter().map(ToString::to_string).collect(),
            Err(other) => panic!("{other}"),
        }
    };
    let main = "[repositories.main]\nlocation = \"/r\"\n";
    let job = "[jobs.a]\nsources = [\"/x\"]\n";
    assert_eq!(faults(&format!("{main}{job}")), [""; 0]);
    for (text, wanted) in [
        (job.to_owned(), "does not say which repository; there are 0"),
        (
            format!("{main}{job}repository = \"mian\""),
            "there is no repository \"mian\"; perhaps `main` is meant",
        ),
        (
            format!("{main}[repositories.b]\nlocation = \"/s\"\n{job}"),
            "does not say which repository; there are 2",
        ),
        (format!("{main}[jobs.a]\n"), "says nothing to save"),
        (format!("{main}{job}command = [\"ls\"]"), "both a `command` and files"),
        (format!("{main}key-file = \"/k\"\npassword-file = \"/p\""), "more than one key or password"),
        ("[repositories.a]\nlocation = \"x\"".to_owned(), "expected an absolute path"),
        ("[repositories.a]\nlocation = \"ftp://x\"".to_owned(), "`location` in [repositories.a]"),
        (format!("{main}options = {{ aws_secret_access_key = \"hunter2\" }}"), "is a secret"),
        (format!("{main}options = {{ azure_storage_master_key = \"hunter2\" }}"), "is a secret"),
        (format!("{main}options = {{ proxy_url = \"http://me:hunter2@p\" }}"), "is a secret"),
        (format!("{main}{job}retention = {{}}"), "[jobs.a.retention] says nothing to keep"),
        (format!("{main}{job}retention = {{ tags = [] }}"), "says nothing to keep"),
        (format!("{main}key-credential = \"../x\""), "the name of a credential"),
    ] {
        let found = faults(&text);
        assert!(found.iter().any(|fault| fault.contains(wanted)), "{text}: {found:?}");
        assert!(!found.iter().any(|fault| fault.contains("hunter2")), "{found:?}");
    }
}

#[test]
fn drop_ins_are_read_in_order_and_replace_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("lifeboat");
    write(&base.join("lifeboat.toml"), "[repositories.main]\nlocation = \"/r\"\n");
    write(&base.join("conf.d/20.toml"), "[jobs.b]\nsources = [\"/b\"]\n");
    write(&base.join("conf.d/10.toml"), "[jobs.c]\nsources = [\"/c\"]\n");
    write(&base.join("conf.d/.hidden.toml"), "not = even\ntoml");
    write(&base.join("conf.d/readme"), "nor this");
    let config = load(dir.path(), &[]).unwrap();
    let names: Vec<_> = config.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!((names, config.files.len()), (vec!["c", "b"], 3));
    write(&base.join("conf.d/30.toml"), "[jobs.b]\nsources = [\"/other\"]\n");
    let error = load(dir.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("30.toml:1: [jobs.b] stands at") && error.contains("20.toml:1"), "{error}");
    let only = base.join("conf.d/10.toml");
    assert!(load(dir.path(), &["--config", only.to_str().unwrap()]).is_err(), "a job without its repository");
}

#[test]
fn what_others_may_write_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lifeboat/lifeboat.toml");
    write(&file, GOOD);
    for (path, mode, fine) in [
        (file.as_path(), 0o644, true),
        (&file, 0o664, false),
        (&file, 0o646, false),
        (&file, 0o600, true),
        (file.parent().unwrap(), 0o777, false),
        (file.parent().unwrap(), 0o775, false),
        (file.parent().unwrap(), 0o1777, true),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let result = load(dir.path(), &[]);
        assert_eq!(result.is_ok(), fine, "{} {mode:o}", path.display());
        assert!(fine || matches!(result, Err(CliError::UnsafeConfig(_))));
    }
}

#[test]
fn without_a_file_there_is_nothing_and_a_named_one_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    assert!(load(dir.path(), &[]).unwrap().files.is_empty());
    assert!(matches!(load(dir.path(), &["--config", "/no/such/file"]), Err(CliError::Read { .. })));
}

/// A TOML value of each type that JSON knows.
const SAMPLES: [(&str, &str); 7] = [
    ("string", "\"relative\""),
    ("string", "\"/absolute\""),
    ("string", "\"\""),
    ("integer", "3"),
    ("boolean", "true"),
    ("array", "[\"/a\"]"),
    ("object", "{ some = \"x\" }"),
];

fn json_of(sample: &str) -> Json {
    match sample {
        "{ some = \"x\" }" => json!({"some": "x"}),
        other => serde_json::from_str(other).unwrap(),
    }
}

/// As much of JSON Schema as ours uses.
fn accepts(schema: &Json, value: &Json) -> bool {
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().any(|schema| accepts(schema, value));
    }
    match (schema["type"].as_str().unwrap(), value) {
        ("string", Json::String(text)) => {
            let long = schema["minLength"].as_u64().is_none_or(|least| text.len() as u64 >= least);
            long && (schema["pattern"].is_null() || text.starts_with('/'))
        }
        ("integer", Json::Number(_)) | ("boolean", Json::Bool(_)) => true,
        ("array", Json::Array(items)) => items.iter().all(|item| accepts(&schema["items"], item)),
        ("object", Json::Object(pairs)) => {
            pairs.iter().all(|(key, value)| match schema["properties"].get(key) {
                Some(schema) => accepts(schema, value),
                None => {
                    schema["additionalProperties"].is_object()
                        && accepts(&schema["additionalProperties"], value)
                }
            })
        }
        _ => false,
    }
}

#[test]
fn the_schema_accepts_what_the_reader_does_in_every_key() {
    let schema = schema();
    for (kind, table) in keys::SECTIONS {
        let each = &schema["properties"][kind]["patternProperties"]["^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"];
        for (path, table, each) in tables(kind, table, each) {
            assert_eq!(each["properties"].as_object().unwrap().len(), table.keys.len());
            for key in table.keys.iter().filter(|key| !matches!(key.shape, keys::Shape::Table(_))) {
                for (_, sample) in SAMPLES {
                    let (_, faults) = read(&format!("[{path}]\n{} = {sample}\n", key.name));
                    let refused = faults.iter().any(|fault| fault.contains(" must be "));
                    let accepted = accepts(&each["properties"][key.name], &json_of(sample));
                    assert_eq!(accepted, !refused, "{path}.{} = {sample}: {faults:?}", key.name);
                }
            }
        }
    }
}

/// A table, and those within it, with their schemas.
fn tables<'a>(
    kind: &str,
    table: &'static keys::Table,
    schema: &'a Json,
) -> Vec<(String, &'static keys::Table, &'a Json)> {
    let mut found = vec![(format!("{kind}.x"), table, schema)];
    for key in table.keys {
        if let keys::Shape::Table(inner) = key.shape {
            found.push((format!("{kind}.x.{}", key.name), inner, &schema["properties"][key.name]));
        }
    }
    found
}

#[test]
fn the_published_schema_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.schema.json");
    let text = format!("{:#}\n", schema());
    if std::env::var_os("LIFEBOAT_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "LIFEBOAT_BLESS=1 writes it");
}

#[test]
fn every_option_of_the_table_is_one_of_its_verb() {
    for table in [&keys::REPOSITORY, &PRUNE, &VERIFY, &JOB, &RETENTION] {
        for key in table.keys {
            let Some(option) = key.option else { continue };
            let sample = match key.shape {
                keys::Shape::Flag => option.to_owned(),
                keys::Shape::Time => format!("{option}=1h"),
                keys::Shape::Path | keys::Shape::Paths => format!("{option}=/x"),
                _ => format!(
                    "{option}={}",
                    match key.name {
                        "within" => "1y",
                        "sqlite" => "off",
                        _ => "5",
                    }
                ),
            };
            let call = ["lifeboat"].into_iter().chain(table.call.iter().copied()).chain([sample.as_str()]);
            assert!(Cli::try_parse_from(call).is_ok(), "{sample}");
        }
    }
}

#[test]
fn the_page_tells_of_every_key() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = fs::read_to_string(page).unwrap();
    for (kind, table) in keys::SECTIONS {
        for (path, table, _) in tables(kind, table, &Json::Null) {
            for key in table.keys {
                assert!(page.contains(&format!("`{}`", key.name)), "{path}.{}", key.name);
            }
        }
    }
}
