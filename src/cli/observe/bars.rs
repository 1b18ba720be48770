//! A bar on a terminal: ten times a second it looks at the counters; no worker ever waits for it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use lifeboat::event::{Counters, Event, Observer};
use lifeboat::units::ByteSize;

use super::super::output;
use super::super::render::sanitize;
use super::ticker::Ticker;
use super::{Display, words};

const PERIOD: Duration = Duration::from_millis(100);
/// Before there is anything to count.
const WAITING: &str = "{spinner} {prefix}";
const OPEN_END: &str =
    "{spinner} {prefix}  {binary_bytes}  {binary_bytes_per_sec}  {elapsed}{more}\n  {wide_msg}";
const WITH_END: &str = "{spinner} {prefix}  {bar:20} {percent}% {binary_bytes} of {binary_total_bytes}  \
     {binary_bytes_per_sec}  ETA {eta}{more}\n  {wide_msg}";

/// The bar, and lines above it.
pub(super) struct Bars {
    shared: Arc<Shared>,
    ticker: Ticker,
    verbose: bool,
}

struct Shared {
    counters: Arc<Counters>,
    bar: ProgressBar,
    /// Nothing is drawn before the first phase: somebody may be typing a password.
    started: AtomicBool,
    /// The next entry should leave its name; so all but ten names a second cost one load.
    wants_name: AtomicBool,
    name: Mutex<String>,
    /// What the bar knows: whether there was something to count, and the total or zero.
    shape: Mutex<(bool, u64)>,
}

impl Bars {
    pub(super) fn new(verbose: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let counters = Arc::new(Counters::default());
        bar.set_style(style(WAITING, &counters));
        let shared = Arc::new(Shared {
            counters,
            bar,
            started: AtomicBool::new(false),
            wants_name: AtomicBool::new(true),
            name: Mutex::default(),
            shape: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        Self { shared, ticker: Ticker::start(PERIOD, move || theirs.draw()), verbose }
    }
}

fn style(template: &str, counters: &Arc<Counters>) -> ProgressStyle {
    let counters = Arc::clone(counters);
    let more = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A bar that cannot be drawn harms nobody.
        let _ = out.write_str(&more(&counters));
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("more", more)
}

/// Files, and what went over the line to the store.
fn more(counters: &Counters) -> String {
    let mut out = String::new();
    let files = counters.files.load(Ordering::Relaxed);
    if files > 0 {
        out.push_str(&format!("  {files} files"));
    }
    for (counter, what) in [(&counters.bytes_stored, "stored"), (&counters.bytes_fetched, "fetched")] {
        let bytes = counter.load(Ordering::Relaxed);
        if bytes > 0 {
            out.push_str(&format!("  {} {what}", ByteSize(bytes)));
        }
    }
    out
}

impl Shared {
    fn draw(&self) {
        if !self.started.load(Ordering::Relaxed) {
            return;
        }
        let bytes = self.counters.bytes.load(Ordering::Relaxed);
        let total = self.counters.total_bytes.load(Ordering::Relaxed);
        let shape = (bytes > 0 || total > 0, total);
        if shape != std::mem::replace(&mut *lock(&self.shape), shape) {
            let template = match shape {
                (false, _) => WAITING,
                (true, 0) => OPEN_END,
                (true, _) => WITH_END,
            };
            self.bar.set_style(style(template, &self.counters));
            self.bar.set_length(total);
        }
        self.bar.set_position(bytes);
        let name = std::mem::take(&mut *lock(&self.name));
        if !name.is_empty() {
            self.bar.set_message(name);
        }
        self.wants_name.store(true, Ordering::Relaxed);
        self.bar.tick();
    }

    fn remember(&self, path: &Path) {
        if self.wants_name.load(Ordering::Relaxed) && self.wants_name.swap(false, Ordering::Relaxed) {
            *lock(&self.name) = sanitize::path(path);
        }
    }

    fn note(&self, line: &str) {
        if self.started.load(Ordering::Relaxed) {
            self.bar.suspend(|| output::note(line));
        } else {
            output::note(line);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Observer for Bars {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::PhaseStarted { phase, total } => {
                if let Some(total) = total {
                    self.shared.counters.total_bytes.store(*total, Ordering::Relaxed);
                }
                self.shared.bar.set_prefix(words::doing(*phase));
                self.shared.started.store(true, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_valid() {
        for template in [WAITING, OPEN_END, WITH_END] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn only_what_happens_is_shown() {
        let counters = Counters::default();
        assert_eq!(more(&counters), "");
        Counters::add(&counters.files, 3);
        Counters::add(&counters.bytes_stored, 2048);
        assert_eq!(more(&counters), "  3 files  2.0 KiB stored");
    }
}
