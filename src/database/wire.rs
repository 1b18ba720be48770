//! Messages of a server, taken apart: tag, length, content.
//!
//! # Must not
//! Believe a length before it was held against a limit.

use super::error::PgError;

/// Longest message that is taken: more than any answer to what this program asks.
const MESSAGE_MAX: usize = 4 << 20;
/// Most columns of a row.
const COLUMNS_MAX: u16 = 64;
/// Longest text of a server in an error.
const TEXT_MAX: usize = 1000;

/// Tag and length of the content of the message at the beginning of `bytes`; `None` if that is not there yet.
pub(super) fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, PgError> {
    let Some((&tag, rest)) = bytes.split_first() else { return Ok(None) };
    let Some(len) = rest.first_chunk() else { return Ok(None) };
    let len = u32::from_be_bytes(*len) as usize;
    match len.checked_sub(4) {
        Some(len) if len <= MESSAGE_MAX => Ok(Some((tag, len))),
        Some(_) => Err(PgError::Protocol { what: "a message that is too long" }),
        None => Err(PgError::Protocol { what: "a message without a length" }),
    }
}

/// A column of a row; `None` is NULL.
pub(super) type Column = Option<Vec<u8>>;

/// The columns of a row.
pub(super) fn row(content: &[u8]) -> Result<Vec<Column>, PgError> {
    let bad = || PgError::Protocol { what: "a row that is cut off" };
    let (count, mut rest) = content.split_first_chunk().ok_or_else(bad)?;
    let count = u16::from_be_bytes(*count);
    if count > COLUMNS_MAX {
        return Err(PgError::Protocol { what: "a row of too many columns" });
    }
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        let (len, after) = rest.split_first_chunk().ok_or_else(bad)?;
        rest = after;
        columns.push(match i32::from_be_bytes(*len) {
            -1 => None,
            len => {
                let len = usize::try_from(len).map_err(|_| bad())?;
                let (value, after) = rest.split_at_checked(len).ok_or_else(bad)?;
                rest = after;
                Some(value.to_vec())
            }
        });
    }
    if rest.is_empty() { Ok(columns) } else { Err(PgError::Protocol { what: "a row with a rest" }) }
}

/// The error in an error message.
pub(super) fn error(content: &[u8]) -> PgError {
    let (mut code, mut parts) = (String::new(), [const { String::new() }; 3]);
    for field in content.split(|byte| *byte == 0) {
        let Some((kind, value)) = field.split_first() else { continue };
        match kind {
            b'C' => code = plain(value),
            b'M' => parts[0] = plain(value),
            b'D' => parts[1] = plain(value),
            b'H' => parts[2] = plain(value),
            _ => {}
        }
    }
    let said: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    PgError::Server { code, message: said.join("; ") }
}

/// Text of a server, fit to be shown.
pub(super) fn plain(text: &[u8]) -> String {
    let shown: String = String::from_utf8_lossy(text).chars().take(TEXT_MAX).collect();
    shown.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_held_against_the_limit_before_anything_else() {
        assert!(matches!(header(b""), Ok(None)));
        assert!(matches!(header(b"D\0\0\0"), Ok(None)));
        assert!(matches!(header(b"D\0\0\0\x09hello"), Ok(Some((b'D', 5)))));
        for bad in [[0, 0, 0, 3], [0, 0, 0, 0], [0x7f, 255, 255, 255], [255; 4], [0x10, 0, 0, 0]] {
            let message = [&b"D"[..], &bad].concat();
            assert!(matches!(header(&message), Err(PgError::Protocol { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_row_is_taken_whole_or_not_at_all() {
        let good = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(row(good).unwrap(), [Some(b"ab".to_vec()), None, Some(Vec::new())]);
        for end in 0..good.len() {
            assert!(row(&good[..end]).is_err(), "{end}");
        }
        assert!(row(&[good, &b"x"[..]].concat()).is_err());
        assert!(row(b"\0\x01\x80\0\0\0").is_err());
        assert!(row(b"\0\x01\x7f\xff\xff\xff").is_err());
        assert!(row(b"\xff\xff").is_err());
    }

    #[test]
    fn an_error_is_shown_without_what_moves_a_cursor() {
        let content = b"SERROR\0C42501\0Mno\x1b[2J right\0Hask\0\0";
        match error(content) {
            PgError::Server { code, message } => {
                assert_eq!((code.as_str(), message.as_str()), ("42501", "no [2J right; ask"));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(error(&[0xff; 5000]), PgError::Server { .. }));
        assert!(matches!(error(b""), PgError::Server { .. }));
    }
}
