//! Signals: the first asks for a clean end, the second ends at once, as does `SIGQUIT`; what was started ends, too. A signal that was ignored when the program started,
//! as `nohup` has it, stays ignored.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use lifeboat::cancel::Cancel;
use lifeboat::source::stream::kill_all;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;

const SIGHUP: u8 = 1;
const SIGINT: u8 = 2;
const SIGQUIT: u8 = 3;
const SIGTERM: u8 = 15;

/// Which signal came first; zero for none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received(Arc<AtomicU8>);

impl Received {
    /// How to exit if a signal came.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            signal => Some(Exit::Signal(signal)),
        }
    }
}

/// Listens from now on. Must be called within a runtime. `say` is told once what to show to a person.
pub(crate) fn listen(cancel: Cancel, say: impl Fn(&str) + Send + 'static) -> io::Result<Received> {
    listen_for(cancel, say, true)
}

/// The same for who does something else when it is hung up.
pub(crate) fn listen_without_hang_up(
    cancel: Cancel,
    say: impl Fn(&str) + Send + 'static,
) -> io::Result<Received> {
    listen_for(cancel, say, false)
}

fn listen_for(cancel: Cancel, say: impl Fn(&str) + Send + 'static, hang_up: bool) -> io::Result<Received> {
    let ignored = ignored();
    let watch = |number: u8, kind| {
        let wanted = ignored & 1 << (number - 1) == 0;
        wanted.then(|| signal(kind)).transpose()
    };
    let mut interrupt = watch(SIGINT, SignalKind::interrupt())?;
    let mut terminate = watch(SIGTERM, SignalKind::terminate())?;
    let mut quit = watch(SIGQUIT, SignalKind::quit())?;
    let mut hang_up = if hang_up { watch(SIGHUP, SignalKind::hangup())? } else { None };
    let received = Received::default();
    let first = received.clone();
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                () = next(&mut interrupt) => SIGINT,
                () = next(&mut terminate) => SIGTERM,
                () = next(&mut hang_up) => SIGHUP,
                () = next(&mut quit) => end_at_once(SIGQUIT),
            };
            if first.0.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire).is_err() {
                end_at_once(number);
            }
            cancel.raise();
            say("finishing what is in flight; press again to stop at once");
        }
    });
    Ok(received)
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The signals this process was started to ignore, bit 0 for signal 1; none where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "the second signal means now, whatever other threads do"
)]
fn end_at_once(signal: u8) -> ! {
    // Groups of their own: no signal of the terminal reaches them.
    kill_all();
    std::process::exit(Exit::Signal(signal).code().into())
}
