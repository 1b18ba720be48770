//! Include and exclude rules: which paths belong to a backup.
//!
//! A rule is a glob with the meaning it has in a `.gitignore` file: `*` and `?` do not cross a slash, `**` does, `!` in
//! front takes back an earlier rule, a slash at the end matches directories only, and the last rule that matches decides.
//! A pattern that starts with a slash is held against the whole path; any other one matches at every depth.
//!
//! # Invariants
//! Matching takes time linear in the path and the rules; no pattern can make it backtrack. A pattern that does not parse
//! is an error that names it and where it stands; it is never skipped.
//!
//! # Must not
//! Read files: the caller brings the bytes.

mod rule;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::class::Class;
pub use rule::{RuleSet, RuleText};
use rule::{RuleSetBuilder, Style};

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// A pattern is not a valid glob.
    #[error("{rule} is not a valid pattern: {reason}")]
    BadPattern {
        /// The pattern and where it stands.
        rule: RuleText,
        /// What is wrong with it.
        reason: String,
    },
    /// A pattern is not UTF-8.
    #[error("{rule} is not UTF-8")]
    NotUtf8 {
        /// The pattern, with replacement characters, and where it stands.
        rule: RuleText,
    },
    /// All patterns together are too large to compile.
    #[error("{count} patterns together are too complex")]
    TooComplex {
        /// How many there are.
        count: usize,
    },
}

impl FilterError {
    /// Always a mistake in arguments or configuration.
    pub fn class(&self) -> Class {
        Class::Usage
    }
}

/// What the exclude rules say of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No rule excludes it.
    Keep,
    /// It does not belong to the backup.
    Exclude {
        /// The rule that decided; [`Filter::rule`] describes it.
        rule: usize,
    },
}

/// What the include rules say of a path none of whose parents is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inclusion {
    /// It is included, and all below it.
    Included,
    /// It is not, but something below it may be.
    Leads,
    /// Neither it nor anything below it is.
    Outside,
}

/// Collects rules in order.
#[derive(Debug, Default)]
pub struct FilterBuilder {
    excludes: RuleSetBuilder,
    includes: RuleSetBuilder,
    ignore_file: Option<Vec<u8>>,
}

impl FilterBuilder {
    /// No rules: everything is kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one exclude pattern as given on a command line.
    pub fn exclude(&mut self, pattern: &[u8], ignore_case: bool) -> Result<&mut Self, FilterError> {
        self.excludes.add(pattern, None, Style { ignore_case, ..Style::ARGUMENT })?;
        Ok(self)
    }

    /// Adds the lines of a file of exclude patterns; `name` serves messages only.
    pub fn exclude_lines(
        &mut self,
        name: &Path,
        text: &[u8],
        ignore_case: bool,
    ) -> Result<&mut Self, FilterError> {
        self.excludes.add_lines(name, text, Style { ignore_case, ..Style::FILE })?;
        Ok(self)
    }

    /// Adds one include pattern. As soon as there is one, only what some include matches is kept.
    pub fn include(&mut self, pattern: &[u8], ignore_case: bool) -> Result<&mut Self, FilterError> {
        self.includes.add(pattern, None, Style { ignore_case, ..Style::ARGUMENT })?;
        Ok(self)
    }

    /// Adds the lines of a file of include patterns; `name` serves messages only.
    pub fn include_lines(
        &mut self,
        name: &Path,
        text: &[u8],
        ignore_case: bool,
    ) -> Result<&mut Self, FilterError> {
        self.includes.add_lines(name, text, Style { ignore_case, ..Style::FILE })?;
        Ok(self)
    }

    /// Names a file that, in whatever directory it stands, holds rules for that directory, as `.gitignore` does.
    pub fn ignore_file(&mut self, name: &[u8]) -> &mut Self {
        self.ignore_file = Some(name.to_vec());
        self
    }

    /// Compiles the rules.
    pub fn build(self) -> Result<Filter, FilterError> {
        let includes = self.includes.build()?;
        let hits = (0..includes.len()).map(|_| AtomicBool::new(false)).collect();
        Ok(Filter { excludes: self.excludes.build()?, includes, hits, ignore_file: self.ignore_file })
    }
}

/// Compiled rules, shared by all threads of a run.
#[derive(Debug, Default)]
pub struct Filter {
    excludes: RuleSet,
    includes: RuleSet,
    hits: Vec<AtomicBool>,
    ignore_file: Option<Vec<u8>>,
}

impl Filter {
    /// Whether no rule at all can exclude anything, so that paths need not even be put together.
    pub fn is_empty(&self) -> bool {
        self.excludes.is_empty() && self.includes.is_empty() && self.ignore_file.is_none()
    }

    /// What the exclude rules say of one absolute path. A parent's exclusion is the caller's to carry down.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> Verdict {
        match self.decide(path, is_dir) {
            Some(verdict) => verdict,
            None => Verdict::Keep,
        }
    }

    /// As [`Filter::matches`], but tells a path that a `!` rule keeps from one that no rule mentions (`None`).
    pub fn decide(&self, path: &[u8], is_dir: bool) -> Option<Verdict> {
        let rule = self.excludes.find(path, is_dir)?;
        Some(if self.excludes.keeps(rule) { Verdict::Keep } else { Verdict::Exclude { rule } })
    }

    /// Whether only what an include rule matches is kept.
    pub fn has_includes(&self) -> bool {
        !self.includes.is_empty()
    }

    /// What the include rules say of one absolute path; a rule that matches is remembered.
    pub fn inclusion(&self, path: &[u8], is_dir: bool) -> Inclusion {
        if self.includes.is_empty() {
            return Inclusion::Included;
        }
        if let Some(rule) = self.includes.find(path, is_dir) {
            if !self.includes.keeps(rule) {
                self.hits[rule].store(true, Ordering::Relaxed);
                return Inclusion::Included;
            }
            return Inclusion::Outside;
        }
        if is_dir && self.includes.may_match_below(path) { Inclusion::Leads } else { Inclusion::Outside }
    }

    /// The name of the per-directory rule files, if any.
    pub fn ignore_file_name(&self) -> Option<&[u8]> {
        self.ignore_file.as_deref()
    }

    /// The exclude rule with this number, as written.
    pub fn rule(&self, rule: usize) -> Option<&RuleText> {
        self.excludes.text(rule)
    }

    /// The include rules that have matched nothing so far, except `!` rules.
    pub fn never_matched(&self) -> Vec<&RuleText> {
        let unmatched = self.hits.iter().enumerate().filter(|(_, hit)| !hit.load(Ordering::Relaxed));
        unmatched
            .filter(|(rule, _)| !self.includes.keeps(*rule))
            .filter_map(|(rule, _)| self.includes.text(rule))
            .collect()
    }
}

/// Compiles the rules of a file that stands in a directory, as `.gitignore` does; they match paths relative to it. What
/// does not compile is returned beside the rest, because one bad line must not switch the others off.
pub fn directory_rules(file: &Path, text: &[u8]) -> (RuleSet, Vec<FilterError>) {
    let mut builder = RuleSetBuilder::default();
    let mut errors = builder.add_good_lines(file, text, Style::DIRECTORY);
    let rules = builder.build().unwrap_or_else(|error| {
        errors.push(error);
        RuleSet::default()
    });
    (rules, errors)
}

/// Where a rule was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from one.
    pub line: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn excludes(patterns: &[&str]) -> Filter {
        let mut builder = FilterBuilder::new();
        for pattern in patterns {
            builder.exclude(pattern.as_bytes(), false).unwrap();
        }
        builder.build().unwrap()
    }

    fn out(filter: &Filter, path: &str, is_dir: bool) -> bool {
        filter.matches(path.as_bytes(), is_dir) != Verdict::Keep
    }

    #[test]
    fn patterns_mean_what_gitignore_says() {
        let cases: &[(&str, &str, bool, bool)] = &[
            ("*.o", "/src/main.o", false, true),
            ("*.o", "/src/main.c", false, false),
            ("cache", "/home/a/cache", true, true),
            ("cache/", "/home/a/cache", false, false),
            ("cache/", "/home/a/cache", true, true),
            ("/home/a", "/home/a", true, true),
            ("/home/a", "/x/home/a", true, false),
            ("a/b", "/x/a/b", false, true),
            ("/home/*/tmp", "/home/a/b/tmp", true, false),
            ("/home/**/tmp", "/home/a/b/tmp", true, true),
            ("/home/**", "/home", true, false),
            ("/home/**", "/home/a", true, true),
            ("[ab]?", "/x/b1", false, true),
            ("\\!keep", "/x/!keep", false, true),
            ("#note", "/x/#note", false, true),
        ];
        for &(pattern, path, is_dir, expected) in cases {
            assert_eq!(out(&excludes(&[pattern]), path, is_dir), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let filter = excludes(&["*.log", "!keep.log", "/var/keep.log"]);
        assert_eq!(filter.matches(b"/a/x.log", false), Verdict::Exclude { rule: 0 });
        assert_eq!(filter.decide(b"/a/keep.log", false), Some(Verdict::Keep));
        assert_eq!(filter.matches(b"/var/keep.log", false), Verdict::Exclude { rule: 2 });
        assert_eq!(filter.decide(b"/a/x", false), None);
        assert_eq!(filter.rule(2).unwrap().pattern, "/var/keep.log");
    }

    #[test]
    fn a_file_of_rules_has_comments_and_blank_lines_and_its_errors_name_the_line() {
        let mut builder = FilterBuilder::new();
        builder
            .exclude_lines(Path::new("rules"), b"\xef\xbb\xbf# a\r\n\r\n*.tmp  \r\n\\#b\nend\\ \n", false)
            .unwrap();
        let filter = builder.build().unwrap();
        assert!(out(&filter, "/x.tmp", false) && out(&filter, "/#b", false) && out(&filter, "/end ", false));
        assert!(!out(&filter, "/# a", false));
        let error =
            FilterBuilder::new().exclude_lines(Path::new("rules"), b"ok\n[z-a]\n", false).unwrap_err();
        assert!(error.to_string().contains("rules:2"), "{error}");
        let error = FilterBuilder::new().exclude(b"{a", false).unwrap_err();
        assert!(matches!(error, FilterError::BadPattern { .. }) && error.class() == Class::Usage);
        assert!(matches!(FilterBuilder::new().exclude(b"\xff", false), Err(FilterError::NotUtf8 { .. })));
    }

    #[test]
    fn case_and_foreign_bytes() {
        let mut builder = FilterBuilder::new();
        builder.exclude(b"*.JPG", true).unwrap().exclude(b"*.Png", false).unwrap();
        let filter = builder.build().unwrap();
        assert!(out(&filter, "/a.jpg", false) && !out(&filter, "/a.png", false));
        assert_ne!(filter.matches(b"/\xff\xfe.jpg", false), Verdict::Keep);
    }

    #[test]
    fn includes_keep_matching_subtrees_and_the_way_to_them() {
        let mut builder = FilterBuilder::new();
        builder.include(b"/etc/nginx", false).unwrap().include(b"/srv/*/data", false).unwrap();
        let filter = builder.build().unwrap();
        assert_eq!(filter.inclusion(b"/", true), Inclusion::Leads);
        assert_eq!(filter.inclusion(b"/etc", true), Inclusion::Leads);
        assert_eq!(filter.inclusion(b"/etc/nginx", true), Inclusion::Included);
        assert_eq!(filter.inclusion(b"/etc/apt", true), Inclusion::Outside);
        assert_eq!(filter.inclusion(b"/et", true), Inclusion::Outside);
        assert_eq!(filter.inclusion(b"/srv/a", true), Inclusion::Leads);
        assert_eq!(filter.inclusion(b"/srv/a", false), Inclusion::Outside);
        let left: Vec<_> = filter.never_matched().iter().map(|r| r.pattern.clone()).collect();
        assert_eq!(left, ["/srv/*/data"]);
        let mut anywhere = FilterBuilder::new();
        anywhere.include(b"*.conf", false).unwrap();
        assert_eq!(anywhere.build().unwrap().inclusion(b"/usr", true), Inclusion::Leads);
    }

    #[test]
    fn rules_of_a_directory_are_anchored_there_and_bad_lines_do_not_hide_good_ones() {
        let (rules, errors) = directory_rules(Path::new("/p/.ignore"), b"out/x\n[z-a]\n*.o\n");
        assert_eq!(errors.len(), 1);
        assert!(rules.find(b"out/x", false).is_some() && rules.find(b"a/out/x", false).is_none());
        assert!(rules.find(b"a/b.o", false).is_some());
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_path_makes_it_panic(pattern: Vec<u8>, text in "[a-c*?\\[\\]{},!/\\\\-]{0,12}", path: Vec<u8>) {
            for pattern in [pattern.as_slice(), text.as_bytes()] {
                let mut builder = FilterBuilder::new();
                let added = builder.exclude(pattern, false).is_ok() && builder.include(pattern, true).is_ok();
                if added && let Ok(filter) = builder.build() {
                    filter.matches(&path, true);
                    filter.inclusion(&path, true);
                }
            }
        }
    }
}
