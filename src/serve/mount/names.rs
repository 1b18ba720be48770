//! Names of the directories that show snapshots. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

/// The longest name that Linux takes.
pub(super) const NAME_MAX: usize = 255;
/// Longer names of jobs, hosts and tags are cut: something may have to be added.
const SHOWN_MAX: usize = 200;

/// Whether a stored name can be the name of an entry here.
pub(super) fn is_plain(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// `2026-03-01T14-00-05Z`: as it is typed after `@`, but without colons, which mean a machine to some tools.
pub(super) fn time(nanos: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H-%M-%SZ").to_string()
}

/// A job, host or tag as the name of a directory: slashes and control characters become `_`, and what is too long is cut.
fn readable(text: &[u8]) -> Vec<u8> {
    let byte = |byte: &u8| if *byte == b'/' || byte.is_ascii_control() { b'_' } else { *byte };
    let mut shown: Vec<u8> = text.iter().map(byte).collect();
    if shown.len() > SHOWN_MAX {
        let cut = (SHOWN_MAX - 3..=SHOWN_MAX).rev().find(|at| shown[*at] & 0xc0 != 0x80).unwrap_or(SHOWN_MAX);
        shown.truncate(cut);
    }
    match shown.as_slice() {
        b"" => b"unnamed".to_vec(),
        b"." => b"_".to_vec(),
        b".." => b"__".to_vec(),
        _ => shown,
    }
}

/// Gives each text a name of its own. One that had to be changed, and is not the only one to look so, ends with some digits
/// of its hash.
pub(super) fn readable_names(texts: &BTreeSet<&[u8]>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut alike: HashMap<Vec<u8>, usize> = HashMap::new();
    for text in texts {
        *alike.entry(readable(text)).or_default() += 1;
    }
    let mut names = BTreeMap::new();
    let (plain, changed): (Vec<&[u8]>, Vec<&[u8]>) = texts.iter().partition(|text| readable(text) == **text);
    for text in plain {
        names.insert(text.to_vec(), text.to_vec());
    }
    for text in changed {
        let shown = readable(text);
        let mut name = shown.clone();
        if alike.get(&shown).is_some_and(|count| *count > 1) {
            name.extend_from_slice(b"~");
            name.extend_from_slice(&blake3::hash(text).to_hex().as_bytes()[..8]);
        }
        if names.contains_key(&name) {
            // Somebody chose a name that is what this one would be changed to.
            name = blake3::hash(text).to_hex().as_bytes().to_vec();
        }
        names.insert(name, text.to_vec());
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_plain_names_are_entries() {
        for good in [&b"a"[..], b"...", b"caf\xe9", b" ", b"\n", &[b'n'; 255]] {
            assert!(is_plain(good));
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'n'; 256]] {
            assert!(!is_plain(bad));
        }
    }

    #[test]
    fn times_sort_as_they_are_and_have_no_colon() {
        assert_eq!(time(1_772_373_605_999_999_999), "2026-03-01T14-00-05Z");
        for nanos in [i64::MIN, -1, 0, i64::MAX] {
            assert!(is_plain(time(nanos).as_bytes()));
        }
    }

    fn named(texts: &[&[u8]]) -> Vec<(String, String)> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let names = readable_names(&texts.iter().copied().collect());
        names.iter().map(|(name, text)| (lossy(name), lossy(text))).collect()
    }

    #[test]
    fn jobs_of_paths_stay_readable() {
        assert_eq!(named(&[b"/home/ann"]), [("_home_ann".into(), "/home/ann".into())]);
        assert_eq!(named(&[b"db", b"a_b", b".."]).len(), 3);
        let alike = named(&[b"/a", b"_a", b"\na"]);
        assert!(alike.contains(&("_a".into(), "_a".into())), "what needs no change has none: {alike:?}");
        assert_eq!(alike.len(), 3);
        assert!(alike.iter().all(|(name, _)| name == "_a" || (name.starts_with("_a~") && name.len() == 11)));
    }

    proptest! {
        #[test]
        fn every_text_has_a_plain_name_of_its_own(
            texts in prop::collection::btree_set("[/_.~\\x00\\na-b\u{e9}]{0,5}|[/é]{150,300}", 0..20)
        ) {
            let texts: BTreeSet<&[u8]> = texts.iter().map(String::as_bytes).collect();
            let names = readable_names(&texts);
            prop_assert_eq!(names.len(), texts.len());
            prop_assert!(names.keys().all(|name| is_plain(name)));
            let found: BTreeSet<&[u8]> = names.values().map(Vec::as_slice).collect();
            prop_assert_eq!(found, texts);
        }
    }
}
