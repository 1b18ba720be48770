//! History files: where a timeline came from.

use super::Lsn;

/// Most bytes of a history file.
pub(super) const HISTORY_MAX: usize = 1 << 20;

/// A line of a history file: a timeline of the past, and where it was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The timeline.
    pub timeline: u32,
    /// The first position that belongs to the next one.
    pub left_at: Lsn,
}

/// Why a history file cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// Longer than any.
    #[error("a timeline's history is not so long")]
    Long,
    /// Not text.
    #[error("a timeline's history is text")]
    Text,
    /// A line that is not a timeline and a position.
    #[error("line {line} is not a timeline and a position")]
    Line {
        /// Which one, from 1 on.
        line: usize,
    },
    /// Timelines or positions do not ascend.
    #[error("line {line} does not come after the one before it")]
    Order {
        /// Which one, from 1 on.
        line: usize,
    },
    /// Not a position in the log.
    #[error("not a position in the log")]
    Position,
}

/// Reads the history of a timeline: its ancestors, the oldest first. The server takes the same forms: a number, a position and a
/// reason, separated by white space; empty lines and those that begin with `#` say nothing.
pub fn parse_history(timeline: u32, bytes: &[u8]) -> Result<Vec<Origin>, HistoryError> {
    if bytes.len() > HISTORY_MAX {
        return Err(HistoryError::Long);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| HistoryError::Text)?;
    let mut origins: Vec<Origin> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let broken = HistoryError::Line { line: number + 1 };
        let mut words = line.split_ascii_whitespace();
        let parent = words.next().and_then(|word| word.parse().ok()).ok_or(broken)?;
        let left_at: Lsn = words.next().and_then(|word| word.parse().ok()).ok_or(broken)?;
        let after = origins.last().is_none_or(|last| last.timeline < parent && last.left_at <= left_at);
        if !after || parent == 0 || parent >= timeline {
            return Err(HistoryError::Order { line: number + 1 });
        }
        origins.push(Origin { timeline: parent, left_at });
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_as_a_server_writes_it() {
        let text = b"1\t0/5000148\tno recovery target specified\n\n2\t0/60001A0\tbefore 2026-11-20\n";
        let origin = |timeline, at| Origin { timeline, left_at: Lsn(at) };
        assert_eq!(parse_history(3, text), Ok(vec![origin(1, 0x500_0148), origin(2, 0x600_01a0)]));
        assert_eq!(parse_history(2, b"# nothing\n"), Ok(vec![]));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (text, error) in [
            (&b"1"[..], HistoryError::Line { line: 1 }),
            (b"x\t0/1\n", HistoryError::Line { line: 1 }),
            (b"1\t0/5G\tx", HistoryError::Line { line: 1 }),
            (b"1\t000000000/5\tx", HistoryError::Line { line: 1 }),
            (b"1\t0/5\tx\n1\t0/6\ty", HistoryError::Order { line: 2 }),
            (b"1\t0/5\tx\n2\t0/4\ty", HistoryError::Order { line: 2 }),
            (b"7\t0/5\tx", HistoryError::Order { line: 1 }),
            (b"0\t0/5\tx", HistoryError::Order { line: 1 }),
            (b"\xff\xfe", HistoryError::Text),
        ] {
            assert_eq!(parse_history(7, text), Err(error), "{text:?}");
        }
        assert_eq!(parse_history(7, &vec![b'\n'; HISTORY_MAX + 1]), Err(HistoryError::Long));
    }
}
