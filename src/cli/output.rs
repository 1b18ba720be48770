//! Standard output and standard error.
//!
//! # Invariants
//! Results go to standard output; events, warnings and errors to standard error. A reader that went away is an error of
//! its own, which ends the run quietly.

use std::io::{self, BufWriter, Write};

use serde_json::Value;

use super::error::CliError;
use super::settings::Voice;

/// Standard output, buffered; the end of what was written is only there after [`Output::finish`].
pub(crate) struct Output {
    voice: Voice,
    out: BufWriter<io::Stdout>,
}

impl Output {
    pub(crate) fn new(voice: Voice) -> Self {
        Self { voice, out: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    /// How this run speaks.
    pub(crate) fn voice(&self) -> Voice {
        self.voice
    }

    /// One JSON object on a line.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), CliError> {
        writeln!(self.out, "{value}").map_err(CliError::Output)
    }

    /// Text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.out.write_all(text.as_bytes()).map_err(CliError::Output)
    }

    /// Hands over what was written so far: somebody is about to be asked about it.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush().map_err(CliError::Output)
    }

    /// Raw bytes of a file.
    pub(crate) fn bytes(&mut self) -> &mut (impl Write + Send + use<>) {
        &mut self.out
    }

    /// Hands everything over to the reader.
    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        self.out.flush().map_err(CliError::Output)
    }
}

/// One line on standard output, of a verb that has no session.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CliError::Output)
}

/// One line on standard error; nobody is left to tell if that fails.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
