//! What holds, and where it comes from.

use serde_json::Value as Json;

use super::super::environment::Surroundings;
use super::keys::{Key, SECTIONS, Shape, Table};
use super::value::{Item, Named, Section, Value};
use super::{Config, SECRET_KEYS};

/// Something that is set, or holds because nothing is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// `jobs.web.retention`.
    pub(crate) section: String,
    pub(crate) key: String,
    /// `None` where only words say what holds.
    pub(crate) value: Option<Json>,
    /// What holds, in words, if nothing is set.
    pub(crate) default: &'static str,
    /// `FILE:LINE`, the name of a variable, or `default`.
    pub(crate) origin: String,
}

/// All that the files set, in their order; with `effective` also what holds beside it: defaults, and variables of the
/// environment that count before the file.
pub(crate) fn settings(config: &Config, effective: bool, around: &Surroundings) -> Vec<Setting> {
    let mut out = Vec::new();
    for ((kind, table), all) in SECTIONS.iter().zip([&config.repositories, &config.jobs]) {
        for named in all {
            let path = format!("{kind}.{}", named.name);
            let before = out.len();
            section(&path, table, (&named.section, effective), &mut out);
            if !effective {
                continue;
            }
            if *kind == "jobs" {
                name_repository(config, named, &mut out[before..]);
            } else {
                by_environment(&path, around, &mut out);
            }
        }
    }
    out
}

fn section(
    path: &str,
    table: &'static Table,
    (section, effective): (&Section, bool),
    out: &mut Vec<Setting>,
) {
    for key in table.keys {
        match (section.0.get(key.name), key.shape) {
            (Some(Item { value: Value::Section(inner), .. }), Shape::Table(table)) => {
                self::section(&format!("{path}.{}", key.name), table, (inner, effective), out);
            }
            (Some(item), _) => out.push(Setting {
                section: path.to_owned(),
                key: key.name.to_owned(),
                value: Some(item.value.json()),
                default: "",
                origin: item.origin.to_string(),
            }),
            (None, _) if effective => out.extend(default(path, key)),
            (None, _) => {}
        }
    }
}

fn default(path: &str, key: &'static Key) -> Option<Setting> {
    let plain = |text: &str| match key.shape {
        Shape::Number => text.parse::<i64>().ok().map(Json::from),
        Shape::Limit | Shape::Time => Some(text.into()),
        _ => None,
    };
    let flag = key.shape == Shape::Flag;
    if key.default.is_empty() && !flag {
        return None;
    }
    // Words are no value of the key.
    let value =
        if flag { Some(false.into()) } else { plain(key.default).filter(|_| !key.default.contains(' ')) };
    let (section, key_name) = (path.to_owned(), key.name.to_owned());
    Some(Setting { section, key: key_name, value, default: key.default, origin: "default".to_owned() })
}

fn name_repository(config: &Config, job: &Named, settings: &mut [Setting]) {
    let Ok(repository) = config.repository_of(job) else { return };
    for setting in settings.iter_mut().filter(|setting| setting.key == "repository") {
        setting.value = Some(repository.name.as_str().into());
    }
}

/// Variables count before the file where they say how a repository is opened.
fn by_environment(path: &str, around: &Surroundings, out: &mut Vec<Setting>) {
    let variables = [
        ("key-file", "LIFEBOAT_KEY_FILE"),
        ("password-file", "LIFEBOAT_PASSWORD_FILE"),
        ("password-command", "LIFEBOAT_PASSWORD_COMMAND"),
        ("words-file", "LIFEBOAT_WORDS_FILE"),
        // Its value is not shown.
        ("password", "LIFEBOAT_PASSWORD"),
    ];
    let set = variables.iter().find_map(|(key, name)| Some((*key, *name, around.get(name)?)));
    let Some((key, name, value)) = set else { return };
    out.retain(|setting| setting.section != path || !SECRET_KEYS.contains(&setting.key.as_str()));
    let value = (key != "password").then(|| value.to_string_lossy().into_owned().into());
    let setting = Setting {
        section: path.to_owned(),
        key: key.to_owned(),
        value,
        default: "a password that is not shown",
        origin: name.to_owned(),
    };
    let at = out.iter().position(|setting| setting.section == path).map_or(out.len(), |first| first + 1);
    out.insert(at, setting);
}
