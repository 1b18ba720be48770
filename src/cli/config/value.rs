//! What a file says, each piece with the place where it stands.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::keys::{Key, Shape, Table};

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// The file.
    pub(crate) file: Arc<PathBuf>,
    /// The line, from one.
    pub(crate) line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What a key is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Flag(bool),
    Number(i64),
    List(Vec<String>),
    Pairs(Vec<(String, String)>),
    Section(Section),
}

impl Value {
    /// As JSON, which is also a TOML value unless it is a table.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Flag(flag) => (*flag).into(),
            Self::Number(number) => (*number).into(),
            Self::List(list) => list.as_slice().into(),
            Self::Pairs(pairs) => pairs
                .iter()
                .map(|(key, value)| (key.clone(), serde_json::Value::from(value.as_str())))
                .collect(),
            Self::Section(_) => serde_json::Value::Null,
        }
    }

    fn texts(&self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text.clone()],
            Self::Number(number) => vec![number.to_string()],
            Self::List(list) => list.clone(),
            Self::Flag(_) | Self::Pairs(_) | Self::Section(_) => Vec::new(),
        }
    }

    /// The arguments that it stands for under this option.
    pub(crate) fn arguments(&self, option: &str) -> Vec<OsString> {
        match self {
            Self::Flag(true) => vec![option.into()],
            _ => self.texts().into_iter().map(|text| format!("{option}={text}").into()).collect(),
        }
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// The keys of a table that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Section(pub(crate) BTreeMap<&'static str, Item>);

impl Section {
    /// The text of a key.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key).map(|item| &item.value) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The texts of a key; none if it is not set.
    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        self.0.get(key).map(|item| item.value.texts()).unwrap_or_default()
    }

    /// The pairs of a key.
    pub(crate) fn pairs(&self, key: &str) -> &[(String, String)] {
        match self.0.get(key).map(|item| &item.value) {
            Some(Value::Pairs(pairs)) => pairs,
            _ => &[],
        }
    }

    /// The table of a key.
    pub(crate) fn section(&self, key: &str) -> Option<&Self> {
        match self.0.get(key).map(|item| &item.value) {
            Some(Value::Section(section)) => Some(section),
            _ => None,
        }
    }

    /// The options of the command line that all these keys stand for.
    pub(crate) fn options(&self, table: &'static Table) -> Vec<OsString> {
        let set = table.keys.iter().filter_map(|key: &Key| Some((key.option?, self.0.get(key.name)?)));
        set.flat_map(|(option, item)| item.value.arguments(option)).collect()
    }

    /// Whether something here is run as a command.
    pub(crate) fn names_commands(&self) -> bool {
        let runs = |(name, item): (&'static str, &Item)| match &item.value {
            Value::Section(section) => name == "hooks" || section.names_commands(),
            Value::Pairs(pairs) => {
                pairs.iter().any(|(key, _)| key.contains("command") || key.contains("program"))
            }
            _ => matches!(name, "password-command" | "command"),
        };
        self.0.iter().any(|(name, item)| runs((*name, item)))
    }
}

/// A table that has a name of its own: a repository or a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) section: Section,
    pub(crate) origin: Origin,
}

/// What a shape is called in messages.
pub(crate) fn wanted(shape: Shape) -> &'static str {
    match shape {
        Shape::Text | Shape::Schedule | Shape::Time => "a text in quotes",
        Shape::Path => "an absolute path in quotes",
        Shape::Paths => "a list of absolute paths, such as [\"/etc\", \"/home\"]",
        Shape::List => "a list of texts, such as [\"a\", \"b\"]",
        Shape::Commands => "a command in quotes, or a list of them",
        Shape::Flag => "true or false",
        Shape::Number => "a number",
        Shape::Limit => "a number, or a text in quotes",
        Shape::Pairs | Shape::Table(_) => "a table",
    }
}
