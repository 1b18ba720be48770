//! A thread that does something at a steady pace.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Stops, and waits for the last beat, when it is stopped or dropped.
pub(super) struct Ticker {
    stopped: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Ticker {
    /// Calls `beat` every `period` from a thread of its own. Without a thread there are no beats, and nothing is lost.
    pub(super) fn start(period: Duration, beat: impl Fn() + Send + 'static) -> Self {
        let stopped = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = Arc::clone(&stopped);
        let run = move || {
            let (flag, bell) = &*theirs;
            let mut guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
            while !*guard {
                guard = bell.wait_timeout(guard, period).unwrap_or_else(PoisonError::into_inner).0;
                if !*guard {
                    beat();
                }
            }
        };
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(run).ok();
        Self { stopped, thread: Mutex::new(thread) }
    }

    /// No beat comes after this.
    pub(super) fn stop(&self) {
        let (flag, bell) = &*self.stopped;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A beat that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_beats_until_it_is_stopped() {
        let (sender, receiver) = mpsc::channel();
        let ticker = Ticker::start(Duration::from_millis(1), move || sender.send(()).unwrap_or(()));
        receiver.recv().unwrap();
        receiver.recv().unwrap();
        ticker.stop();
        while receiver.try_recv().is_ok() {}
        assert!(receiver.recv().is_err(), "the sender is gone");
    }
}
