//! What is wrong with a file: where, what, and the way on.

use std::path::PathBuf;

use super::value::Origin;

/// The section of what stands in no table.
pub(super) const TOP: &str = "";

/// Something that is wrong at one place.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {kind}")]
pub(crate) struct Fault {
    pub(crate) origin: Origin,
    pub(crate) kind: FaultKind,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FaultKind {
    #[error("this is not TOML: {message}")]
    Syntax { message: String },
    #[error("{} knows no `{key}`{}", at(section), meant(nearest.as_deref()))]
    Unknown { section: String, key: String, nearest: Option<String> },
    #[error(
        "`{key}` in [{section}] would be a secret, and none belongs into this file: name a file with `key-file` or `password-file`, \
         a systemd credential with `key-credential` or `password-credential`, or a command with `password-command`"
    )]
    Secret { section: String, key: String },
    #[error(
        "the option `{key}` in [{section}] is a secret, or not known not to be one, and none belongs into this file: leave it to \
         the variables and files of the cloud's own tools, or name a file that holds it"
    )]
    SecretOption { section: String, key: String },
    #[error("`{key}` in {} must be {wanted}", at(section))]
    Shape { section: String, key: String, wanted: &'static str },
    #[error("`{key}` in [{section}]: {reason}")]
    Value { section: String, key: String, reason: String },
    #[error("[{section}] lacks `{key}`")]
    Missing { section: String, key: &'static str },
    #[error("[{section}] {what}")]
    Together { section: String, what: &'static str },
    #[error("[{section}] stands at {first}, too")]
    Twice { section: String, first: Origin },
    #[error("{name:?} cannot be a name: use letters, digits, and . _ - after the first, at most 64")]
    Name { name: String },
    #[error("there is no repository {name:?}{}", meant(nearest.as_deref()))]
    NoRepository { name: String, nearest: Option<String> },
    #[error("[{section}] does not say which repository; there are {count}")]
    WhichRepository { section: String, count: usize },
}

impl FaultKind {
    /// What was probably meant.
    pub(crate) fn nearest(&self) -> Option<&str> {
        match self {
            Self::Unknown { nearest, .. } | Self::NoRepository { nearest, .. } => nearest.as_deref(),
            _ => None,
        }
    }
}

/// Keys that stand in no table have no name for it.
fn at(section: &str) -> String {
    if section == TOP { "the file".to_owned() } else { format!("[{section}]") }
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; perhaps `{name}` is meant")).unwrap_or_default()
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
#[error("{} is not used, because {why}", path.display())]
pub(crate) struct Unsafe {
    pub(crate) path: PathBuf,
    pub(crate) why: String,
    /// The command that makes it right.
    pub(crate) fix: String,
}

/// The name that is most like this one, if one is: at most every third character differs.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let name = name.replace('_', "-");
    let near = known.into_iter().map(|known| (distance(&name, known), known)).min()?;
    (near.0 <= name.chars().count().clamp(3, 64) / 3).then(|| near.1.to_owned())
}

/// Characters to add, remove, replace or exchange with a neighbour, as counted by the optimal string alignment distance.
fn distance(one: &str, other: &str) -> usize {
    // Longer names are like none of ours.
    let one: Vec<char> = one.chars().take(64).collect();
    let other: Vec<char> = other.chars().take(64).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(a != b);
            let mut least = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found_and_nothing_else() {
        let known = ["exclude", "exclude-files", "schedule", "tags"];
        for (typed, meant) in [
            ("excludes", Some("exclude")),
            ("exlcude", Some("exclude")),
            ("exclude_files", Some("exclude-files")),
            ("tag", Some("tags")),
            ("shedule", Some("schedule")),
            ("compression", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, known).as_deref(), meant, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
