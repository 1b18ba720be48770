//! Names and messages on a terminal. A file's name is chosen by whoever made the file: it must not move the cursor, hide
//! what stands before it, or pass for another name.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A name: control and direction characters, bytes that are not UTF-8, and the backslash are written as escapes, so two
/// names never look the same.
pub(crate) fn name(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        part.valid().chars().for_each(|c| push(&mut out, c, true));
        part.invalid().iter().for_each(|byte| push_byte(&mut out, *byte));
    }
    out
}

/// As [`name`], of a path.
pub(crate) fn path(path: &Path) -> String {
    name(path.as_os_str().as_bytes())
}

/// A message of one line; backslashes stay, because the parts of it may be escaped already.
pub(crate) fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut out, c, false));
    out
}

fn push(out: &mut String, c: char, backslash: bool) {
    match c {
        '\\' if backslash => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c.is_ascii_control() => push_byte(out, c as u8),
        c if c.is_control() || is_deceptive(c) => {
            let infallible = write!(out, "\\u{{{:x}}}", u32::from(c));
            debug_assert!(infallible.is_ok(), "writing to memory cannot fail");
        }
        c => out.push(c),
    }
}

fn push_byte(out: &mut String, byte: u8) {
    let infallible = write!(out, "\\x{byte:02x}");
    debug_assert!(infallible.is_ok(), "writing to memory cannot fail");
}

/// Characters that change direction, break lines, or take no room.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_act_on_a_terminal() {
        for (bytes, shown) in [
            (&b"plain name"[..], "plain name"),
            ("größe".as_bytes(), "größe"),
            (b"a\x1b[2Jb", "a\\x1b[2Jb"),
            (b"a\nb\r\t", "a\\nb\\r\\t"),
            (b"\x7f\x00", "\\x7f\\x00"),
            (b"caf\xe9", "caf\\xe9"),
            ("x\u{202e}gnp.exe".as_bytes(), "x\\u{202e}gnp.exe"),
            ("\u{9b}2J".as_bytes(), "\\u{9b}2J"),
            (b"a\\x1b", "a\\\\x1b"),
        ] {
            assert_eq!(name(bytes), shown);
        }
        assert_eq!(line("cannot read a\\b\u{7}"), "cannot read a\\b\\x07");
    }
}
