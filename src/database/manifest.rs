//! The manifest of a backup, which `pg_verifybackup` holds a data directory against: a JSON object with a line for each
//! file, its own SHA-256 in the last one.
//!
//! # Invariants
//! Lines leave as they come, so memory does not grow with the number of files.

use std::fmt::Write as _;
use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256};

use crate::format::node::FileTime;
use crate::postgres::Lsn;

/// Name of its file.
pub const MANIFEST: &str = "backup_manifest";

/// What the log holds that makes the backup consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The timeline.
    pub timeline: u32,
    /// From here.
    pub start: Lsn,
    /// Up to here.
    pub end: Lsn,
}

/// A manifest that is being written.
pub struct Manifest<W> {
    out: W,
    sum: Context,
    len: u64,
    files: u64,
}

/// A SHA-256 that is being computed.
pub struct Sum(Context);

impl Sum {
    /// The sum of nothing.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Takes what follows.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// In hexadecimal digits.
    pub fn finish(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Write> Manifest<W> {
    /// Begins the manifest of a server of this major version, which calls itself so.
    pub fn new(out: W, major: u32, system: u64) -> io::Result<Self> {
        let mut manifest = Self { out, sum: Context::new(&SHA256), len: 0, files: 0 };
        let head = if major >= 17 {
            format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system},\n")
        } else {
            "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n".to_owned()
        };
        manifest.put(&head)?;
        manifest.put("\"Files\": [")?;
        Ok(manifest)
    }

    /// Adds a file: its path below the data directory, size, time of its last change, and SHA-256.
    pub fn file(&mut self, path: &[u8], size: u64, (time, sum): (FileTime, &str)) -> io::Result<()> {
        let comma = if self.files == 0 { "" } else { "," };
        self.files += 1;
        let path = match str::from_utf8(path) {
            Ok(text) => format!("\"Path\": {}", json(text)),
            Err(_) => format!("\"Encoded-Path\": \"{}\"", hex(path)),
        };
        let time = moment(time);
        self.put(&format!(
            "{comma}\n{{ {path}, \"Size\": {size}, \"Last-Modified\": \"{time}\", \
             \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{sum}\" }}"
        ))
    }

    /// Ends the manifest; gives what it was written to, and its length.
    pub fn finish(mut self, Range { timeline, start, end }: Range) -> io::Result<(W, u64)> {
        self.put(&format!(
            "\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}\n],\n"
        ))?;
        let Self { mut out, sum, len, .. } = self;
        let last = format!("\"Manifest-Checksum\": \"{}\"}}\n", hex(sum.finish().as_ref()));
        out.write_all(last.as_bytes())?;
        Ok((out, len + last.len() as u64))
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.sum.update(text.as_bytes());
        self.len += text.len() as u64;
        self.out.write_all(text.as_bytes())
    }
}

/// The manifest without the file at `path`, if it names it; for a manifest that [`Manifest`] wrote.
pub fn without(manifest: &[u8], path: &str) -> Vec<u8> {
    let named = format!("{{ \"Path\": {},", json(path));
    let mut kept: Vec<&[u8]> = Vec::new();
    for line in manifest.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"\"Manifest-Checksum\":") {
            break;
        }
        if !line.starts_with(named.as_bytes()) {
            kept.push(line);
        }
    }
    // The last file has no comma.
    let mut text = Vec::with_capacity(manifest.len());
    for (at, line) in kept.iter().enumerate() {
        let ends = kept.get(at + 1).is_some_and(|next| next.starts_with(b"],"));
        match line.strip_suffix(b",\n") {
            Some(line) if ends && line.starts_with(b"{ \"") => {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            _ => text.extend_from_slice(line),
        }
    }
    let mut sum = Context::new(&SHA256);
    sum.update(&text);
    let last = format!("\"Manifest-Checksum\": \"{}\"}}\n", hex(sum.finish().as_ref()));
    text.extend_from_slice(last.as_bytes());
    text
}

fn moment(time: FileTime) -> String {
    let time = jiff::Timestamp::new(time.seconds, 0).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S GMT").to_string()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A string of JSON, as PostgreSQL reads it.
fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(paths: &[&[u8]], major: u32) -> Vec<u8> {
        let mut manifest = Manifest::new(Vec::new(), major, u64::MAX).unwrap();
        for path in paths {
            let sum = Sum::new().finish();
            manifest.file(path, 0, (FileTime { seconds: 86_400, nanos: 5 }, &sum)).unwrap();
        }
        let range = Range { timeline: 1, start: Lsn(0x200_0028), end: Lsn(0x200_0100) };
        let (bytes, len) = manifest.finish(range).unwrap();
        assert_eq!(bytes.len() as u64, len);
        bytes
    }

    #[test]
    fn a_manifest_is_json_with_its_own_sum() {
        for major in [15, 17] {
            let bytes = made(&[b"a", b"odd \"\\\x01 name", b"b\xff"], major);
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["Files"].as_array().unwrap().len(), 3);
            assert_eq!(value["Files"][1]["Path"], "odd \"\\\u{1} name");
            assert_eq!(value["Files"][2]["Encoded-Path"], "62ff");
            assert_eq!(value["Files"][0]["Last-Modified"], "1970-01-02 00:00:00 GMT");
            assert_eq!(value["System-Identifier"].is_null(), major < 17);
            let at = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
            let mut sum = Sum::new();
            sum.update(&bytes[..at]);
            assert_eq!(value["Manifest-Checksum"], sum.finish());
        }
        let empty: serde_json::Value = serde_json::from_slice(&made(&[], 15)).unwrap();
        assert!(empty["Files"].as_array().unwrap().is_empty());
    }

    #[test]
    fn a_file_is_taken_out_as_if_it_had_never_been_in() {
        for paths in [[&b"a"[..], b"map", b"z"], [b"map", b"y", b"z"], [b"a", b"b", b"map"]] {
            let rest: Vec<&[u8]> = paths.iter().copied().filter(|path| *path != b"map").collect();
            assert_eq!(without(&made(&paths, 15), "map"), made(&rest, 15), "{paths:?}");
        }
        assert_eq!(without(&made(&[b"a"], 15), "map"), made(&[b"a"], 15));
        without(b"not a manifest", "map");
        without(b"", "map");
    }
}
