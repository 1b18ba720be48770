//! The label of a backup, and the map of its tablespaces: the two texts that only the server can give.

use std::collections::BTreeMap;

use crate::postgres::Lsn;

/// Name of the label's file.
pub const LABEL: &str = "backup_label";
/// Name of the map's file.
pub const MAP: &str = "tablespace_map";

/// What is needed of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Where recovery begins to read.
    pub start: Lsn,
    /// The timeline it begins on.
    pub timeline: u32,
}

impl Label {
    /// Reads a label. `None` if it says neither where nor on which timeline recovery begins.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let value = |name: &[u8]| {
            let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
            str::from_utf8(line).ok().map(str::trim)
        };
        let start = value(b"START WAL LOCATION: ")?.split(' ').next()?.parse().ok()?;
        let timeline = value(b"START TIMELINE: ")?.parse().ok()?;
        (timeline > 0).then_some(Self { start, timeline })
    }
}

/// The tablespaces of a map: where each lies. `None` if a line is not one of a map.
pub fn parse_map(text: &[u8]) -> Option<BTreeMap<u32, Vec<u8>>> {
    let mut spaces = BTreeMap::new();
    for line in lines(text) {
        let at = line.iter().position(|byte| *byte == b' ')?;
        let oid = str::from_utf8(&line[..at]).ok()?.parse().ok()?;
        let place = line[at + 1..].to_vec();
        if place.is_empty() || spaces.insert(oid, place).is_some() {
            return None;
        }
    }
    Some(spaces)
}

/// Lines, of which a backslash joins what follows it, a line break included.
fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    let (mut lines, mut line, mut escaped) = (Vec::new(), Vec::new(), false);
    for &byte in text {
        match byte {
            b'\\' if !escaped => {
                escaped = true;
                continue;
            }
            b'\n' if !escaped => lines.push(std::mem::take(&mut line)),
            other => line.push(other),
        }
        escaped = false;
    }
    lines.push(line);
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_where_recovery_begins() {
        let text = b"START WAL LOCATION: 2/3000028 (file 000000010000000200000003)\nCHECKPOINT LOCATION: 2/3000060\n\
                     BACKUP METHOD: streamed\nSTART TIMELINE: 7\n";
        assert_eq!(Label::parse(text), Some(Label { start: Lsn(0x2_0300_0028), timeline: 7 }));
        for bad in [
            &b""[..],
            b"START WAL LOCATION: 2/3000028\n",
            b"START TIMELINE: 1\n",
            b"START WAL LOCATION: x\nSTART TIMELINE: 1\n",
            b"START WAL LOCATION: 0/1\nSTART TIMELINE: 0\n",
            b"START WAL LOCATION: 0/1\nSTART TIMELINE: \xff\n",
        ] {
            assert_eq!(Label::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_map_says_where_tablespaces_lie() {
        let map = parse_map(b"16384 /srv/a b\n16390 /srv/x\\\ny\\\\z\n").unwrap();
        assert_eq!(map[&16384], b"/srv/a b");
        assert_eq!(map[&16390], b"/srv/x\ny\\z");
        assert_eq!(parse_map(b""), Some(BTreeMap::new()));
        for bad in [&b"16384\n"[..], b"x /a\n", b"16384 \n", b"1 /a\n1 /b\n", b"99999999999 /a"] {
            assert_eq!(parse_map(bad), None, "{bad:?}");
        }
    }
}
