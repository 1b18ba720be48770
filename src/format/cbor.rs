//! Small helpers over `minicbor` for the signed and sealed values: maps with ascending integer keys.

use minicbor::decode::Decoder;
use minicbor::encode::Encoder;

use super::FormatError;

/// Writes into memory, which cannot fail.
pub(super) type Out<'a> = Encoder<&'a mut Vec<u8>>;
/// Result of writing into memory.
pub(super) type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// Encodes with `write` into a fresh vector.
pub(super) fn encode(write: impl FnOnce(&mut Out<'_>) -> Written) -> Vec<u8> {
    let mut out = Vec::new();
    let written = write(&mut Encoder::new(&mut out));
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
    out
}

/// Reads one value of a section from untrusted bytes.
pub(super) struct Cbor<'a> {
    d: Decoder<'a>,
    section: &'static str,
    what: &'static str,
}

impl<'a> Cbor<'a> {
    /// Reads from the start of `bytes`; errors name the section and the value.
    pub(super) fn new(bytes: &'a [u8], section: &'static str, what: &'static str) -> Self {
        Self { d: Decoder::new(bytes), section, what }
    }

    fn bad(&self) -> FormatError {
        FormatError::Cbor { section: self.section, what: self.what }
    }

    /// A field holds what it may not.
    pub(super) fn value(&self, what: &'static str) -> FormatError {
        FormatError::Value { section: self.section, what }
    }

    /// Goes through a map: keys must ascend; `field` returns false for a key it does not know, which is skipped.
    pub(super) fn map(
        &mut self,
        mut field: impl FnMut(&mut Self, u32) -> Result<bool, FormatError>,
    ) -> Result<(), FormatError> {
        let fields = self.d.map().map_err(|_| self.bad())?.ok_or_else(|| self.bad())?;
        let mut last = None;
        for _ in 0..fields {
            let key = self.u32()?;
            if last.is_some_and(|last| key <= last) {
                return Err(self.value("order of fields"));
            }
            last = Some(key);
            if !field(self, key)? {
                self.d.skip().map_err(|_| self.bad())?;
            }
        }
        Ok(())
    }

    /// Goes through an array of at most `max` items.
    pub(super) fn array<T>(
        &mut self,
        max: u64,
        mut item: impl FnMut(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let len = self.d.array().map_err(|_| self.bad())?.ok_or_else(|| self.bad())?;
        if len > max {
            return Err(self.value("length of a list"));
        }
        (0..len).map(|_| item(self)).collect()
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        self.d.u8().map_err(|_| self.bad())
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.d.u32().map_err(|_| self.bad())
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.d.u64().map_err(|_| self.bad())
    }

    pub(super) fn i64(&mut self) -> Result<i64, FormatError> {
        self.d.i64().map_err(|_| self.bad())
    }

    pub(super) fn bytes(&mut self, max: usize) -> Result<Vec<u8>, FormatError> {
        let bytes = self.d.bytes().map_err(|_| self.bad())?;
        if bytes.len() > max { Err(self.value("length of a field")) } else { Ok(bytes.to_vec()) }
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let bytes = self.d.bytes().map_err(|_| self.bad())?;
        bytes.try_into().map_err(|_| self.value("length of a field"))
    }

    pub(super) fn text(&mut self, max: usize) -> Result<String, FormatError> {
        let text = self.d.str().map_err(|_| self.bad())?;
        if text.len() > max { Err(self.value("length of a field")) } else { Ok(text.to_owned()) }
    }

    /// Demands that everything has been read.
    pub(super) fn finish(self, len: usize) -> Result<(), FormatError> {
        if self.d.position() == len { Ok(()) } else { Err(FormatError::TrailingBytes) }
    }
}
