//! Which entries the rules select, carried from parents to children.

use crate::filter::{Filter, Inclusion, Verdict};

/// What rules say of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Choice {
    /// Neither it nor anything below it.
    Out,
    /// It is not selected, but something below it may be.
    Leads,
    /// It, and all below it that no rule excludes.
    In,
}

/// What the rules say of the entry at `path`; `above` is what they said of its directory.
pub(in crate::ops) fn choose(filter: &Filter, path: &[u8], is_dir: bool, above: Choice) -> Choice {
    if filter.matches(path, is_dir) != Verdict::Keep {
        return Choice::Out;
    }
    if above == Choice::In {
        return Choice::In;
    }
    match filter.inclusion(path, is_dir) {
        Inclusion::Included => Choice::In,
        Inclusion::Leads => Choice::Leads,
        Inclusion::Outside => Choice::Out,
    }
}

/// What the rules say of a directory that was asked for by its path. Excludes do not count for what is asked for.
pub(in crate::ops) fn choose_root(filter: &Filter, path: &[u8]) -> Choice {
    if !filter.has_includes() {
        return Choice::In;
    }
    let ends = (1..=path.len()).filter(|end| path.get(*end).is_none_or(|byte| *byte == b'/'));
    let included =
        ends.map(|end| &path[..end]).any(|path| filter.inclusion(path, true) == Inclusion::Included);
    if included { Choice::In } else { Choice::Leads }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::FilterBuilder;

    #[test]
    fn rules_are_carried_down() {
        let mut builder = FilterBuilder::new();
        builder.include(b"/home/a", false).unwrap().exclude(b"*.tmp", false).unwrap();
        let filter = builder.build().unwrap();
        assert_eq!(choose_root(&filter, b""), Choice::Leads);
        assert_eq!(choose_root(&filter, b"/home"), Choice::Leads);
        assert_eq!(choose_root(&filter, b"/home/a/b"), Choice::In);
        assert_eq!(choose(&filter, b"/home", true, Choice::Leads), Choice::Leads);
        assert_eq!(choose(&filter, b"/etc", true, Choice::Leads), Choice::Out);
        assert_eq!(choose(&filter, b"/home/a", true, Choice::Leads), Choice::In);
        assert_eq!(choose(&filter, b"/home/a/x", false, Choice::In), Choice::In);
        assert_eq!(choose(&filter, b"/home/a/x.tmp", false, Choice::In), Choice::Out);
        assert_eq!(choose_root(&Filter::default(), b""), Choice::In);
    }
}
