//! Snapshots that are brought from elsewhere: what `copy` and `import` have in common.

use std::time::Duration;

use lifeboat::ops::backup::Brought;
use lifeboat::units::{ByteSize, Counted};
use serde_json::{Map, Value};

use super::time;

/// A run in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    /// Brought, or to be brought.
    pub(crate) brought: u64,
    /// Brought before.
    pub(crate) there: u64,
    /// Those that lack something, and what cannot be read of where they come from.
    pub(crate) damaged: u64,
    /// Bytes of the files in what was brought.
    pub(crate) bytes: u64,
    pub(crate) bytes_read: u64,
    pub(crate) new_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) resumed_bytes: u64,
    pub(crate) elapsed: Duration,
}

impl Sums {
    /// Adds a snapshot that was brought.
    pub(crate) fn add(&mut self, done: &Brought) {
        self.brought += 1;
        self.damaged += u64::from(done.missing > 0);
        self.bytes += done.totals.bytes;
        self.bytes_read += done.bytes_read;
        self.new_bytes += done.new_bytes;
        self.stored_bytes += done.stored_bytes;
        self.resumed_bytes += done.resumed_bytes;
    }

    /// Adds a snapshot that was brought before, and lacks so many entries.
    pub(crate) fn add_there(&mut self, missing: u64) {
        self.there += 1;
        self.damaged += u64::from(missing > 0);
    }
}

/// What a run calls what it does.
pub(crate) struct Words {
    /// As an order.
    pub(crate) bring: &'static str,
    /// Once it is done.
    pub(crate) brought: &'static str,
    /// Where that is.
    pub(crate) place: &'static str,
}

/// The numbers of a snapshot that was brought.
pub(crate) fn put_numbers(out: &mut Map<String, Value>, done: &Brought) {
    let numbers = [
        ("read_files", done.read_files),
        ("known_files", done.known_files),
        ("bytes_read", done.bytes_read),
        ("new_bytes", done.new_bytes),
        ("stored_bytes", done.stored_bytes),
        ("resumed_bytes", done.resumed_bytes),
    ];
    out.extend(numbers.map(|(key, number)| (key.to_owned(), number.into())));
}

/// The last object, with `more` counts.
pub(crate) fn summary_json(words: &Words, sums: &Sums, dry_run: bool, more: &[(&str, u64)]) -> Value {
    let numbers = [
        (words.brought, sums.brought),
        ("there", sums.there),
        ("damaged", sums.damaged),
        ("bytes", sums.bytes),
        ("bytes_read", sums.bytes_read),
        ("new_bytes", sums.new_bytes),
        ("stored_bytes", sums.stored_bytes),
        ("resumed_bytes", sums.resumed_bytes),
    ];
    let mut out = Map::new();
    out.insert("type".to_owned(), "summary".into());
    out.insert("dry_run".to_owned(), dry_run.into());
    out.extend(numbers.iter().chain(more).map(|(key, number)| ((*key).to_owned(), (*number).into())));
    out.insert("seconds".to_owned(), sums.elapsed.as_secs_f64().into());
    Value::Object(out)
}

/// One line, and one for each thing that is out of the ordinary, `more` first.
pub(crate) fn summary_text(words: &Words, sums: &Sums, dry_run: bool, more: &[(u64, &str)]) -> String {
    let Words { bring, brought, place } = words;
    let snapshots = Counted(sums.brought, "snapshot");
    let mut out = match dry_run {
        true => format!("would {bring} {snapshots}"),
        false => format!("{brought} {snapshots}"),
    };
    // How large they are is not always known before.
    if !dry_run || sums.bytes > 0 {
        out.push_str(&format!(", {}", ByteSize(sums.bytes)));
    }
    if !dry_run {
        out.push_str(&format!(
            ": {} read, {} new, {} stored, in {}",
            ByteSize(sums.bytes_read),
            ByteSize(sums.new_bytes),
            ByteSize(sums.stored_bytes),
            time::duration(sums.elapsed),
        ));
    }
    if sums.there > 0 {
        out.push_str(&format!("; {} {place} already", sums.there));
    }
    out.push('\n');
    for (count, text) in more.iter().chain(&[(sums.damaged, "damaged, named above")]) {
        if *count > 0 {
            out.push_str(&format!("  {count} {text}\n"));
        }
    }
    if sums.resumed_bytes > 0 {
        out.push_str(&format!("  {} of an interrupted {bring} taken over\n", ByteSize(sums.resumed_bytes)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Words = Words { bring: "carry", brought: "carried", place: "here" };

    #[test]
    fn a_summary_names_what_is_out_of_the_ordinary_and_nothing_else() {
        let plain = Sums { brought: 1, bytes: 2048, ..Sums::default() };
        let text = summary_text(&WORDS, &plain, false, &[(0, "left out")]);
        assert!(text.starts_with("carried 1 snapshot, 2.0 KiB: ") && text.lines().count() == 1, "{text}");
        let odd = Sums { brought: 2, there: 3, damaged: 5, resumed_bytes: 7, ..Sums::default() };
        let text = summary_text(&WORDS, &odd, true, &[(4, "left out")]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "would carry 2 snapshots; 3 here already",
                "  4 left out",
                "  5 damaged, named above",
                "  7 B of an interrupted carry taken over"
            ]
        );
        let sized = Sums { bytes: 2048, ..odd };
        assert!(summary_text(&WORDS, &sized, true, &[]).starts_with("would carry 2 snapshots, 2.0 KiB; 3"));
    }
}
