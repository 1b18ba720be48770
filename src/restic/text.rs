//! How restic writes values into JSON: ids in hexadecimal, bytes in base64, times as RFC 3339, names as Go quotes strings.

use std::fmt;

use jiff::civil::Date;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::format::node::FileTime;
use crate::id::ResticId;

/// Deserializes a string by a function, without a copy of it.
struct Text<F>(&'static str, F);

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let what = self.0;
        (self.1)(text).ok_or_else(|| E::custom(format_args!("not {what}")))
    }
}

impl<'de> Deserialize<'de> for ResticId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("an id", |text: &str| text.parse().ok()))
    }
}

/// Bytes in base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Base64(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("base64", |text: &str| base64(text.as_bytes()).map(Self)))
    }
}

/// A point in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Time(pub(super) FileTime);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("a time", |text: &str| time(text).map(Self)))
    }
}

/// The raw bytes of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Name(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("a quoted name", |text: &str| unquote(text).map(Self)))
    }
}

/// Decodes standard base64 with padding and nothing else.
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| -> Option<u32> {
        Some(u32::from(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }))
    };
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let digits = &text[..text.len() - padding];
    for group in digits.chunks(4) {
        let mut bits = 0;
        for byte in group {
            bits = bits << 6 | digit(*byte)?;
        }
        bits <<= 6 * (4 - group.len() as u32);
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend_from_slice(&bytes[..group.len() - 1]);
        // Bits that are left over must be zero, or one value would have several forms.
        if bytes[group.len() - 1..].iter().any(|byte| *byte != 0) {
            return None;
        }
    }
    Some(out)
}

/// Reads a time as RFC 3339 has it, of the years 0000 to 9999.
pub(super) fn time(text: &str) -> Option<FileTime> {
    let (date, rest) = text.split_once('T')?;
    let zone = rest.find(['Z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hours, minutes, seconds] = numbers(clock, ':', [2, 2, 2])?;
    let date = Date::new(year as i16, month as i8, day as i8).ok()?;
    let days = date.since(Date::constant(1970, 1, 1)).ok()?.get_days();
    if hours > 23 || minutes > 59 || seconds > 59 || fraction.len() > 9 {
        return None;
    }
    let [nanos] = numbers(fraction, '.', [fraction.len()])?;
    let nanos = nanos * 10_u32.pow(9 - fraction.len() as u32);
    let local = i64::from(days) * 86_400 + i64::from(hours * 3600 + minutes * 60 + seconds);
    let offset = match zone.split_at(1) {
        ("Z", "") => 0,
        (sign, zone) => {
            let [hours, minutes] = numbers(zone, ':', [2, 2])?;
            let offset = i64::from(hours * 3600 + minutes * 60);
            if sign == "-" { -offset } else { offset }
        }
    };
    Some(FileTime { seconds: local - offset, nanos })
}

/// Decimal numbers of these many digits with a separator between them.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u32; N]> {
    let mut parts = text.split(separator);
    let mut out = [0; N];
    for (number, digits) in out.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && digits > 0)?;
        let plain = part.bytes().all(|byte| byte.is_ascii_digit());
        *number = plain.then(|| part.parse().ok()).flatten()?;
    }
    parts.next().is_none().then_some(out)
}

/// Takes the escapes of a Go string in double quotes out of what stands between them.
pub(super) fn unquote(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest[at..].strip_prefix('\\')?;
        let kind = escape.chars().next()?;
        let number = |digits: usize, radix: u32, skip: usize| {
            let text = escape.get(skip..skip + digits)?;
            let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
            plain.then(|| u32::from_str_radix(text, radix).ok()).flatten()
        };
        let used = match kind {
            'x' => {
                out.push(u8::try_from(number(2, 16, 1)?).ok()?);
                3
            }
            '0'..='7' => {
                out.push(u8::try_from(number(3, 8, 0)?).ok()?);
                3
            }
            'u' | 'U' => {
                let digits = if kind == 'u' { 4 } else { 8 };
                let character = char::from_u32(number(digits, 16, 1)?)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                1 + digits
            }
            _ => {
                out.push(plain_escape(kind)?);
                1
            }
        };
        rest = &escape[used..];
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

fn plain_escape(kind: char) -> Option<u8> {
    Some(match kind {
        'a' => 7,
        'b' => 8,
        't' => b'\t',
        'n' => b'\n',
        'v' => 11,
        'f' => 12,
        'r' => b'\r',
        '\\' => b'\\',
        '"' => b'"',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_give_the_raw_bytes() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("plain é \u{1f600} \u{fffd}", "plain é \u{1f600} \u{fffd}".as_bytes()),
            (r#"a\"b\\c"#, b"a\"b\\c"),
            (r"\a\b\f\n\r\t\v", b"\x07\x08\x0c\n\r\t\x0b"),
            (r"\xff\xfeA\x00", b"\xff\xfeA\0"),
            (r"\u00e9\U0001f600", "é\u{1f600}".as_bytes()),
            (r"\101\377", b"A\xff"),
        ] {
            assert_eq!(unquote(text).as_deref(), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_go_would_not_unquote_is_refused() {
        for bad in [
            "\"",
            "a\nb",
            "\\",
            "\\q",
            "\\'",
            "\\x1",
            "\\xgg",
            "\\x+1",
            "\\400",
            "\\08",
            "\\ud800",
            "\\U00110000",
            "\\u12",
            "\\xé",
            "\\é",
        ] {
            assert_eq!(unquote(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn base64_has_one_form() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("AA==", b"\0"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes));
        }
        for bad in ["A", "AA", "AA=", "AB==", "AAB=", "A===", "====", "AA==AA==", "-_-_", "AA= =", "AAA\n"] {
            assert_eq!(base64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn times_keep_their_nanoseconds_before_and_after_1970() {
        let at = |seconds, nanos| Some(FileTime { seconds, nanos });
        assert_eq!(time("1970-01-01T01:00:00.000000001+01:00"), at(0, 1));
        assert_eq!(time("1969-12-31T23:59:59.9Z"), at(-1, 900_000_000));
        assert_eq!(time("0001-01-01T00:00:00Z"), at(-62_135_596_800, 0));
        assert_eq!(time("9999-12-31T23:59:59-23:59"), at(253_402_387_139, 0));
        assert_eq!(time("2020-02-29T12:34:56.123456789Z"), at(1_582_979_696, 123_456_789));
        for bad in [
            "",
            "now",
            "2020-01-01",
            "2020-13-01T00:00:00Z",
            "2021-02-29T00:00:00Z",
            "2020-01-01T24:00:00Z",
            "2020-01-01T00:00:00",
            "2020-01-01T00:00:00.Z",
            "2020-01-01T00:00:00.1234567890Z",
            "2020-01-01T00:00:00+1",
            "2020-01-01T00:00:00ZZ",
            "+020-01-01T00:00:00Z",
            "99999-01-01T00:00:00Z",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in any::<String>(), odd in r#"[\\xuU"0-9a-f\n]{0,12}"#) {
            for text in [text.as_str(), odd.as_str()] {
                let _ = (unquote(text), base64(text.as_bytes()), time(text));
            }
        }
    }
}
