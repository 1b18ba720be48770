//! What became of snapshots that were to be imported.

use lifeboat::error::Error;
use lifeboat::ops::backup::Brought;
use lifeboat::ops::import::Known;
use lifeboat::restic::Snapshot;
use lifeboat::units::ByteSize;
use serde_json::{Map, Value, json};

use super::super::observe::words;
use super::brought::{self, Sums, Words, put_numbers};
use super::{sanitize, time};

const WORDS: Words = Words { bring: "import", brought: "imported", place: "here" };

/// What became of one snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome<'a> {
    /// It was imported.
    Imported(&'a Snapshot, &'a Brought),
    /// It would be imported.
    Planned(&'a Snapshot),
    /// It is here already.
    There(&'a Known),
    /// It cannot be read at all.
    Unreadable(&'a Snapshot, &'a Error),
}

impl Outcome<'_> {
    fn theirs(&self) -> &Snapshot {
        match self {
            Self::Imported(theirs, _) | Self::Planned(theirs) | Self::Unreadable(theirs, _) => theirs,
            Self::There(known) => &known.theirs,
        }
    }

    /// Entries that could not be brought in full.
    pub(crate) fn missing(&self) -> u64 {
        match self {
            Self::Imported(_, done) => done.missing,
            Self::Planned(_) | Self::Unreadable(..) => 0,
            Self::There(known) => known.missing,
        }
    }
}

/// Adds one snapshot.
pub(crate) fn add(sums: &mut Sums, outcome: &Outcome<'_>) {
    match outcome {
        Outcome::Imported(_, done) => sums.add(done),
        Outcome::Planned(_) => sums.brought += 1,
        Outcome::There(known) => sums.add_there(known.missing),
        Outcome::Unreadable(..) => sums.damaged += 1,
    }
}

/// One line for a person.
pub(crate) fn line(outcome: &Outcome<'_>) -> String {
    let theirs = outcome.theirs();
    let paths: Vec<String> = theirs.paths.iter().map(|path| sanitize::line(path)).collect();
    let what = format!(
        "snapshot {} ({}, {} of {})",
        theirs.id.short(),
        time::local(theirs.time),
        paths.join(" "),
        sanitize::line(&theirs.host),
    );
    let missing = match outcome.missing() {
        1 => "1 entry is missing in it".to_owned(),
        missing => format!("{missing} entries are missing in it"),
    };
    match outcome {
        Outcome::Imported(_, done) => {
            let stored = ByteSize(done.stored_bytes);
            let without = if done.missing > 0 { format!("; {missing}") } else { String::new() };
            format!("{what} is imported as {}, {stored} stored{without}", done.snapshot.short())
        }
        Outcome::Planned(_) => format!("{what} would be imported"),
        Outcome::Unreadable(_, error) => {
            format!("{what} is not imported: {}", words::chain(*error))
        }
        Outcome::There(Known { snapshot, missing: 0, .. }) => {
            format!("{what} is here already as {}", snapshot.short())
        }
        Outcome::There(Known { snapshot, .. }) => format!(
            "{what} is here already as {}; {missing}: once the source is mended, import it with --again",
            snapshot.short()
        ),
    }
}

/// One object a snapshot.
pub(crate) fn snapshot_json(outcome: &Outcome<'_>) -> Value {
    let theirs = outcome.theirs();
    let (word, snapshot) = match outcome {
        Outcome::Imported(_, done) => ("imported", Some(done.snapshot)),
        Outcome::Planned(_) => ("planned", None),
        Outcome::There(known) => ("there", Some(known.snapshot)),
        Outcome::Unreadable(..) => ("unreadable", None),
    };
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("type", "import".into());
    put("id", theirs.id.to_string().into());
    put("outcome", word.into());
    put("snapshot", json!(snapshot.map(|id| id.to_string())));
    put("missing", outcome.missing().into());
    put("time", time::utc(theirs.time).into());
    put("host", theirs.host.clone().into());
    put("user", theirs.user.clone().into());
    put("paths", theirs.paths.clone().into());
    put("tags", theirs.tags.clone().into());
    if let Outcome::Imported(_, done) = outcome {
        put("entries", done.totals.entries.into());
        put("files", done.totals.files.into());
        put("bytes", done.totals.bytes.into());
        put_numbers(&mut out, done);
    }
    Value::Object(out)
}

/// The last object.
pub(crate) fn summary_json(sums: &Sums, dry_run: bool) -> Value {
    brought::summary_json(&WORDS, sums, dry_run, &[])
}

/// One line, and one for each thing that is out of the ordinary.
pub(crate) fn summary_text(sums: &Sums, dry_run: bool) -> String {
    brought::summary_text(&WORDS, sums, dry_run, &[])
}
