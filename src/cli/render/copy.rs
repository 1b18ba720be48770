//! What became of snapshots that were to be copied.

use std::time::Duration;

use lifeboat::ops::copy::{Copied, Outcome, Planned, Verdict};
use lifeboat::units::ByteSize;
use serde_json::{Map, Value, json};

use super::json::put_bytes;
use super::{sanitize, time};

/// A run in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    /// Copied, or to be copied.
    pub(crate) copied: u64,
    /// There already.
    pub(crate) there: u64,
    /// Passed by because later ones were copied before.
    pub(crate) older: u64,
    /// Never confirmed.
    pub(crate) unconfirmed: u64,
    /// Removed or forgotten while they were copied.
    pub(crate) gone: u64,
    /// Copies that lack something, and snapshots that cannot be read.
    pub(crate) damaged: u64,
    /// Bytes of the files in what was copied.
    pub(crate) bytes: u64,
    pub(crate) bytes_read: u64,
    pub(crate) new_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) resumed_bytes: u64,
    pub(crate) elapsed: Duration,
}

impl Sums {
    /// Adds one snapshot.
    pub(crate) fn add(&mut self, planned: &Planned, outcome: &Outcome) {
        match outcome {
            Outcome::Copied(done) => {
                self.copied += 1;
                self.damaged += u64::from(done.missing > 0);
                self.bytes += done.totals.bytes;
                self.bytes_read += done.bytes_read;
                self.new_bytes += done.new_bytes;
                self.stored_bytes += done.stored_bytes;
                self.resumed_bytes += done.resumed_bytes;
            }
            Outcome::Left(Verdict::Copy) => {
                self.copied += 1;
                self.bytes += planned.info.snapshot.totals.bytes;
            }
            Outcome::Left(Verdict::There { missing, .. }) => {
                self.there += 1;
                self.damaged += u64::from(*missing > 0);
            }
            Outcome::Left(Verdict::Older) => self.older += 1,
            Outcome::Left(Verdict::NotConfirmed) => self.unconfirmed += 1,
            Outcome::Gone => self.gone += 1,
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
        Outcome::Copied(Copied { snapshot, missing, .. }) => ("copied", Some(snapshot), *missing),
        Outcome::Gone => ("gone", None, 0),
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
        put("read_files", done.read_files.into());
        put("known_files", done.known_files.into());
        put("bytes_read", done.bytes_read.into());
        put("new_bytes", done.new_bytes.into());
        put("stored_bytes", done.stored_bytes.into());
        put("resumed_bytes", done.resumed_bytes.into());
    }
    put_bytes(&mut out, "host", &planned.info.snapshot.host);
    put_bytes(&mut out, "job", &planned.info.snapshot.job);
    Value::Object(out)
}

/// The last object.
pub(crate) fn summary_json(sums: &Sums, dry_run: bool) -> Value {
    json!({
        "type": "summary",
        "dry_run": dry_run,
        "copied": sums.copied,
        "there": sums.there,
        "older": sums.older,
        "not_confirmed": sums.unconfirmed,
        "gone": sums.gone,
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
        true => format!("would copy {}, {}", snapshots(sums.copied), ByteSize(sums.bytes)),
        false => format!(
            "copied {}, {}: {} read, {} new, {} stored, in {}",
            snapshots(sums.copied),
            ByteSize(sums.bytes),
            ByteSize(sums.bytes_read),
            ByteSize(sums.new_bytes),
            ByteSize(sums.stored_bytes),
            time::duration(sums.elapsed),
        ),
    };
    if sums.there > 0 {
        out.push_str(&format!("; {} there already", sums.there));
    }
    out.push('\n');
    let mut more = |count: u64, text: &str| {
        if count > 0 {
            out.push_str(&format!("  {count} {text}\n"));
        }
    };
    more(sums.older, "left out as older than what was copied before; without --mirror they are copied");
    more(sums.unconfirmed, "left out because they were never confirmed");
    more(sums.gone, "removed or forgotten while they were copied");
    more(sums.damaged, "damaged, named above");
    if sums.resumed_bytes > 0 {
        out.push_str(&format!("  {} of an interrupted copy taken over\n", ByteSize(sums.resumed_bytes)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_what_is_out_of_the_ordinary_and_nothing_else() {
        let plain = Sums { copied: 1, bytes: 2048, ..Sums::default() };
        let text = summary_text(&plain, false);
        assert!(text.starts_with("copied 1 snapshot, 2.0 KiB") && text.lines().count() == 1, "{text}");
        let odd = Sums { copied: 2, there: 3, older: 4, gone: 1, damaged: 5, ..plain };
        let text = summary_text(&odd, true);
        assert!(text.starts_with("would copy 2 snapshots") && text.contains("3 there already"), "{text}");
        for part in ["4 left out as older", "1 removed", "5 damaged"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
