//! A bar on a terminal: ten times a second it looks at the counters; no worker ever waits for it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lifeboat::event::{Counters, Event, Observer};

use super::super::output;
use super::super::render::sanitize;
use super::ticker::Ticker;
use super::{Display, words};

const PERIOD: Duration = Duration::from_millis(100);
const OPEN_END: &str = "{spinner} {prefix}  {bytes}  {binary_bytes_per_sec}  {elapsed}\n  {wide_msg}";
const WITH_END: &str =
    "{spinner} {prefix}  {bar:24} {bytes} of {total_bytes}  {binary_bytes_per_sec}  ETA {eta}\n  {wide_msg}";

/// The bar, and lines above it.
pub(super) struct Bars {
    shared: Arc<Shared>,
    ticker: Ticker,
    verbose: bool,
}

struct Shared {
    counters: Counters,
    bar: ProgressBar,
    /// The next entry should leave its name; so all but ten names a second cost one load.
    wants_name: AtomicBool,
    name: Mutex<String>,
    /// The total the bar has; zero while it is not known.
    total: AtomicU64,
}

impl Bars {
    pub(super) fn new(verbose: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(style(OPEN_END));
        let shared = Arc::new(Shared {
            counters: Counters::default(),
            bar,
            wants_name: AtomicBool::new(true),
            name: Mutex::default(),
            total: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        Self { shared, ticker: Ticker::start(PERIOD, move || theirs.draw()), verbose }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Shared {
    fn draw(&self) {
        let total = self.counters.total_bytes.load(Ordering::Relaxed);
        if total != self.total.swap(total, Ordering::Relaxed) {
            self.bar.set_style(style(if total == 0 { OPEN_END } else { WITH_END }));
            self.bar.set_length(total);
        }
        self.bar.set_position(self.counters.bytes.load(Ordering::Relaxed));
        let name = std::mem::take(&mut *self.name.lock().unwrap_or_else(PoisonError::into_inner));
        if !name.is_empty() {
            self.bar.set_message(name);
        }
        self.wants_name.store(true, Ordering::Relaxed);
        self.bar.tick();
    }

    fn remember(&self, path: &Path) {
        if self.wants_name.load(Ordering::Relaxed) && self.wants_name.swap(false, Ordering::Relaxed) {
            *self.name.lock().unwrap_or_else(PoisonError::into_inner) = sanitize::path(path);
        }
    }

    fn note(&self, line: &str) {
        self.bar.suspend(|| output::note(line));
    }
}

impl Observer for Bars {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::PhaseStarted { phase, total } => {
                if let Some(total) = total {
                    self.shared.counters.total_bytes.store(*total, Ordering::Relaxed);
                }
                self.shared.bar.set_prefix(words::doing(*phase));
            }
            Event::Entry { path, change } if self.verbose => {
                self.shared.note(&format!("{:9} {}", words::change(*change), sanitize::path(path)));
            }
            Event::Entry { path, .. } => self.shared.remember(path),
            Event::EntryFailed { .. } => Counters::add(&self.shared.counters.failed, 1),
            _ => {}
        }
        if let Some((_, line)) = words::line(event) {
            self.shared.note(&line);
        }
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn wants_entries(&self) -> bool {
        true
    }
}

impl Display for Bars {
    fn say(&self, line: &str) {
        self.shared.note(line);
    }

    fn finish(&self) {
        self.ticker.stop();
        self.shared.bar.finish_and_clear();
    }
}
