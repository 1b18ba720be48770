//! The answer of `why`, as text and as JSON.

use std::path::Path;

use lifeboat::filter::RuleText;
use lifeboat::format::node::{Node, NodeKind, Problem};
use lifeboat::ops::diff::Change;
use lifeboat::ops::snapshots::SnapshotFilter;
use lifeboat::ops::why::{Fate, LastSaved, Omission, Since, Why};
use lifeboat::units::ByteSize;
use serde_json::{Map, Value, json};

use super::super::observe::words;
use super::super::report::quote;
use super::history::{change_word, field_word};
use super::json::{put_bytes, put_list};
use super::{mode, sanitize, time};

/// Lines for a person. `filter` is that of the snapshots that count.
pub(crate) fn text(path: &Path, why: &Why, filter: &SnapshotFilter) -> String {
    let mut lines = vec![sanitize::path(path), fate(path, why)];
    match &why.saved {
        None => lines.push(in_none(why, filter)),
        Some(saved) => {
            let snapshot = &saved.snapshot;
            let newest = if saved.is_newest { "the newest snapshot" } else { "snapshot" };
            let (id, at) = (snapshot.id.short(), time::local(snapshot.snapshot.time));
            let what = saved.node.as_deref().map_or_else(String::new, what);
            lines.push(format!("last saved in {newest} {id} of {at}{what}"));
            if saved.is_dropped {
                lines.push("newer snapshots of what it was in do not hold it".to_owned());
            }
            lines.push(since(path, saved));
        }
    }
    lines.join("\n  ") + "\n"
}

fn in_none(why: &Why, filter: &SnapshotFilter) -> String {
    let hosts: Vec<_> = filter.hosts.iter().map(|host| sanitize::name(host.as_bytes())).collect();
    let limits = match (filter.jobs.is_empty(), filter.tags.is_empty()) {
        (true, true) => "",
        (false, true) => " with that job",
        (true, false) => " with that tag",
        (false, false) => " with that job and tag",
    };
    let readable = if why.damaged == 0 { "" } else { " that can be read" };
    format!("it is in no snapshot of {}{limits}{readable}", hosts.join(", "))
}

fn what(node: &Node) -> String {
    let what = match node.kind {
        NodeKind::File => format!(", {}", ByteSize(node.size)),
        kind => format!(", a {}", mode::kind(kind).replace('_', " ")),
    };
    match node.problem {
        None => what,
        Some(Problem::Unreadable) if node.tree.is_some() => {
            format!("{what}: a part of it only, the rest could not be read then")
        }
        Some(Problem::Unreadable) => format!("{what}: its name only, it could not be read then"),
        Some(Problem::Changed) => format!("{what}: it changed while it was saved"),
    }
}

/// Whether nothing of it was saved but its name.
fn is_name_only(node: &Node) -> bool {
    node.problem == Some(Problem::Unreadable) && node.tree.is_none()
}

fn since(path: &Path, saved: &LastSaved) -> String {
    match &saved.since {
        Since::Unchanged => "as its size and times show, it has not changed since".to_owned(),
        Since::Changed(Change::Kind, _) => "it is something else now".to_owned(),
        Since::Changed(Change::Content, fields) if fields.is_empty() => {
            "its content has changed since".to_owned()
        }
        Since::Changed(change, fields) => {
            let what = if *change == Change::Content {
                "its content has changed since, and "
            } else {
                "changed since: "
            };
            let fields: Vec<_> = fields.iter().map(|field| field_word(*field)).collect();
            format!("{what}{}", fields.join(", "))
        }
        Since::Gone if saved.node.as_deref().is_some_and(is_name_only) => {
            "it is not there any more".to_owned()
        }
        Since::Gone => {
            let id = saved.snapshot.id.short();
            match path.to_str().filter(|text| sanitize::path(path) == **text) {
                Some(path) => {
                    let place = quote(&format!("{id}:{path}"));
                    format!(
                        "it is not there any more; to have it back: lifeboat restore {place} --target DIR"
                    )
                }
                None => format!("it is not there any more; snapshot {id} has it"),
            }
        }
        Since::Unknown => "whether it has changed since cannot be told".to_owned(),
    }
}

fn fate(path: &Path, why: &Why) -> String {
    match &why.fate {
        Fate::Saved { way: false, empty: None } => "would be saved".to_owned(),
        Fate::Saved { way: true, .. } => {
            "would be saved, but of what is in it only what is asked for or included".to_owned()
        }
        Fate::Saved { empty: Some(omission), .. } => {
            format!("would be saved without what is in it: {}", because(omission))
        }
        Fate::LeftOut { at, omission } if at == path => format!("would be left out: {}", because(omission)),
        Fate::LeftOut { at, omission } => {
            format!("would be left out, because {} is: {}", sanitize::path(at), because(omission))
        }
        Fate::NoSource if why.sources.is_empty() => {
            "would not be saved: no source is known; name what is saved with --source".to_owned()
        }
        Fate::NoSource => {
            let sources: Vec<_> = why.sources.iter().map(|path| sanitize::path(path)).collect();
            format!("would not be saved: it is not in any source ({})", sources.join(", "))
        }
        Fate::Missing { at } if at == path => "does not exist".to_owned(),
        Fate::Missing { at } => format!("does not exist, because {} does not", sanitize::path(at)),
        Fate::Behind { at } => format!(
            "would not be saved: {} is no directory, and links are saved, not followed",
            sanitize::path(at)
        ),
        Fate::Unreadable(error) => format!("cannot be looked at: {}", words::chain(error)),
    }
}

fn because(omission: &Omission) -> String {
    match omission {
        Omission::Rule(rule) => match &rule.place {
            None => format!("the option {} excludes it", pattern(rule)),
            Some(place) => {
                format!(
                    "{} in line {} of {} excludes it",
                    pattern(rule),
                    place.line,
                    sanitize::path(&place.file)
                )
            }
        },
        Omission::IgnoreFile(rule) => match &rule.place {
            None => format!("{} of an ignore file excludes it", pattern(rule)),
            Some(place) => format!(
                "{} in line {} of the ignore file {} excludes it",
                pattern(rule),
                place.line,
                sanitize::path(&place.file)
            ),
        },
        Omission::NotIncluded => "no --include matches it".to_owned(),
        Omission::Cache => "its directory is tagged as a cache (--exclude-caches)".to_owned(),
        Omission::TooLarge { size, limit } => {
            let (size, limit) = (ByteSize(*size), ByteSize(*limit));
            format!("it has {size}, more than {limit} (--exclude-larger-than)")
        }
        Omission::OwnFiles => "it is the repository itself, or state or cache of this program".to_owned(),
        Omission::OtherFileSystem => "another file system is mounted there (--one-file-system)".to_owned(),
        Omission::KernelState => {
            "a file system of the kernel is mounted there, which is never saved unless it is a source"
                .to_owned()
        }
    }
}

fn pattern(rule: &RuleText) -> String {
    format!("\"{}\"", sanitize::name(rule.pattern.as_bytes()))
}

/// One object for programs.
pub(crate) fn object(path: &Path, why: &Why) -> Value {
    let mut out = Map::new();
    let (fate, at, omission, error) = parts(&why.fate);
    let rule = omission.and_then(rule);
    for (key, value) in [
        ("type", json!("why")),
        ("fate", json!(fate)),
        ("reason", json!(omission.map(reason))),
        ("rule", json!(rule.map(|rule| &rule.pattern))),
        ("rule_line", json!(rule.and_then(|rule| Some(rule.place.as_ref()?.line)))),
        ("error", json!(error)),
        ("saved", why.saved.as_ref().map_or(Value::Null, saved)),
        ("damaged", json!(why.damaged)),
    ] {
        out.insert(key.to_owned(), value);
    }
    if let Some(place) = rule.and_then(|rule| rule.place.as_ref()) {
        put_bytes(&mut out, "rule_file", place.file.as_os_str().as_encoded_bytes());
    }
    if let Some(at) = at {
        put_bytes(&mut out, "at", at.as_os_str().as_encoded_bytes());
    }
    put_bytes(&mut out, "path", path.as_os_str().as_encoded_bytes());
    let bytes = |path: &std::path::PathBuf| path.as_os_str().as_encoded_bytes().to_vec();
    put_list(&mut out, "sources", &why.sources.iter().map(bytes).collect::<Vec<_>>());
    Value::Object(out)
}

fn parts(fate: &Fate) -> (&'static str, Option<&Path>, Option<&Omission>, Option<String>) {
    match fate {
        Fate::Saved { way, empty } => (if *way { "way" } else { "saved" }, None, empty.as_ref(), None),
        Fate::LeftOut { at, omission } => ("left_out", Some(at), Some(omission), None),
        Fate::NoSource => ("no_source", None, None, None),
        Fate::Missing { at } => ("missing", Some(at), None, None),
        Fate::Behind { at } => ("behind", Some(at), None, None),
        Fate::Unreadable(error) => ("unreadable", None, None, Some(words::chain(error))),
    }
}

fn reason(omission: &Omission) -> &'static str {
    match omission {
        Omission::Rule(_) => "rule",
        Omission::IgnoreFile(_) => "ignore_file",
        Omission::NotIncluded => "not_included",
        Omission::Cache => "cache",
        Omission::TooLarge { .. } => "too_large",
        Omission::OwnFiles => "own_files",
        Omission::OtherFileSystem => "other_file_system",
        Omission::KernelState => "kernel_state",
    }
}

fn rule(omission: &Omission) -> Option<&RuleText> {
    match omission {
        Omission::Rule(rule) | Omission::IgnoreFile(rule) => Some(rule),
        _ => None,
    }
}

fn saved(saved: &LastSaved) -> Value {
    let (since, change, fields) = match &saved.since {
        Since::Unchanged => ("unchanged", None, Vec::new()),
        Since::Changed(change, fields) => ("changed", Some(change_word(*change)), fields.clone()),
        Since::Gone => ("gone", None, Vec::new()),
        Since::Unknown => ("unknown", None, Vec::new()),
    };
    let node = saved.node.as_deref();
    let fields: Vec<_> = fields.into_iter().map(field_word).collect();
    json!({
        "snapshot": saved.snapshot.id.to_string(),
        "time": time::utc(saved.snapshot.snapshot.time),
        "newest": saved.is_newest,
        "dropped": saved.is_dropped,
        "kind": node.map(|node| mode::kind(node.kind)),
        "size": node.filter(|node| node.kind == NodeKind::File).map(|node| node.size),
        "mtime": node.and_then(|node| time::utc_parts(node.mtime.seconds, node.mtime.nanos)),
        "since": since,
        "change": change,
        "fields": fields,
    })
}
