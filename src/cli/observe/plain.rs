//! Lines without a terminal: silent while all is well.

use lifeboat::event::{Counters, Event, Observer};

use super::super::output;
use super::super::render::sanitize;
use super::super::settings::Voice;
use super::{Display, words};

/// Errors; warnings unless quiet; entries if verbose.
pub(super) struct Plain {
    counters: Counters,
    voice: Voice,
}

impl Plain {
    pub(super) fn new(voice: Voice) -> Self {
        Self { counters: Counters::default(), voice }
    }
}

impl Observer for Plain {
    fn observe(&self, event: &Event<'_>) {
        if let Event::EntryFailed { .. } = event {
            Counters::add(&self.counters.failed, 1);
        }
        if let Event::Entry { path, change } = event
            && self.voice.verbose
        {
            output::note(&format!("{:9} {}", words::change(*change), sanitize::path(path)));
        }
        if let Some((is_error, line)) = words::line(event)
            && (is_error || !self.voice.quiet)
        {
            output::note(&line);
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn wants_entries(&self) -> bool {
        self.voice.verbose
    }
}

impl Display for Plain {
    fn say(&self, line: &str) {
        output::note(line);
    }
}
