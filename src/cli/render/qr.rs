//! A QR code, for a terminal and as a picture.
//!
//! A picture is a PNG (RFC 2083) of one bit a pixel: signature, header, one chunk of zlib data, end.

use std::io::Write;

use flate2::Crc;
use flate2::write::ZlibEncoder;
use qrcode::{Color, QrCode};
use zeroize::Zeroizing;

/// Light modules that a reader needs around the code.
const QUIET: usize = 4;
/// Pixels of a picture for a module.
const SCALE: usize = 8;

/// Dark and light modules in a square, the quiet ones included. What the encoder needed on the way is not wiped.
pub(crate) struct Qr {
    width: usize,
    dark: Zeroizing<Vec<bool>>,
}

impl Qr {
    /// The code of a text; `None` if the text is too long for one.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let code = QrCode::new(text).ok()?;
        let inner = code.width();
        let modules = code.into_colors();
        let width = inner + 2 * QUIET;
        let mut dark = Zeroizing::new(vec![false; width * width]);
        for (number, color) in modules.into_iter().enumerate() {
            let (row, column) = (number / inner + QUIET, number % inner + QUIET);
            dark[row * width + column] = color == Color::Dark;
        }
        Some(Self { width, dark })
    }

    fn is_dark(&self, row: usize, column: usize) -> bool {
        row < self.width && self.dark[row * self.width + column]
    }

    /// Two rows a line, black on white whatever colours the terminal has.
    pub(crate) fn terminal(&self) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::with_capacity(self.width * (self.width + 16) * 2));
        for row in (0..self.width).step_by(2) {
            out.push_str("\u{1b}[30;107m");
            for column in 0..self.width {
                out.push(match (self.is_dark(row, column), self.is_dark(row + 1, column)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            out.push_str("\u{1b}[0m\n");
        }
        out
    }

    /// The bytes of a PNG.
    pub(crate) fn png(&self) -> Zeroizing<Vec<u8>> {
        let side = self.width * SCALE;
        let mut rows = Zeroizing::new(Vec::with_capacity(side * (side / 8 + 1)));
        for row in 0..self.width {
            for _ in 0..SCALE {
                rows.push(0); // no filter
                // A module is eight pixels, so a byte; white is 1.
                rows.extend((0..self.width).map(|column| if self.is_dark(row, column) { 0 } else { 0xff }));
            }
        }
        let mut zlib = ZlibEncoder::new(Vec::with_capacity(rows.len()), flate2::Compression::best());
        zlib.write_all(&rows).expect("a vector takes all bytes");
        let data = Zeroizing::new(zlib.finish().expect("a vector takes all bytes"));
        let mut header = Vec::with_capacity(13);
        header.extend_from_slice(&(side as u32).to_be_bytes());
        header.extend_from_slice(&(side as u32).to_be_bytes());
        // One bit, grey, deflate, no filter, not interlaced.
        header.extend_from_slice(&[1, 0, 0, 0, 0]);
        let mut out = Zeroizing::new(Vec::with_capacity(data.len() + 64));
        out.extend_from_slice(b"\x89PNG\r\n\x1a\n");
        for (name, content) in [(b"IHDR", &header[..]), (b"IDAT", &data), (b"IEND", &[])] {
            let mut crc = Crc::new();
            crc.update(name);
            crc.update(content);
            out.extend_from_slice(&(content.len() as u32).to_be_bytes());
            out.extend_from_slice(name);
            out.extend_from_slice(content);
            out.extend_from_slice(&crc.sum().to_be_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
        abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

    #[test]
    fn a_code_has_its_corners_and_room_around() {
        let code = Qr::of(WORDS).unwrap();
        assert_eq!((code.width - 2 * QUIET) % 4, 1, "17 and four times a version");
        assert!((0..code.width).all(|at| !code.is_dark(QUIET - 1, at) && !code.is_dark(at, QUIET - 1)));
        for (row, column) in
            [(QUIET, QUIET), (QUIET, code.width - QUIET - 7), (code.width - QUIET - 7, QUIET)]
        {
            for at in 0..7 {
                assert!(code.is_dark(row, column + at) && code.is_dark(row + at, column + 6));
            }
            assert!(!code.is_dark(row + 1, column + 1) && code.is_dark(row + 3, column + 3));
        }
        assert!(Qr::of(&"x".repeat(10_000)).is_none());
    }

    #[test]
    fn a_terminal_gets_two_rows_a_line_and_its_colours_back() {
        let code = Qr::of("a").unwrap();
        let text = code.terminal();
        assert_eq!(text.lines().count(), code.width.div_ceil(2));
        for (number, line) in text.lines().enumerate() {
            let modules = line.strip_prefix("\u{1b}[30;107m").unwrap().strip_suffix("\u{1b}[0m").unwrap();
            assert_eq!(modules.chars().count(), code.width);
            for (column, shown) in modules.chars().enumerate() {
                let above = code.is_dark(2 * number, column);
                assert_eq!(matches!(shown, '█' | '▀'), above, "{number} {column}");
            }
        }
    }

    #[test]
    fn a_picture_is_a_png_of_the_same_modules() {
        use std::io::Read;
        let code = Qr::of(WORDS).unwrap();
        let png = code.png();
        assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
        let (mut rest, mut data) = (&png[8..], Vec::new());
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (chunk, after) = after.split_at(4 + u32::from_be_bytes(*len) as usize);
            let (sum, after) = after.split_first_chunk::<4>().unwrap();
            let mut crc = Crc::new();
            crc.update(chunk);
            assert_eq!(crc.sum(), u32::from_be_bytes(*sum));
            if &chunk[..4] == b"IDAT" {
                data.extend_from_slice(&chunk[4..]);
            }
            rest = after;
        }
        let mut rows = Vec::new();
        flate2::read::ZlibDecoder::new(&data[..]).read_to_end(&mut rows).unwrap();
        assert_eq!(rows.len(), code.width * SCALE * (code.width + 1));
        for (number, row) in rows.chunks(code.width + 1).enumerate() {
            assert_eq!(row[0], 0);
            for (column, byte) in row[1..].iter().enumerate() {
                assert_eq!(*byte == 0, code.is_dark(number / SCALE, column));
            }
        }
    }
}
