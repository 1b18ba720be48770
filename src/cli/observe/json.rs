//! Events as JSON lines on standard error; `docs/json.md` describes them.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lifeboat::event::{Counters, Event, Observer};
use serde_json::{Map, Value, json};

use super::super::output;
use super::super::render::json::put_bytes;
use super::super::settings::Voice;
use super::ticker::Ticker;
use super::{Display, words};

const PERIOD: Duration = Duration::from_secs(1);

/// Events, and once a second the counters.
pub(super) struct Json {
    counters: Arc<Counters>,
    voice: Voice,
    ticker: Option<Ticker>,
}

impl Json {
    pub(super) fn new(voice: Voice) -> Self {
        let counters = Arc::new(Counters::default());
        let theirs = Arc::clone(&counters);
        let beat = move || output::note(&progress(&theirs).to_string());
        let ticker = (!voice.quiet).then(|| Ticker::start(PERIOD, beat));
        Self { counters, voice, ticker }
    }
}

fn progress(counters: &Counters) -> Value {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "type": "progress",
        "entries": get(&counters.entries),
        "files": get(&counters.files),
        "bytes": get(&counters.bytes),
        "bytes_read": get(&counters.bytes_read),
        "bytes_stored": get(&counters.bytes_stored),
        "bytes_fetched": get(&counters.bytes_fetched),
        "failed": get(&counters.failed),
        "total_bytes": get(&counters.total_bytes),
    })
}

fn object(event: &Event<'_>) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    match event {
        Event::PhaseStarted { phase, total } => {
            put("type", "phase_started".into());
            put("phase", words::phase(*phase).into());
            put("total", json!(total));
        }
        Event::PhaseFinished { phase } => {
            put("type", "phase_finished".into());
            put("phase", words::phase(*phase).into());
        }
        Event::Entry { path, change } => {
            put("type", "entry".into());
            put("change", words::change(*change).into());
            put_bytes(&mut out, "path", path.as_os_str().as_bytes());
        }
        Event::EntryFailed { path, error, class } => {
            put("type", "entry_failed".into());
            put("error", error.to_string().into());
            put("causes", json!(words::causes(*error)));
            put("class", words::class(*class).into());
            put_bytes(&mut out, "path", path.as_os_str().as_bytes());
        }
        Event::Warning { message } => {
            put("type", "warning".into());
            put("message", (*message).into());
        }
        Event::Said { name, line } => {
            put("type", "said".into());
            put("line", (*line).into());
            put_bytes(&mut out, "name", name.as_os_str().as_bytes());
        }
        Event::Retrying { key, attempt, error } => {
            put("type", "retry".into());
            put("key", (*key).into());
            put("attempt", (*attempt).into());
            put("error", error.to_string().into());
            put("causes", json!(words::causes(*error)));
        }
        Event::Committed { snapshot } => {
            put("type", "committed".into());
            put("snapshot", snapshot.to_string().into());
        }
    }
    Value::Object(out)
}

impl Observer for Json {
    fn observe(&self, event: &Event<'_>) {
        let failed = matches!(event, Event::EntryFailed { .. });
        if failed {
            Counters::add(&self.counters.failed, 1);
        }
        let unwanted = matches!(event, Event::Entry { .. }) && !self.voice.verbose;
        if failed || !(self.voice.quiet || unwanted) {
            output::note(&object(event).to_string());
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn wants_entries(&self) -> bool {
        self.voice.verbose
    }
}

impl Display for Json {
    fn say(&self, line: &str) {
        output::note(&json!({"type": "note", "message": line}).to_string());
    }

    fn finish(&self) {
        if let Some(ticker) = &self.ticker {
            ticker.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lifeboat::class::Class;

    use super::*;

    #[test]
    fn a_failed_entry_has_its_path_and_causes() {
        let error = std::io::Error::other("no");
        let event = Event::EntryFailed { path: Path::new("/a"), error: &error, class: Class::Partial };
        let expected =
            json!({"type": "entry_failed", "path": "/a", "error": "no", "causes": [], "class": "partial"});
        assert_eq!(object(&event), expected);
    }
}
