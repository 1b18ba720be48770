//! What became of snapshots that were to be imported.

use std::time::Duration;

use lifeboat::ops::import::{Imported, Known};
use lifeboat::restic::Snapshot;
use lifeboat::units::ByteSize;
use serde_json::{Map, Value, json};

use super::{sanitize, time};

/// What became of one snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome<'a> {
    /// It was imported.
    Imported(&'a Imported),
    /// It would be imported.
    Planned(&'a Snapshot),
    /// It is here already.
    There(&'a Known),
    /// It cannot be read at all.
    Unreadable(&'a Snapshot, &'a lifeboat::error::Error),
}

impl Outcome<'_> {
    fn theirs(&self) -> &Snapshot {
        match self {
            Self::Imported(done) => &done.theirs,
            Self::Planned(theirs) | Self::Unreadable(theirs, _) => theirs,
            Self::There(known) => &known.theirs,
        }
    }

    /// Entries that could not be brought in full.
    pub(crate) fn missing(&self) -> u64 {
        match self {
            Self::Imported(done) => done.missing,
            Self::Planned(_) | Self::Unreadable(..) => 0,
            Self::There(known) => known.missing,
        }
    }
}

/// An error and what caused it, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A run in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    /// Imported, or to be imported.
    pub(crate) imported: u64,
    /// Here already.
    pub(crate) there: u64,
    /// Those that lack something, and what cannot be read of the other repository.
    pub(crate) damaged: u64,
    /// Bytes of the files in what was imported.
    pub(crate) bytes: u64,
    pub(crate) bytes_read: u64,
    pub(crate) new_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) resumed_bytes: u64,
    pub(crate) elapsed: Duration,
}

impl Sums {
    /// Adds one snapshot.
    pub(crate) fn add(&mut self, outcome: &Outcome<'_>) {
        self.damaged += u64::from(outcome.missing() > 0);
        match outcome {
            Outcome::Imported(done) => {
                self.imported += 1;
                self.bytes += done.totals.bytes;
                self.bytes_read += done.bytes_read;
                self.new_bytes += done.new_bytes;
                self.stored_bytes += done.stored_bytes;
                self.resumed_bytes += done.resumed_bytes;
            }
            Outcome::Planned(_) => self.imported += 1,
            Outcome::There(_) => self.there += 1,
            Outcome::Unreadable(..) => self.damaged += 1,
        }
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
        Outcome::Imported(done) => {
            let stored = ByteSize(done.stored_bytes);
            let without = if done.missing > 0 { format!("; {missing}") } else { String::new() };
            format!("{what} is imported as {}, {stored} stored{without}", done.snapshot.short())
        }
        Outcome::Planned(_) => format!("{what} would be imported"),
        Outcome::Unreadable(_, error) => {
            format!("{what} is not imported: {}", sanitize::line(&with_causes(*error)))
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
        Outcome::Imported(done) => ("imported", Some(done.snapshot)),
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
    if let Outcome::Imported(done) = outcome {
        put("entries", done.totals.entries.into());
        put("files", done.totals.files.into());
        put("bytes", done.totals.bytes.into());
        put("read_files", done.read_files.into());
        put("known_files", done.known_files.into());
        put("bytes_read", done.bytes_read.into());
        put("new_bytes", done.new_bytes.into());
        put("stored_bytes", done.stored_bytes.into());
        put("resumed_bytes", done.resumed_bytes.into());
    }
    Value::Object(out)
}

/// The last object.
pub(crate) fn summary_json(sums: &Sums, dry_run: bool) -> Value {
    json!({
        "type": "summary",
        "dry_run": dry_run,
        "imported": sums.imported,
        "there": sums.there,
        "damaged": sums.damaged,
        "bytes": sums.bytes,
        "bytes_read": sums.bytes_read,
        "new_bytes": sums.new_bytes,
        "stored_bytes": sums.stored_bytes,
        "resumed_bytes": sums.resumed_bytes,
        "seconds": sums.elapsed.as_secs_f64(),
    })
}

/// One line, and one for each thing that is out of the ordinary.
pub(crate) fn summary_text(sums: &Sums, dry_run: bool) -> String {
    let snapshots =
        |count: u64| if count == 1 { "1 snapshot".to_owned() } else { format!("{count} snapshots") };
    let mut out = match dry_run {
        true => format!("would import {}", snapshots(sums.imported)),
        false => format!(
            "imported {}, {}: {} read, {} new, {} stored, in {}",
            snapshots(sums.imported),
            ByteSize(sums.bytes),
            ByteSize(sums.bytes_read),
            ByteSize(sums.new_bytes),
            ByteSize(sums.stored_bytes),
            time::duration(sums.elapsed),
        ),
    };
    if sums.there > 0 {
        out.push_str(&format!("; {} here already", sums.there));
    }
    out.push('\n');
    if sums.damaged > 0 {
        out.push_str(&format!("  {} damaged, named above\n", sums.damaged));
    }
    if sums.resumed_bytes > 0 {
        out.push_str(&format!("  {} of an interrupted import taken over\n", ByteSize(sums.resumed_bytes)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_what_is_out_of_the_ordinary_and_nothing_else() {
        let plain = Sums { imported: 1, bytes: 2048, ..Sums::default() };
        let text = summary_text(&plain, false);
        assert!(text.starts_with("imported 1 snapshot, 2.0 KiB") && text.lines().count() == 1, "{text}");
        let odd = Sums { imported: 2, there: 3, damaged: 5, resumed_bytes: 7, ..plain };
        let text = summary_text(&odd, true);
        assert!(text.starts_with("would import 2 snapshots; 3 here already"), "{text}");
        assert!(text.contains("5 damaged") && text.contains("interrupted"), "{text}");
    }
}
