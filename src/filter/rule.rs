//! One rule: from a line of text to a glob, and sets of them.

use std::fmt;
use std::path::Path;

use globset::{Candidate, Glob, GlobBuilder, GlobSet};

use super::{FilterError, Place};

/// A rule as written, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleText {
    /// The pattern.
    pub pattern: String,
    /// Where it was read; `None` for an argument.
    pub place: Option<Place>,
}

impl fmt::Display for RuleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.pattern)?;
        match &self.place {
            Some(place) => write!(f, " ({}:{})", place.file.display(), place.line),
            None => Ok(()),
        }
    }
}

/// How the text of a rule is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) ignore_case: bool,
    /// Comments, blank lines and trailing white space are no part of a rule.
    pub(super) comments: bool,
    /// A slash inside a pattern ties it to the directory of its file.
    pub(super) inner_slash_anchors: bool,
}

impl Style {
    pub(super) const ARGUMENT: Self =
        Self { ignore_case: false, comments: false, inner_slash_anchors: false };
    pub(super) const FILE: Self = Self { comments: true, ..Self::ARGUMENT };
    pub(super) const DIRECTORY: Self = Self { inner_slash_anchors: true, ..Self::FILE };
}

#[derive(Debug)]
struct Rule {
    text: RuleText,
    glob: String,
    keeps: bool,
    dirs_only: bool,
}

/// Rules in order.
#[derive(Debug, Default)]
pub(super) struct RuleSetBuilder {
    globs: Vec<Glob>,
    rules: Vec<Rule>,
}

impl RuleSetBuilder {
    pub(super) fn add_lines(&mut self, file: &Path, text: &[u8], style: Style) -> Result<(), FilterError> {
        lines(text).try_for_each(|(line, number)| self.add(line, Some(place(file, number)), style))
    }

    pub(super) fn add_good_lines(&mut self, file: &Path, text: &[u8], style: Style) -> Vec<FilterError> {
        lines(text)
            .filter_map(|(line, number)| self.add(line, Some(place(file, number)), style).err())
            .collect()
    }

    pub(super) fn add(&mut self, line: &[u8], place: Option<Place>, style: Style) -> Result<(), FilterError> {
        let Ok(line) = str::from_utf8(line) else {
            let pattern = String::from_utf8_lossy(line).into_owned();
            return Err(FilterError::NotUtf8 { rule: RuleText { pattern, place } });
        };
        let line = if style.comments { significant(line) } else { line };
        if line.is_empty() && style.comments {
            return Ok(());
        }
        let mut rule = parse(line, style);
        rule.text.place = place;
        let bad = |reason: String| FilterError::BadPattern { rule: rule.text.clone(), reason };
        if rule.glob.is_empty() {
            return Err(bad("it is empty".to_owned()));
        }
        let glob = GlobBuilder::new(&rule.glob)
            .literal_separator(true)
            .backslash_escape(true)
            .case_insensitive(style.ignore_case)
            .build()
            .map_err(|error| bad(error.kind().to_string()))?;
        self.globs.push(glob);
        self.rules.push(rule);
        Ok(())
    }

    pub(super) fn build(self) -> Result<RuleSet, FilterError> {
        if self.rules.is_empty() {
            return Ok(RuleSet::default());
        }
        let count = self.rules.len();
        let set = GlobSet::new(self.globs).map_err(|_| FilterError::TooComplex { count })?;
        Ok(RuleSet { set, rules: self.rules })
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.split(|&byte| byte == b'\n').zip(1..)
}

fn place(file: &Path, line: usize) -> Place {
    Place { file: file.to_owned(), line }
}

/// A line of a file without comment and trailing white space; a backslash keeps one space.
fn significant(line: &str) -> &str {
    if line.starts_with('#') {
        return "";
    }
    let line = line.strip_suffix('\r').unwrap_or(line);
    let trimmed = line.trim_end();
    let kept = trimmed.ends_with('\\') && line[trimmed.len()..].starts_with(' ');
    if kept { &line[..=trimmed.len()] } else { trimmed }
}

fn parse(line: &str, style: Style) -> Rule {
    let text = RuleText { pattern: line.to_owned(), place: None };
    let (keeps, rest) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
    let rooted = rest.starts_with('/');
    let rest = rest.trim_start_matches('/');
    let dirs_only = rest.ends_with('/');
    let rest = rest.trim_end_matches('/');
    let tied = rooted || (style.inner_slash_anchors && rest.contains('/'));
    let mut glob = rest.to_owned();
    if !tied && !rest.is_empty() && !rest.starts_with("**/") && rest != "**" {
        glob.insert_str(0, "**/");
    }
    // `dir/**` means what is in the directory, not the directory; a plain glob would match both.
    if glob.ends_with("/**") {
        glob.push_str("/*");
    }
    Rule { text, glob, keeps, dirs_only }
}

/// Compiled rules of one origin.
#[derive(Debug, Default)]
pub struct RuleSet {
    set: GlobSet,
    rules: Vec<Rule>,
}

impl RuleSet {
    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// The last rule that matches; `path` counts from the root or the directory of the rules, a leading slash is fine.
    pub fn find(&self, path: &[u8], is_dir: bool) -> Option<usize> {
        if self.rules.is_empty() {
            return None;
        }
        let candidate = Candidate::from_bytes(path.strip_prefix(b"/").unwrap_or(path));
        let mut found = Vec::new();
        self.set.matches_candidate_into(&candidate, &mut found);
        found.into_iter().rev().find(|&rule| is_dir || !self.rules[rule].dirs_only)
    }

    /// Whether the rule begins with `!`.
    pub fn keeps(&self, rule: usize) -> bool {
        self.rules.get(rule).is_some_and(|rule| rule.keeps)
    }

    /// The rule as written.
    pub fn text(&self, rule: usize) -> Option<&RuleText> {
        self.rules.get(rule).map(|rule| &rule.text)
    }

    /// Whether some rule may match below the directory: `false` is certain, `true` is not.
    pub(super) fn may_match_below(&self, dir: &[u8]) -> bool {
        self.rules.iter().any(|rule| !rule.keeps && may_match_below(rule.glob.as_bytes(), dir))
    }
}

/// Compares part by part until the glob's first part with anything but letters in it.
fn may_match_below(glob: &[u8], dir: &[u8]) -> bool {
    let mut parts = dir.split(|&b| b == b'/').filter(|part| !part.is_empty());
    for want in glob.split(|&b| b == b'/') {
        // Upper and lower case may be the same to the rule, so only plain text in the same case is telling.
        if want.iter().any(|b| b"*?[]{}\\,".contains(b)) {
            return true;
        }
        match parts.next() {
            None => return true,
            Some(part) if part.eq_ignore_ascii_case(want) || !part.is_ascii() => {}
            Some(_) => return false,
        }
    }
    // The whole glob names a parent of the directory, and the directory itself did not match.
    false
}
