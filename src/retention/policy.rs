//! A policy: what is to be kept.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::{Every, Period, RetentionError};

/// How many, or for how long.
///
/// Parses `7`, `unlimited` (or `-1`), and a duration such as `30d` or `1y6m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// This many, counted from the newest; hours, days ... without a snapshot are not counted. Zero switches the rule off.
    Count(u32),
    /// All.
    Unlimited,
    /// Those newer than this, measured from the newest snapshot of the group. Zero switches the rule off.
    Within(Period),
}

impl FromStr for Limit {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let text = text.trim();
        match text {
            "unlimited" | "-1" => Ok(Self::Unlimited),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(Self::Count).map_err(|_| RetentionError::TooLarge { max: u32::MAX })
            }
            _ => text.parse().map(Self::Within),
        }
    }
}

/// One reason to keep snapshots, by time.
///
/// Prints as `last 7`, `5 daily`, `all weekly`, `daily within 30d`, `within 1y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Of what one snapshot each is kept, the newest.
    pub every: Every,
    /// How many of them.
    pub limit: Limit,
}

impl Rule {
    /// Whether it keeps nothing at all, as `--keep-daily 0` says.
    pub fn is_off(&self) -> bool {
        match self.limit {
            Limit::Count(count) => count == 0,
            Limit::Unlimited => false,
            Limit::Within(period) => period.is_zero(),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.every, self.limit) {
            (Every::Snapshot, Limit::Count(count)) => write!(f, "last {count}"),
            (Every::Snapshot, Limit::Unlimited) => f.write_str("all"),
            (Every::Snapshot, Limit::Within(period)) => write!(f, "within {period}"),
            (every, Limit::Count(count)) => write!(f, "{count} {every}"),
            (every, Limit::Unlimited) => write!(f, "all {every}"),
            (every, Limit::Within(period)) => write!(f, "{every} within {period}"),
        }
    }
}

/// Tags that a snapshot must have all of; without any, a snapshot that has no tags at all.
///
/// Parses and prints as `a,b`. `key` is met by `key=value` too, as everywhere in this program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TagList(BTreeSet<String>);

impl TagList {
    /// Whether a snapshot with these tags is meant.
    pub fn matches(&self, tags: &[String]) -> bool {
        let has = |wanted: &String| {
            tags.iter().any(|tag| {
                tag.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        };
        if self.0.is_empty() { tags.is_empty() } else { self.0.iter().all(has) }
    }
}

impl FromStr for TagList {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let tag = |tag: &str| match tag.trim() {
            "" => Err(RetentionError::EmptyTag { list: text.to_owned() }),
            tag => Ok(tag.to_owned()),
        };
        text.split(',').map(tag).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for TagList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, tag) in self.0.iter().enumerate() {
            write!(f, "{}{tag}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// What is to be kept: a snapshot needs one rule or list of tags to be.
///
/// The same rules make the same policy, in whatever order they were added. One that is switched off is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    rules: BTreeSet<Rule>,
    tags: BTreeSet<TagList>,
}

impl Policy {
    /// A policy without rules, which keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also keeps one snapshot of each `every`, as far as the limit goes.
    #[must_use]
    pub fn keep(mut self, every: Every, limit: Limit) -> Self {
        let rule = Rule { every, limit };
        if !rule.is_off() {
            self.rules.insert(rule);
        }
        self
    }

    /// Also keeps the snapshots that have these tags.
    #[must_use]
    pub fn keep_tags(mut self, tags: TagList) -> Self {
        self.tags.insert(tags);
        self
    }

    /// Whether it has no rule: nothing was asked for, and a command that was to forget should say so and stop.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.tags.is_empty()
    }

    /// The rules by time, in a fixed order, none of them off.
    pub fn rules(&self) -> impl Iterator<Item = Rule> {
        self.rules.iter().copied()
    }

    /// The lists of tags, in a fixed order.
    pub fn tags(&self) -> impl Iterator<Item = &TagList> {
        self.tags.iter()
    }
}

impl fmt::Display for Policy {
    /// `last 7, 5 daily, tags a,b`; `everything` without rules.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("everything");
        }
        let rules = self.rules.iter().map(Rule::to_string);
        let tags = self.tags.iter().map(|list| match list.0.len() {
            0 => "those without tags".to_owned(),
            _ => format!("tags {list}"),
        });
        let parts: Vec<_> = rules.chain(tags).collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn a_limit_is_a_count_all_or_a_duration() {
        let month = Period { days: 30, ..Period::default() };
        for (text, limit) in [
            ("7", Limit::Count(7)),
            (" 07 ", Limit::Count(7)),
            ("0", Limit::Count(0)),
            ("unlimited", Limit::Unlimited),
            ("-1", Limit::Unlimited),
            ("30d", Limit::Within(month)),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
        }
        for (text, error) in [
            ("", RetentionError::Empty),
            ("-2", RetentionError::Negative),
            ("4294967296", RetentionError::TooLarge { max: u32::MAX }),
            ("Unlimited", RetentionError::NoNumber { found: 'U' }),
            ("7x", RetentionError::UnknownUnit { unit: 'x' }),
            ("1.5", RetentionError::UnknownUnit { unit: '.' }),
            ("\0", RetentionError::NoNumber { found: '\0' }),
        ] {
            assert_eq!(text.parse::<Limit>(), Err(error), "{text:?}");
        }
        assert!(matches!("9".repeat(1 << 16).parse::<Limit>(), Err(RetentionError::TooLarge { .. })));
    }

    #[test]
    fn a_list_of_tags_wants_all_of_them_and_an_empty_one_none() {
        let list = |text: &str| text.parse::<TagList>().unwrap();
        assert!(list("a, b").matches(&owned(&["b", "c", "a"])));
        assert!(!list("a,b").matches(&owned(&["a"])) && !list("a").matches(&[]));
        assert!(list("key").matches(&owned(&["key=value"])) && list("key=v").matches(&owned(&["key=v"])));
        assert!(!list("key").matches(&owned(&["keys"])) && !list("key=v").matches(&owned(&["key"])));
        assert!(list(" ").matches(&[]) && !list("").matches(&owned(&["a"])));
        assert_eq!(list("b,a,b").to_string(), "a,b");
        for text in [",", "a,", ",a", "a,,b"] {
            assert_eq!(text.parse::<TagList>(), Err(RetentionError::EmptyTag { list: text.into() }));
        }
    }

    #[test]
    fn what_is_switched_off_is_not_part_of_a_policy() {
        let zero = Limit::Within(Period::default());
        let off = Policy::new().keep(Every::Day, Limit::Count(0)).keep(Every::Year, zero);
        assert!(off.is_empty() && off.rules().next().is_none());
        assert_eq!(off.to_string(), "everything");
        assert!(!Policy::new().keep_tags(TagList::default()).is_empty());
        let policy = Policy::new()
            .keep_tags("b,a".parse().unwrap())
            .keep_tags(TagList::default())
            .keep(Every::Week, Limit::Unlimited)
            .keep(Every::Day, "30d".parse().unwrap())
            .keep(Every::Day, "7".parse().unwrap())
            .keep(Every::Snapshot, "1y".parse().unwrap())
            .keep(Every::Snapshot, "3".parse().unwrap());
        assert_eq!(
            policy.to_string(),
            "last 3, within 1y, 7 daily, daily within 30d, all weekly, those without tags, tags a,b"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String, near in "[-0-9ymdhunlite, ]{0,24}") {
            for text in [text, near] {
                let _ = text.parse::<Limit>();
                if let Ok(list) = text.parse::<TagList>() {
                    prop_assert_eq!(list.to_string().parse::<TagList>(), Ok(list));
                }
            }
        }
    }
}
