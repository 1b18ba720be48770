//! Text to values: a walk over what TOML says, by the tables of `keys`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::args::{Cli, duration};
use super::fault::{Fault, FaultKind, TOP, nearest};
use super::keys::{Key, SECRETS, SECTIONS, Shape, Table};
use super::value::{Item, Named, Origin, Section, Value, wanted};

/// What a file says, or all that is wrong with it.
pub(super) struct Reader<'a> {
    file: Arc<PathBuf>,
    text: &'a str,
    faults: Vec<Fault>,
}

/// What one file says: the tables of each of `SECTIONS`.
pub(super) type Said = [Vec<Named>; 2];

impl<'a> Reader<'a> {
    /// Reads the text of a file, and gives what can be understood of it and what is wrong.
    pub(super) fn read(file: PathBuf, text: &'a str) -> (Said, Vec<Fault>) {
        let mut reader = Self { file: Arc::new(file), text, faults: Vec::new() };
        let (document, errors) = DeTable::parse_recoverable(text);
        if let Some(error) = errors.first() {
            let at = error.span().map_or(0, |span| span.start);
            reader.fault(at, FaultKind::Syntax { message: error.message().to_owned() });
            return (Said::default(), reader.faults);
        }
        let mut said = Said::default();
        for (key, value) in document.get_ref() {
            let name = key.get_ref().as_ref();
            let Some(at) = SECTIONS.iter().position(|(section, _)| *section == name) else {
                let nearest = nearest(name, SECTIONS.iter().map(|(section, _)| *section));
                let kind = FaultKind::Unknown { section: TOP.to_owned(), key: name.to_owned(), nearest };
                reader.fault(key.span().start, kind);
                continue;
            };
            said[at] = reader.all(SECTIONS[at], value);
        }
        (said, reader.faults)
    }

    fn fault(&mut self, at: usize, kind: FaultKind) {
        let origin = self.origin(at);
        self.faults.push(Fault { origin, kind });
    }

    fn origin(&self, at: usize) -> Origin {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Origin { file: Arc::clone(&self.file), line }
    }

    /// `[repositories]` or `[jobs]`: tables by name.
    fn all(&mut self, (kind, table): (&str, &'static Table), value: &Spanned<DeValue<'_>>) -> Vec<Named> {
        let DeValue::Table(tables) = value.get_ref() else {
            let (section, key) = (TOP.to_owned(), kind.to_owned());
            self.fault(
                value.span().start,
                FaultKind::Shape { section, key, wanted: "a table of tables by name" },
            );
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, value) in tables {
            let name = key.get_ref().to_string();
            let at = key.span().start;
            if !is_name(&name) {
                self.fault(at, FaultKind::Name { name });
                continue;
            }
            let path = format!("{kind}.{name}");
            if let Some(section) = self.section(&path, table, (at, value)) {
                found.push(Named { name, section, origin: self.origin(at) });
            }
        }
        found
    }

    fn section(
        &mut self,
        path: &str,
        table: &'static Table,
        (at, value): (usize, &Spanned<DeValue<'_>>),
    ) -> Option<Section> {
        let DeValue::Table(entries) = value.get_ref() else {
            let (section, key) = path.rsplit_once('.').unwrap_or((TOP, path));
            let (section, key) = (section.to_owned(), key.to_owned());
            self.fault(at, FaultKind::Shape { section, key, wanted: "a table" });
            return None;
        };
        let mut items = BTreeMap::new();
        for (name, value) in entries {
            let (typed, at) = (name.get_ref().as_ref(), name.span().start);
            let Some(key) = table.key(typed) else {
                self.unknown(path, table, (at, typed));
                continue;
            };
            if let Some(value) = self.value(path, key, (at, value)) {
                items.insert(key.name, Item { value, origin: self.origin(at) });
            }
        }
        for key in table.required.iter().filter(|key| !entries.contains_key(**key)) {
            self.fault(at, FaultKind::Missing { section: path.to_owned(), key });
        }
        let section = Section(items);
        self.check(path, table, &section);
        Some(section)
    }

    fn unknown(&mut self, path: &str, table: &'static Table, (at, typed): (usize, &str)) {
        let (section, key) = (path.to_owned(), typed.to_owned());
        let secret = SECRETS.contains(&typed.replace('_', "-").as_str()) && path.starts_with("repositories.");
        let kind = if secret {
            FaultKind::Secret { section, key }
        } else {
            FaultKind::Unknown {
                section,
                key,
                nearest: nearest(typed, table.keys.iter().map(|key| key.name)),
            }
        };
        self.fault(at, kind);
    }

    fn value(
        &mut self,
        path: &str,
        key: &'static Key,
        (at, value): (usize, &Spanned<DeValue<'_>>),
    ) -> Option<Value> {
        if let Shape::Table(table) = key.shape {
            return self.section(&format!("{path}.{}", key.name), table, (at, value)).map(Value::Section);
        }
        let found = shaped(key.shape, value.get_ref());
        if found.is_none() {
            let (section, key, wanted) = (path.to_owned(), key.name.to_owned(), wanted(key.shape));
            self.fault(at, FaultKind::Shape { section, key, wanted });
        }
        found
    }

    /// What a value must be beyond its shape: what the option says that it stands for, or its own kind.
    fn check(&mut self, path: &str, table: &'static Table, section: &Section) {
        for (name, item) in &section.0 {
            let Some(key) = table.key(name) else { continue };
            let reason = match (&item.value, key.option) {
                (value, Some(option)) => refused(table, value, option),
                (Value::Text(text), None) => match key.shape {
                    Shape::Schedule => {
                        text.parse::<lifeboat::schedule::Schedule>().err().map(|error| error.to_string())
                    }
                    Shape::Time => duration(text).err().map(str::to_owned),
                    _ => None,
                },
                _ => None,
            };
            if let Some(reason) = reason {
                let (section, key) = (path.to_owned(), (*name).to_owned());
                let origin = item.origin.clone();
                self.faults.push(Fault { origin, kind: FaultKind::Value { section, key, reason } });
            }
        }
    }
}

/// Why the command line would not take this value; `None` if it does.
fn refused(table: &'static Table, value: &Value, option: &'static str) -> Option<String> {
    let call = ["lifeboat"].into_iter().chain(table.call.iter().copied()).map(Into::into);
    let error = Cli::try_parse_from(call.chain(value.arguments(option))).err()?;
    Some(match std::error::Error::source(&error) {
        Some(source) => source.to_string(),
        None => error.kind().to_string(),
    })
}

fn text(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned).filter(|text| !text.is_empty() && !text.contains('\0'))
}

fn absolute(value: &DeValue<'_>) -> Option<String> {
    text(value).filter(|text| text.starts_with('/'))
}

fn list(value: &DeValue<'_>, each: fn(&DeValue<'_>) -> Option<String>) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|value| each(value.get_ref())).collect()
}

fn number(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn shaped(shape: Shape, value: &DeValue<'_>) -> Option<Value> {
    match shape {
        Shape::Text | Shape::Schedule | Shape::Time => text(value).map(Value::Text),
        Shape::Path => absolute(value).map(Value::Text),
        Shape::Paths => list(value, absolute).map(Value::List),
        Shape::List => list(value, text).map(Value::List),
        Shape::Commands => match text(value) {
            Some(command) => Some(Value::List(vec![command])),
            None => list(value, text).map(Value::List),
        },
        Shape::Flag => value.as_bool().map(Value::Flag),
        Shape::Number => number(value).map(Value::Number),
        Shape::Limit => number(value).map(Value::Number).or_else(|| text(value).map(Value::Text)),
        Shape::Pairs => {
            let pair = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((key.to_string(), text(value.get_ref())?))
            };
            value.as_table()?.iter().map(pair).collect::<Option<_>>().map(Value::Pairs)
        }
        Shape::Table(_) => None,
    }
}

/// A name that can stand in an argument, a file name and a unit.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}
