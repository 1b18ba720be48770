//! What a run shows while it goes on: one observer each for a terminal, for scripts, and for everyone else.

mod bars;
mod json;
mod plain;
mod ticker;
pub(crate) mod words;

use std::sync::Arc;

use lifeboat::event::Observer;

use super::settings::Voice;

/// An observer that owns standard error until it is finished.
pub(crate) trait Display: Observer {
    /// A line between the others, such as the answer to Ctrl-C.
    fn say(&self, line: &str);

    /// Clears what is drawn; nothing is drawn after it.
    fn finish(&self) {}
}

/// The display for a way of speaking.
pub(crate) fn display(voice: Voice) -> Arc<dyn Display> {
    if voice.json {
        Arc::new(json::Json::new(voice))
    } else if voice.bars && !voice.quiet {
        Arc::new(bars::Bars::new(voice.verbose))
    } else {
        Arc::new(plain::Plain::new(voice))
    }
}
