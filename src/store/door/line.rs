//! One connection: many requests over one stream of bytes, each with its window.
//!
//! A thread reads and one writes, because what is at the other end may be a pipe, a socket or a test. Everything else is
//! async. Numbers of requests grow, in the order in which requests are sent.
//!
//! # Invariants
//! What waits to be written is bounded by [`QUEUED`] bytes of content and a few small frames a request; what has come and was
//! not taken, by the window of each request. When the connection ends, every request is told why, and so is every later one.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::current::Ends;
use super::error::{DoorError, said};
use super::wire::{
    Answer, Ask, Frame, REQUESTS, Role, WAITING, WINDOW, WireError, cost, read_preamble, write_preamble,
};

/// Bytes of content that may wait to be written.
const QUEUED: u32 = 1024 * 1024;
/// How often a sign of life is asked for.
const TICK: Duration = Duration::from_secs(20);
/// Ticks without a byte either way after which a connection is given up.
const SILENT: u32 = 6;

/// Makes connections.
pub(crate) trait Connect: Send + Sync {
    /// Starts one. What the other side has to say comes later.
    fn connect(&self) -> Result<Wires, DoorError>;
    /// How long the other side may take until it speaks; longer where a person may be asked for a password.
    fn patience(&self) -> Duration;
}

/// A stream of bytes each way, and what is at the end of it.
pub(crate) struct Wires {
    /// What the other side says.
    pub(crate) input: Box<dyn Read + Send>,
    /// What is said to it.
    pub(crate) output: Box<dyn Write + Send>,
    /// Who it is.
    pub(crate) far: Arc<dyn Far>,
}

/// What is at the other end.
pub(crate) trait Far: Send + Sync {
    /// Why it ended. Called once it said no more; may wait a little.
    fn why(&self) -> DoorError;
    /// Ends it, and waits until it has.
    fn stop(&self);
}

/// A frame on its way, and the room that it takes.
struct Outgoing(Frame, Option<OwnedSemaphorePermit>);

/// A request that is open.
struct Pending {
    answers: mpsc::Sender<Answer>,
    /// Content that may still come.
    window: u32,
}

#[derive(Default)]
struct Open {
    pending: HashMap<u32, Pending>,
    last: u32,
    /// Why there is no connection any more.
    ended: Option<DoorError>,
    greeted: Option<oneshot::Sender<Role>>,
}

struct Shared {
    open: Mutex<Open>,
    out: mpsc::UnboundedSender<Outgoing>,
    room: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    /// Grows with every frame that comes, and with content that goes.
    moved: AtomicU64,
    far: Arc<dyn Far>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything; the first reason counts.
    fn fail(&self, error: DoorError) {
        let mut open = self.open();
        open.ended.get_or_insert(error);
        open.pending.clear();
        open.greeted = None;
        drop(open);
        self.room.close();
        self.slots.close();
    }

    fn ended(&self) -> DoorError {
        self.open().ended.clone().unwrap_or(DoorError::Lost { said: String::new() })
    }

    /// What a frame means for whoever waits for it.
    fn take(&self, frame: &Frame) -> Result<(), DoorError> {
        let broken = |what: &str| DoorError::Broken { what: what.to_owned() };
        let answer = Answer::parse(frame).map_err(|error| broken(&error.to_string()))?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open();
        match (frame.id, answer) {
            (0, Answer::Pong) => Ok(()),
            (0, Answer::Opened { role }) => {
                let greeted = open.greeted.take().ok_or_else(|| broken("it said twice who it is"))?;
                // Nobody waits any more: the line is not wanted.
                let _ = greeted.send(role);
                Ok(())
            }
            (0, Answer::Error { code, message }) => {
                Err(DoorError::Answer { code, message: said(message.as_bytes()) })
            }
            (0, _) => Err(broken("a reply belongs to no request")),
            (id, _) if id > open.last => Err(broken("a reply to what was not asked")),
            (id, answer) => {
                // One that was given up may still be answered.
                let Some(pending) = open.pending.get_mut(&id) else { return Ok(()) };
                if let Answer::Data(bytes) = &answer {
                    let left = pending.window.checked_sub(cost(bytes.len()));
                    pending.window = left.ok_or_else(|| broken("more came than was asked for"))?;
                }
                match pending.answers.try_send(answer) {
                    Err(mpsc::error::TrySendError::Full(_)) => Err(broken("too many replies")),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn read(shared: &Weak<Shared>, far: &Arc<dyn Far>, input: Box<dyn Read + Send>) {
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let error = read_all(shared, &mut input).unwrap_or_else(|error| match error {
        WireError::Io(_) => far.why(),
        WireError::Magic { found } => {
            // What has come in the same breath is shown, too.
            let rest = input.fill_buf().map_or(Vec::new(), <[u8]>::to_vec);
            DoorError::Noise { text: said(&[found, rest].concat()) }
        }
        WireError::Version { theirs } => DoorError::Version { theirs },
        other => DoorError::Broken { what: other.to_string() },
    });
    if let Some(shared) = shared.upgrade() {
        let was_open = shared.open().greeted.is_none();
        shared.fail(match error {
            // One that was let in may be so again.
            DoorError::Ended { said } if was_open => DoorError::Lost { said },
            error => error,
        });
        far.stop();
    }
}

/// Reads until something is wrong: the error is of the stream, or the reason that counts.
fn read_all(
    shared: &Weak<Shared>,
    input: &mut BufReader<Box<dyn Read + Send>>,
) -> Result<DoorError, WireError> {
    read_preamble(input)?;
    while let Some(frame) = Frame::read(input)? {
        let Some(shared) = shared.upgrade() else { break };
        if let Err(error) = shared.take(&frame) {
            return Ok(error);
        }
    }
    Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into())
}

fn write(
    shared: &Weak<Shared>,
    mut frames: mpsc::UnboundedReceiver<Outgoing>,
    output: Box<dyn Write + Send>,
) {
    let mut output = BufWriter::with_capacity(64 * 1024, output);
    let mut run = || -> std::io::Result<()> {
        write_preamble(&mut output)?;
        while let Some(Outgoing(frame, room)) = frames.blocking_recv() {
            frame.write(&mut output)?;
            if room.is_some()
                && let Some(shared) = shared.upgrade()
            {
                shared.moved.fetch_add(1, Ordering::Relaxed);
            }
            drop(room);
            if frames.is_empty() {
                output.flush()?;
            }
        }
        Ok(())
    };
    // The reader finds out why, and says it; what is written now goes nowhere.
    let _ = run();
}

/// Watches that something comes or goes. Ends with the line.
async fn watch(shared: Weak<Shared>) {
    let (mut seen, mut silent) = (0, 0);
    loop {
        tokio::time::sleep(TICK).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.open().ended.is_some() {
            return;
        }
        let moved = shared.moved.load(Ordering::Relaxed);
        silent = if moved == seen { silent + 1 } else { 0 };
        seen = moved;
        if silent >= SILENT {
            shared.fail(DoorError::Silent { seconds: u64::from(SILENT) * TICK.as_secs() });
            let far = Arc::clone(&shared.far);
            // Waiting for a program to end may block.
            drop(tokio::task::spawn_blocking(move || far.stop()));
            return;
        }
        // An answer is a sign of life.
        let _ = shared.out.send(Outgoing(Ask::Ping.frame(0), None));
    }
}

/// A connection. Dropping it ends it.
pub(super) struct Line(Arc<Shared>);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.fail(DoorError::Lost { said: String::new() });
        self.0.far.stop();
    }
}

impl Ends for Line {
    fn has_ended(&self) -> bool {
        self.0.open().ended.is_some()
    }
}

impl Line {
    /// Makes one and waits until the other side has let us in.
    pub(super) async fn open(connect: &dyn Connect, hello: Ask) -> Result<Self, DoorError> {
        let Wires { input, output, far } = connect.connect()?;
        let (out, frames) = mpsc::unbounded_channel();
        let (greeted, greeting) = oneshot::channel();
        let shared = Arc::new(Shared {
            open: Mutex::new(Open { greeted: Some(greeted), ..Open::default() }),
            out,
            room: Arc::new(Semaphore::new(QUEUED as usize)),
            slots: Arc::new(Semaphore::new(REQUESTS)),
            moved: AtomicU64::new(0),
            far: Arc::clone(&far),
        });
        let line = Self(Arc::clone(&shared));
        let failed = |error: std::io::Error| DoorError::lost(&error);
        let weak = Arc::downgrade(&shared);
        let name = |what: &str| std::thread::Builder::new().name(format!("door {what}"));
        name("write").spawn(move || write(&weak, frames, output)).map_err(failed)?;
        let weak = Arc::downgrade(&shared);
        name("read").spawn(move || read(&weak, &far, input)).map_err(failed)?;
        let _ = shared.out.send(Outgoing(hello.frame(0), None));
        match tokio::time::timeout(connect.patience(), greeting).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(shared.ended()),
            Err(_) => return Err(DoorError::Silent { seconds: connect.patience().as_secs() }),
        }
        tokio::spawn(watch(Arc::downgrade(&shared)));
        Ok(line)
    }

    /// Sends a request when there is room for one.
    pub(super) async fn ask(self: &Arc<Self>, ask: &Ask) -> Result<Call, DoorError> {
        let slot = Arc::clone(&self.0.slots).acquire_owned().await.map_err(|_| self.0.ended())?;
        let (answers, incoming) = mpsc::channel(WAITING);
        let mut open = self.0.open();
        if let Some(error) = &open.ended {
            return Err(error.clone());
        }
        // The number is spent: this connection has done its work.
        let next = open.last.checked_add(1).ok_or(DoorError::Lost { said: String::new() })?;
        open.last = next;
        open.pending.insert(next, Pending { answers, window: WINDOW });
        // Under the lock, so that numbers grow on the wire, too.
        let _ = self.0.out.send(Outgoing(ask.frame(next), None));
        drop(open);
        Ok(Call { line: Arc::clone(self), id: next, incoming, done: false, _slot: slot })
    }
}

/// An open request. Dropped before its end, it is given up.
pub(super) struct Call {
    line: Arc<Line>,
    id: u32,
    incoming: mpsc::Receiver<Answer>,
    done: bool,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.line.0.open().pending.remove(&self.id);
        if !self.done {
            self.send(&Ask::Cancel);
        }
    }
}

impl Call {
    fn send(&self, ask: &Ask) {
        let _ = self.line.0.out.send(Outgoing(ask.frame(self.id), None));
    }

    /// The next answer; an answer that says no is an error, and the last.
    pub(super) async fn next(&mut self) -> Result<Answer, DoorError> {
        let answer = self.incoming.recv().await;
        self.judge(answer)
    }

    /// An answer that is there already.
    pub(super) fn try_next(&mut self) -> Result<Option<Answer>, DoorError> {
        match self.incoming.try_recv() {
            Ok(answer) => self.judge(Some(answer)).map(Some),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => self.judge(None).map(Some),
        }
    }

    fn judge(&mut self, answer: Option<Answer>) -> Result<Answer, DoorError> {
        match answer {
            Some(Answer::Error { code, message }) => {
                self.done = true;
                Err(DoorError::Answer { code, message: said(message.as_bytes()) })
            }
            Some(answer) => {
                self.done |= answer == Answer::Done;
                Ok(answer)
            }
            None => {
                self.done = true;
                Err(self.line.0.ended())
            }
        }
    }

    /// Takes note that content was taken, so that more may come.
    pub(super) fn took(&self, content: &Bytes) {
        let cost = cost(content.len());
        let mut open = self.line.0.open();
        if let Some(pending) = open.pending.get_mut(&self.id) {
            pending.window = pending.window.saturating_add(cost);
        }
        drop(open);
        self.send(&Ask::Credit(cost));
    }

    /// Sends content when there is room to queue it.
    pub(super) async fn give(&self, content: Bytes) -> Result<(), DoorError> {
        let room = Arc::clone(&self.line.0.room);
        let permit = room.acquire_many_owned(cost(content.len())).await.map_err(|_| self.line.0.ended())?;
        let _ = self.line.0.out.send(Outgoing(Ask::Data(content).frame(self.id), Some(permit)));
        Ok(())
    }

    /// Says that all content was sent.
    pub(super) fn commit(&self) {
        self.send(&Ask::Commit);
    }

    /// The error of a reply that makes no sense here; ends the connection.
    pub(super) fn odd(&self) -> DoorError {
        let error = DoorError::Broken { what: "a reply of another kind".to_owned() };
        self.line.0.fail(error.clone());
        error
    }
}
