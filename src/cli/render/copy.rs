//! What became of snapshots that were to be copied.

use lifeboat::ops::backup::Brought;
use lifeboat::ops::copy::{Outcome, Planned, Verdict};
use lifeboat::units::ByteSize;
use serde_json::{Map, Value, json};

use super::brought::{self, Words, put_numbers};
use super::json::put_bytes;
use super::{sanitize, time};

const WORDS: Words = Words { bring: "copy", brought: "copied", place: "there" };

/// A run in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) brought: brought::Sums,
    /// Passed by because later ones were copied before.
    older: u64,
    /// Never confirmed.
    pub(crate) unconfirmed: u64,
    /// Removed or forgotten while they were copied.
    pub(crate) gone: u64,
}

impl Sums {
    /// Nothing yet, of a source in which so many snapshots cannot be read.
    pub(crate) fn new(unreadable: u64) -> Self {
        let brought = brought::Sums { damaged: unreadable, ..brought::Sums::default() };
        Self { brought, ..Self::default() }
    }

    /// Adds one snapshot.
    pub(crate) fn add(&mut self, planned: &Planned, outcome: &Outcome) {
        match outcome {
            Outcome::Copied(done) => self.brought.add(done),
            Outcome::Left(Verdict::Copy) => {
                self.brought.brought += 1;
                self.brought.bytes += planned.info.snapshot.totals.bytes;
            }
            Outcome::Left(Verdict::There { missing, .. }) => self.brought.add_there(*missing),
            Outcome::Left(Verdict::Older) => self.older += 1,
            Outcome::Left(Verdict::NotConfirmed) => self.unconfirmed += 1,
            Outcome::Gone => self.gone += 1,
            Outcome::Unreadable => self.brought.damaged += 1,
        }
    }
}

/// One line for a person.
pub(crate) fn line(planned: &Planned, outcome: &Outcome) -> String {
    let info = &planned.info;
    let what = format!(
        "snapshot {} ({}, {} of {})",
        info.id.short(),
        time::local(info.counted().0),
        sanitize::name(&info.snapshot.job),
        sanitize::name(&info.snapshot.host),
    );
    match outcome {
        Outcome::Copied(done) => {
            let without = match done.missing {
                0 => String::new(),
                1 => "; 1 entry that is damaged is missing in it".to_owned(),
                missing => format!("; {missing} entries that are damaged are missing in it"),
            };
            let stored = ByteSize(done.stored_bytes);
            format!("{what} is copied as {}, {stored} stored{without}", done.snapshot.short())
        }
        Outcome::Gone => format!("{what} was removed or forgotten meanwhile and is not copied"),
        Outcome::Unreadable => format!("{what} cannot be read and is not copied"),
        Outcome::Left(Verdict::Copy) => {
            format!("{what} would be copied, {}", ByteSize(info.snapshot.totals.bytes))
        }
        Outcome::Left(Verdict::There { copy, missing: 0 }) => {
            format!("{what} is there already as {}", copy.short())
        }
        Outcome::Left(Verdict::There { copy, missing }) => format!(
            "{what} is there already as {}, in which {missing} entries are missing; once the source is mended, copy it with --again",
            copy.short()
        ),
        Outcome::Left(Verdict::Older) => format!("{what} is older than what was copied before"),
        Outcome::Left(Verdict::NotConfirmed) => {
            format!("{what} was never confirmed, may lack chunks, and is not copied")
        }
    }
}

/// One object a snapshot.
pub(crate) fn snapshot_json(planned: &Planned, outcome: &Outcome) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("type", "copy".into());
    put("id", planned.info.id.to_string().into());
    let (word, copy, missing) = match outcome {
        Outcome::Copied(Brought { snapshot, missing, .. }) => ("copied", Some(snapshot), *missing),
        Outcome::Gone => ("gone", None, 0),
        Outcome::Unreadable => ("unreadable", None, 0),
        Outcome::Left(Verdict::Copy) => ("planned", None, 0),
        Outcome::Left(Verdict::There { copy, missing }) => ("there", Some(copy), *missing),
        Outcome::Left(Verdict::Older) => ("older", None, 0),
        Outcome::Left(Verdict::NotConfirmed) => ("not_confirmed", None, 0),
    };
    put("outcome", word.into());
    put("copy", json!(copy.map(ToString::to_string)));
    put("missing", missing.into());
    put("time", time::utc(planned.info.counted().0).into());
    put("bytes", planned.info.snapshot.totals.bytes.into());
    if let Outcome::Copied(done) = outcome {
        put_numbers(&mut out, done);
    }
    put_bytes(&mut out, "host", &planned.info.snapshot.host);
    put_bytes(&mut out, "job", &planned.info.snapshot.job);
    Value::Object(out)
}

/// The last object.
pub(crate) fn summary_json(sums: &Sums, dry_run: bool) -> Value {
    let more = [("older", sums.older), ("not_confirmed", sums.unconfirmed), ("gone", sums.gone)];
    brought::summary_json(&WORDS, &sums.brought, dry_run, &more)
}

/// One line, and one for each thing that is out of the ordinary.
pub(crate) fn summary_text(sums: &Sums, dry_run: bool) -> String {
    let more = [
        (sums.older, "left out as older than what was copied before; without --mirror they are copied"),
        (sums.unconfirmed, "left out because they were never confirmed"),
        (sums.gone, "removed or forgotten while they were copied"),
    ];
    brought::summary_text(&WORDS, &sums.brought, dry_run, &more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_what_is_out_of_the_ordinary_and_nothing_else() {
        let plain = brought::Sums { brought: 1, bytes: 2048, ..brought::Sums::default() };
        let text = summary_text(&Sums { brought: plain, ..Sums::default() }, false);
        assert!(text.starts_with("copied 1 snapshot, 2.0 KiB") && text.lines().count() == 1, "{text}");
        let more = brought::Sums { brought: 2, there: 3, damaged: 5, ..plain };
        let odd = Sums { brought: more, older: 4, gone: 1, unconfirmed: 0 };
        let text = summary_text(&odd, true);
        assert!(text.starts_with("would copy 2 snapshots") && text.contains("3 there already"), "{text}");
        for part in ["4 left out as older", "1 removed", "5 damaged"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
