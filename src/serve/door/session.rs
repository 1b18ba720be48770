//! One connection: frames in, requests side by side, frames out.
//!
//! # Invariants
//! Memory is bounded whatever a client sends: so many requests, for each so many bytes that have come, so many frames that
//! wait to be written. What breaks the rules ends the connection, and nothing half-done stays.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};

use super::ends::Ends;
use super::quota::Quota;
use super::request::{Feed, Part, Refusal, handle};
use super::tally::{Deed, Tally};
use super::{DoorOptions, ServeError};
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::store::door::wire::{Answer, Ask, Code, Frame, REQUESTS, Role, WAITING, WINDOW, WireError, cost};
use crate::store::{Shelf, StoreEnv, StoreError};

/// How often the wish to stop is looked at, and whether the client has been silent for too long.
const LOOK: Duration = Duration::from_millis(200);
const LISTEN: Duration = Duration::from_secs(5);
/// How long what was begun may take when the client is gone.
pub(super) const LINGER: Duration = Duration::from_secs(60);

/// How long a client may say nothing.
#[derive(Debug, Clone, Copy)]
pub(in crate::serve) struct Patience {
    /// Before its first frame.
    pub(in crate::serve) first: Duration,
    /// Later. A client says something every twenty seconds.
    pub(in crate::serve) later: Duration,
}

/// Of a client that `sshd` has let in, who ends a connection that is dead.
pub(super) const LONG: Patience =
    Patience { first: Duration::from_secs(15 * 60), later: Duration::from_secs(15 * 60) };

/// Who is served.
pub(in crate::serve) struct Guest {
    /// What is behind the door, and what the client may do.
    pub(in crate::serve) options: DoorOptions,
    /// What several clients may store together; made for this one alone if it is not given.
    pub(in crate::serve) quota: Option<Arc<Quota>>,
    pub(in crate::serve) patience: Patience,
    /// What the client did.
    pub(in crate::serve) tally: Arc<Tally>,
}

/// What every request of a connection works with.
pub(super) struct Shared {
    pub(super) shelf: Shelf,
    pub(super) role: Role,
    pub(super) quota: Option<Arc<Quota>>,
    /// The client had another connection before this one, and nothing was written since.
    again: bool,
    noted: OnceCell<()>,
    tally: Arc<Tally>,
    out: mpsc::Sender<Frame>,
    active: Mutex<HashMap<u32, Active>>,
}

/// An open request, as the one sees it who reads frames.
enum Active {
    Put { parts: mpsc::Sender<Part>, window: Arc<AtomicU32> },
    Stream { credit: Arc<Semaphore> },
    Plain,
}

impl Shared {
    fn active(&self) -> MutexGuard<'_, HashMap<u32, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an answer when there is room.
    pub(super) async fn say(&self, id: u32, answer: Answer) -> Result<(), Refusal> {
        self.out.send(answer.frame(id)).await.map_err(|_| Refusal::Gone)
    }

    /// Before the first change: what the client listed under an earlier connection is made durable with what comes now.
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        if self.again {
            self.noted.get_or_try_init(|| self.shelf.note_listed()).await?;
        }
        Ok(())
    }
}

/// Serves one client until it goes, somebody asks for the end, or it breaks the rules.
pub(super) async fn run(ends: Ends, guest: &Guest, env: &StoreEnv) -> Result<(), ServeError> {
    let Ends { mut incoming, out, work } = ends;
    let mut session =
        Session { tasks: JoinSet::new(), slots: Arc::new(Semaphore::new(REQUESTS)), last: 0, shared: None };
    // A client that takes nothing holds up the session, but neither the wish to stop nor the end of the connection.
    let ended = tokio::select! {
        ended = session.all(&mut incoming, (guest, env), &out) => ended,
        () = out.closed() => Ok(()),
        () = stopped(&env.cancel) => Err(ServeError::Stopped),
    };
    // What waits for content is given up; what is being stored is finished.
    if let Some(shared) = &session.shared {
        shared.active().drain().for_each(|(_, active)| active.give_up());
    }
    let rest = async {
        while let Some(joined) = session.tasks.join_next().await {
            show(joined);
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
    if let Err(error) = &ended
        && let Some(code) = error.code()
    {
        let answer = Answer::Error { code, message: error.to_string() };
        // A client that does not read is not waited for.
        let _ = out.try_send(answer.frame(0));
    }
    drop((session, out));
    work.end().await;
    ended
}

async fn stopped(cancel: &Cancel) {
    while !cancel.is_raised() {
        tokio::time::sleep(LOOK).await;
    }
}

/// The next frame; `None` when the client is gone.
async fn next(
    incoming: &mut mpsc::Receiver<Result<Frame, WireError>>,
    (clock, silence): (&dyn Clock, Duration),
) -> Result<Option<Frame>, ServeError> {
    let end = clock.monotonic().saturating_add(silence);
    loop {
        match tokio::time::timeout(LISTEN.min(silence), incoming.recv()).await {
            Ok(None) => return Ok(None),
            // A client that dies says nothing; what it had begun is given up.
            Ok(Some(Err(WireError::Io(_)))) => return Ok(None),
            Ok(Some(frame)) => return Ok(Some(frame?)),
            Err(_) if clock.monotonic() >= end => return Err(ServeError::Silent),
            Err(_) => {}
        }
    }
}

impl Active {
    fn give_up(self) {
        if let Self::Stream { credit } = self {
            credit.close();
        }
    }
}

/// A mistake of the program must not look like a client that went away.
fn show(joined: Result<(), JoinError>) {
    if let Err(error) = joined
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

struct Session {
    tasks: JoinSet<()>,
    slots: Arc<Semaphore>,
    last: u32,
    shared: Option<Arc<Shared>>,
}

impl Session {
    async fn all(
        &mut self,
        incoming: &mut mpsc::Receiver<Result<Frame, WireError>>,
        (guest, env): (&Guest, &StoreEnv),
        out: &mpsc::Sender<Frame>,
    ) -> Result<(), ServeError> {
        let (options, clock) = (&guest.options, env.clock.as_ref());
        let Some(frame) = next(incoming, (clock, guest.patience.first)).await? else { return Ok(()) };
        let Ask::Open { again, path } = Ask::parse(&frame)? else {
            return Err(WireError::Unexpected { what: "a request before the greeting" }.into());
        };
        if !options.is_meant(&path) {
            return Err(ServeError::Elsewhere { path });
        }
        let shared = Arc::new(guest.shared(env, again, out.clone())?);
        self.shared = Some(Arc::clone(&shared));
        if options.role != Role::Reader {
            let shelf = shared.shelf.clone();
            // Nobody waits for it, and the next connection tries again.
            self.tasks.spawn(async move { drop(shelf.sweep().await) });
        }
        if shared.say(0, Answer::Opened { role: options.role }).await.is_err() {
            return Ok(());
        }
        while let Some(frame) = next(incoming, (clock, guest.patience.later)).await? {
            while let Some(joined) = self.tasks.try_join_next() {
                show(joined);
            }
            self.one(&shared, &frame).await?;
        }
        Ok(())
    }

    async fn one(&mut self, shared: &Arc<Shared>, frame: &Frame) -> Result<(), ServeError> {
        let (id, ask) = (frame.id, Ask::parse(frame)?);
        match ask {
            Ask::Open { .. } => Err(WireError::Unexpected { what: "a second greeting" }.into()),
            Ask::Ping => {
                // Told by the thread that writes if nobody reads any more.
                let _ = shared.say(0, Answer::Pong).await;
                Ok(())
            }
            Ask::Data(_) | Ask::Commit | Ask::Cancel | Ask::Credit(_) => self.more(shared, id, ask),
            ask => self.begin(shared, id, ask).await,
        }
    }

    /// What belongs to a request. One that has ended may still be spoken to: the client did not know.
    fn more(&self, shared: &Shared, id: u32, ask: Ask) -> Result<(), ServeError> {
        let unexpected = |what| Err(WireError::Unexpected { what }.into());
        if id == 0 || id > self.last {
            return unexpected("what belongs to no request");
        }
        let mut active = shared.active();
        if ask == Ask::Cancel {
            if let Some(active) = active.remove(&id) {
                active.give_up();
            }
            return Ok(());
        }
        match (active.get_mut(&id), ask) {
            (None, _) => Ok(()),
            (Some(Active::Put { parts, window }), Ask::Data(content)) => {
                let cost = cost(content.len());
                let left =
                    window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
                if left.is_err()
                    || matches!(
                        parts.try_send(Part::Content(content)),
                        Err(mpsc::error::TrySendError::Full(_))
                    )
                {
                    return unexpected("more content than was asked for");
                }
                Ok(())
            }
            (Some(Active::Put { parts, .. }), Ask::Commit) => match parts.try_send(Part::Commit) {
                Err(mpsc::error::TrySendError::Full(_)) => unexpected("a second end of an object"),
                _ => Ok(()),
            },
            (Some(Active::Stream { credit }), Ask::Credit(more)) => {
                let more = usize::try_from(more).unwrap_or(usize::MAX);
                if credit.available_permits().saturating_add(more) > WINDOW as usize {
                    return unexpected("more credit than a window holds");
                }
                credit.add_permits(more);
                Ok(())
            }
            _ => unexpected("a frame of another kind of request"),
        }
    }

    async fn begin(&mut self, shared: &Arc<Shared>, id: u32, ask: Ask) -> Result<(), ServeError> {
        if id <= self.last {
            return Err(WireError::Unexpected { what: "the number of an earlier request" }.into());
        }
        self.last = id;
        let (feed, active) = match &ask {
            Ask::Put { .. } => {
                let (parts, receive) = mpsc::channel(WAITING);
                let window = Arc::new(AtomicU32::new(WINDOW));
                (Feed::Parts(receive, Arc::clone(&window)), Active::Put { parts, window })
            }
            Ask::Get { .. } | Ask::List { .. } => {
                let credit = Arc::new(Semaphore::new(WINDOW as usize));
                (Feed::Credit(Arc::clone(&credit)), Active::Stream { credit })
            }
            _ => (Feed::Nothing, Active::Plain),
        };
        {
            let mut open = shared.active();
            if open.len() >= REQUESTS {
                return Err(WireError::Unexpected { what: "one request too many" }.into());
            }
            open.insert(id, active);
        }
        // One that was given up may still be at work. It waits for nothing that comes this way.
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return Ok(()) };
        self.tasks.spawn(task(Arc::clone(shared), id, (ask, feed), slot));
        Ok(())
    }
}

async fn task(shared: Arc<Shared>, id: u32, (ask, feed): (Ask, Feed), slot: OwnedSemaphorePermit) {
    let deed = Deed::of(&ask);
    let result = handle(&shared, id, ask, feed).await;
    shared.tally.note(deed, &result);
    // The client may ask for the next thing as soon as it has read this.
    shared.active().remove(&id);
    let answer = match result {
        Ok(()) => Answer::Done,
        Err(Refusal::No { code, message }) => Answer::Error { code, message },
        Err(Refusal::Gone) => return,
    };
    // Gone is gone.
    let _ = shared.say(id, answer).await;
    drop(slot);
}

impl Guest {
    fn shared(&self, env: &StoreEnv, again: bool, out: mpsc::Sender<Frame>) -> Result<Shared, StoreError> {
        let options = &self.options;
        let shelf = Shelf::new(options.top.clone(), options.prefix.as_ref(), env)?;
        let own = || options.quota.map(|most| Quota::new(most, shelf.clone(), Arc::clone(&env.clock)));
        let quota = self.quota.clone().or_else(|| own().map(Arc::new));
        let (role, tally, active) = (options.role, Arc::clone(&self.tally), Mutex::default());
        Ok(Shared { shelf, role, quota, again, noted: OnceCell::new(), tally, out, active })
    }
}

impl ServeError {
    /// What a client is told; nothing if it may come again, which a connection that just ends says.
    fn code(&self) -> Option<Code> {
        match self {
            Self::Elsewhere { .. } => Some(Code::Denied),
            Self::Wire(_) => Some(Code::Broken),
            Self::Store(_) => Some(Code::Failed),
            Self::Silent | Self::Stopped | Self::Thread(_) => None,
        }
    }
}
