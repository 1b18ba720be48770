//! Whole objects, fetched within a budget of bytes and checked by threads.
//!
//! # Invariants
//! Objects are held within [`NEAR`], and within [`FAR`] if the store is no directory. Every object is answered for
//! exactly once, in any order. What looks wrong is fetched and checked a second time before it counts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::read::{is_fatal, note_second_read};
use crate::error::Error;
use crate::repo::{Env, RepoError};
use crate::store::{Key, Store, StoreError};

/// Bytes of objects held at a time: two packs that are checked and one on its way.
const NEAR: Bounds = Bounds { held: 52 << 20, coming: 52 << 20 };
/// The same where an answer takes its time: three packs on their way and one that is checked. If all that is held could be on
/// its way, packs would come together and be checked together, and the line would stand still meanwhile.
const FAR: Bounds = Bounds { held: 72 << 20, coming: 54 << 20 };

/// Bytes of objects, unless one is larger.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    held: u64,
    /// Of these on their way.
    coming: u64,
}

/// What a check says of an object's bytes.
pub(super) struct Verdict<R> {
    /// The answer.
    pub(super) answer: R,
    /// Whether the bytes should be fetched again before this is believed.
    pub(super) suspicious: bool,
}

/// A check of one thread: it may keep buffers from object to object.
pub(super) type Check<J, R> = Box<dyn FnMut(&J, &[u8]) -> Result<Verdict<R>, RepoError> + Send>;

/// An object to check.
pub(super) struct Job<J> {
    pub(super) key: Key,
    pub(super) size: u64,
    pub(super) what: J,
}

struct Task<J> {
    job: Job<J>,
    second: bool,
}

struct Answer<J, R> {
    task: Task<J>,
    verdict: Result<Verdict<R>, RepoError>,
}

/// Sends the task back even if the check panics, so that nobody waits for ever.
struct Ticket<J, R> {
    task: Option<Task<J>>,
    answers: UnboundedSender<Option<Answer<J, R>>>,
}

impl<J, R> Ticket<J, R> {
    fn answer(mut self, verdict: Result<Verdict<R>, RepoError>) {
        if let Some(task) = self.task.take() {
            // The other side is gone only when the whole run is.
            let _ = self.answers.send(Some(Answer { task, verdict }));
        }
    }
}

impl<J, R> Drop for Ticket<J, R> {
    fn drop(&mut self) {
        if self.task.is_some() {
            let _ = self.answers.send(None);
        }
    }
}

type Work<J, R> = (Ticket<J, R>, Bytes);

/// The threads; they end when this is dropped.
struct Workers<J, R> {
    work: mpsc::Sender<Work<J, R>>,
    sender: UnboundedSender<Option<Answer<J, R>>>,
    answers: UnboundedReceiver<Option<Answer<J, R>>>,
}

impl<J: Send + 'static, R: Send + 'static> Workers<J, R> {
    fn start(count: usize, make: impl Fn() -> Result<Check<J, R>, RepoError>) -> Result<Self, RepoError> {
        let (work, queue) = mpsc::channel::<Work<J, R>>();
        let queue = Arc::new(Mutex::new(queue));
        let (sender, answers) = unbounded_channel();
        for _ in 0..count.max(1) {
            let queue = Arc::clone(&queue);
            let mut check = make()?;
            let body = move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((ticket, bytes)) = next else { return };
                    let Some(task) = &ticket.task else { return };
                    let verdict = check(&task.job.what, &bytes);
                    drop(bytes);
                    ticket.answer(verdict);
                }
            };
            std::thread::Builder::new().name("verify".into()).spawn(body).map_err(|_| RepoError::Task)?;
        }
        Ok(Self { work, sender, answers })
    }

    fn give(&self, task: Task<J>, bytes: Bytes) -> Result<(), RepoError> {
        let ticket = Ticket { task: Some(task), answers: self.sender.clone() };
        self.work.send((ticket, bytes)).map_err(|_| RepoError::Task)
    }
}

/// Fetches and checks every object; `done` hears of each once, with the size of what was fetched.
pub(super) async fn run<J, R>(
    (store, env): (&Store, &Env),
    jobs: impl IntoIterator<Item = Job<J>>,
    make: impl Fn() -> Result<Check<J, R>, RepoError>,
    mut done: impl FnMut(Job<J>, Result<R, RepoError>),
) -> Result<(), Error>
where
    J: Send + 'static,
    R: Send + 'static,
{
    let mut workers = Workers::start(env.limits.workers, make)?;
    let mut jobs = jobs.into_iter().map(|job| Task { job, second: false }).peekable();
    let mut again: VecDeque<Task<J>> = VecDeque::new();
    let mut fetches = FuturesUnordered::new();
    let (mut held, mut coming, mut checking) = (0_u64, 0_u64, 0_usize);
    let bounds = if store.is_local() { NEAR } else { FAR };
    loop {
        if env.cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        while fetches.len() < env.limits.requests.max(1) {
            // Second looks come last: what passes has had its time, and the order follows from the objects alone.
            let next = jobs.peek().or_else(|| again.front()).map(|task| task.job.size);
            let fits = |size: &u64| held + size <= bounds.held && coming + size <= bounds.coming;
            let Some(size) = next.filter(|size| held == 0 || fits(size)) else { break };
            let Some(task) = jobs.next().or_else(|| again.pop_front()) else { break };
            (held, coming) = (held + size, coming + size);
            fetches.push(async move {
                let bytes = store.get(&task.job.key, size).await;
                (task, bytes)
            });
        }
        if fetches.is_empty() && checking == 0 {
            return Ok(());
        }
        let (task, verdict) = tokio::select! {
            biased;
            Some(answer) = workers.answers.recv(), if checking > 0 => {
                checking -= 1;
                let Answer { task, verdict } = answer.ok_or(RepoError::Task)?;
                (task, verdict)
            }
            Some((task, fetched)) = fetches.next(), if !fetches.is_empty() => {
                coming -= task.job.size;
                match fetched {
                    Ok(bytes) => {
                        checking += 1;
                        workers.give(task, bytes)?;
                        continue;
                    }
                    Err(error) => (task, Err(grown(error).into())),
                }
            }
        };
        held -= task.job.size;
        settle((task, verdict), &mut again, env, &mut done)?;
    }
}

/// An object that has become larger since it was listed is no longer what its name says.
fn grown(error: StoreError) -> StoreError {
    match error {
        StoreError::TooLarge { key, size, max } => StoreError::Short { key, wanted: max, found: size },
        error => error,
    }
}

fn settle<J, R>(
    (task, verdict): (Task<J>, Result<Verdict<R>, RepoError>),
    again: &mut VecDeque<Task<J>>,
    env: &Env,
    done: &mut impl FnMut(Job<J>, Result<R, RepoError>),
) -> Result<(), Error> {
    let suspicious = verdict.as_ref().map_or(true, |verdict| verdict.suspicious);
    match verdict {
        Err(error) if is_fatal(&error) => return Err(error.into()),
        _ if suspicious && !task.second => again.push_back(Task { second: true, ..task }),
        verdict => {
            if task.second && !suspicious {
                note_second_read(&*env.observer, task.job.key.as_str());
            }
            done(task.job, verdict.map(|verdict| verdict.answer));
        }
    }
    Ok(())
}
