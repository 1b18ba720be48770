//! One connection: many requests over one stream of bytes, each answered once.
//!
//! A thread reads and one writes, as with a door. Everything else is async.
//!
//! # Invariants
//! At most [`REQUESTS`] wait for an answer, and each has content of at most one piece: more is neither kept to be written nor
//! taken from the server. When the connection ends, every request is told why, and so is every later one. A file that was
//! opened for somebody who no longer waits is closed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::super::door::{Connect, DoorError, Ends, Far, Wires, said};
use super::error::{At, SftpError, code};
use super::wire::{
    Ask, Attributes, Features, Frame, Hello, Mode, PIECE, Reply, Row, VERSION, WireError, parse_limits,
    read_frame,
};
use crate::store::local::Step;

/// Requests that may wait for an answer.
const REQUESTS: usize = 128;
/// Content that one file may have under way.
const WINDOW: u32 = 2 * 1024 * 1024;
/// How often it is looked whether anything comes.
const TICK: Duration = Duration::from_secs(20);
/// Ticks without an answer to anything after which a connection is given up. A slow disk may take its time to sync.
const SILENT: u32 = 15;

#[derive(Default)]
struct State {
    /// Requests that are open.
    pending: HashMap<u32, oneshot::Sender<Reply>>,
    last: u32,
    /// Why there is no connection any more.
    ended: Option<SftpError>,
    greeted: Option<oneshot::Sender<Features>>,
}

struct Shared {
    state: Mutex<State>,
    out: mpsc::UnboundedSender<Frame>,
    /// Told when there is room for another request. Room is kept for nobody: whoever waits for it may not be polled for long.
    freed: Notify,
    /// Grows with every frame that comes.
    moved: AtomicU64,
    far: Arc<dyn Far>,
}

fn broken(what: &str) -> SftpError {
    SftpError::Broken { what: what.to_owned() }
}

fn lost() -> SftpError {
    DoorError::Lost { said: String::new() }.into()
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything; the first reason counts.
    fn fail(&self, error: SftpError) {
        let mut state = self.state();
        state.ended.get_or_insert(error);
        state.pending.clear();
        state.greeted = None;
        drop(state);
        self.freed.notify_waiters();
    }

    fn ended(&self) -> SftpError {
        self.state().ended.clone().unwrap_or_else(lost)
    }

    fn greet(&self, frame: Bytes) -> Result<(), SftpError> {
        let hello = Hello::parse(frame).map_err(|error| broken(&error.to_string()))?;
        if hello.version != VERSION {
            return Err(SftpError::Version { theirs: hello.version });
        }
        self.moved.fetch_add(1, Ordering::Relaxed);
        if let Some(greeted) = self.state().greeted.take() {
            // Nobody waits any more: the line is not wanted.
            let _ = greeted.send(hello.features);
        }
        Ok(())
    }

    /// Gives an answer to whoever waits for it.
    fn take(&self, frame: Bytes) -> Result<(), SftpError> {
        let (id, reply) = Reply::parse(frame).map_err(|error| broken(&error.to_string()))?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        if id > state.last {
            return Err(broken("a reply to what was not asked"));
        }
        let pending = state.pending.remove(&id);
        drop(state);
        self.freed.notify_waiters();
        // Requests for whose answer nobody waits have no place here.
        if let Some(answer) = pending
            && let Err(Reply::Handle(handle)) = answer.send(reply)
        {
            self.tell(&Ask::Close { handle: &handle });
        }
        Ok(())
    }

    /// Sends a request, if there is room for one, and gives where the answer will come.
    fn begin(&self, ask: &Ask<'_>) -> Result<Option<oneshot::Receiver<Reply>>, SftpError> {
        let mut state = self.state();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        if state.pending.len() >= REQUESTS {
            return Ok(None);
        }
        // The number is spent: this connection has done its work.
        let next = state.last.checked_add(1).ok_or_else(lost)?;
        let (answer, answered) = oneshot::channel();
        state.last = next;
        state.pending.insert(next, answer);
        let _ = self.out.send(ask.frame(next));
        Ok(Some(answered))
    }

    /// Sends a request whose answer says nothing.
    fn tell(&self, ask: &Ask<'_>) {
        let mut state = self.state();
        if state.ended.is_none()
            && let Some(next) = state.last.checked_add(1)
        {
            state.last = next;
            let _ = self.out.send(ask.frame(next));
        }
    }
}

fn read(shared: &Weak<Shared>, far: &Arc<dyn Far>, input: Box<dyn Read + Send>) {
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let error = read_all(shared, &mut input);
    let greeted = shared.upgrade().is_some_and(|shared| shared.state().greeted.is_none());
    let error = match error {
        Ok(error) => error,
        Err(WireError::Io(_)) => match far.why() {
            // One that was let in may be so again.
            DoorError::Ended { said } if greeted => DoorError::Lost { said }.into(),
            error => SftpError::of_line(error),
        },
        Err(WireError::Length { length }) if !greeted => {
            // What has come in the same breath is shown, too.
            let rest = input.fill_buf().map_or(Vec::new(), <[u8]>::to_vec);
            SftpError::Noise { text: said(&[length.to_vec(), rest].concat()) }
        }
        Err(error) => broken(&error.to_string()),
    };
    if let Some(shared) = shared.upgrade() {
        shared.fail(error);
        far.stop();
    }
}

/// Reads until something is wrong: the error is of the stream, or the reason that counts.
fn read_all(
    shared: &Weak<Shared>,
    input: &mut BufReader<Box<dyn Read + Send>>,
) -> Result<SftpError, WireError> {
    let mut greeted = false;
    loop {
        let frame = read_frame(input)?;
        let Some(shared) = shared.upgrade() else { return Ok(lost()) };
        let taken = if greeted { shared.take(frame) } else { shared.greet(frame) };
        if let Err(error) = taken {
            return Ok(error);
        }
        greeted = true;
    }
}

fn write(mut frames: mpsc::UnboundedReceiver<Frame>, output: Box<dyn Write + Send>) {
    let mut output = BufWriter::with_capacity(64 * 1024, output);
    let mut run = || -> std::io::Result<()> {
        while let Some(frame) = frames.blocking_recv() {
            frame.write(&mut output)?;
            if frames.is_empty() {
                output.flush()?;
            }
        }
        Ok(())
    };
    // The reader finds out why, and says it; what is written now goes nowhere.
    let _ = run();
}

/// Watches that what was asked is answered. Ends with the line.
async fn watch(shared: Weak<Shared>) {
    let (mut seen, mut silent) = (0, 0);
    loop {
        tokio::time::sleep(TICK).await;
        let Some(shared) = shared.upgrade() else { return };
        let state = shared.state();
        let (ended, waits) = (state.ended.is_some(), !state.pending.is_empty());
        drop(state);
        if ended {
            return;
        }
        let moved = shared.moved.load(Ordering::Relaxed);
        silent = if waits && moved == seen { silent + 1 } else { 0 };
        seen = moved;
        if silent >= SILENT {
            shared.fail(DoorError::Silent { seconds: u64::from(SILENT) * TICK.as_secs() }.into());
            let far = Arc::clone(&shared.far);
            // Waiting for a program to end may block.
            drop(tokio::task::spawn_blocking(move || far.stop()));
            return;
        }
    }
}

/// Ends the connection when it is dropped.
struct Held(Arc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fail(lost());
        self.0.far.stop();
    }
}

/// A connection. Dropping it ends it.
pub(super) struct Line {
    held: Held,
    pub(super) features: Features,
    /// Bytes of content that one request may read.
    pub(super) read_max: u32,
    /// Bytes of content that one request may write.
    pub(super) write_max: u32,
}

/// How many pieces of this size may be under way for one file.
pub(super) fn ahead(piece: u32) -> usize {
    (WINDOW / piece.max(1)).clamp(4, 64) as usize
}

impl Ends for Line {
    fn has_ended(&self) -> bool {
        self.held.0.state().ended.is_some()
    }
}

impl Line {
    /// Makes one and waits until the other side has let us in and has said what it can.
    pub(super) async fn open(connect: &dyn Connect) -> Result<Self, SftpError> {
        let Wires { input, output, far } = connect.connect().map_err(SftpError::of_line)?;
        let (out, frames) = mpsc::unbounded_channel();
        let (greeted, greeting) = oneshot::channel();
        let shared = Arc::new(Shared {
            state: Mutex::new(State { greeted: Some(greeted), ..State::default() }),
            out,
            freed: Notify::new(),
            moved: AtomicU64::new(0),
            far: Arc::clone(&far),
        });
        let held = Held(Arc::clone(&shared));
        let failed = |error: std::io::Error| DoorError::Lost { said: error.to_string() };
        let name = |what: &str| std::thread::Builder::new().name(format!("sftp {what}"));
        name("write").spawn(move || write(frames, output)).map_err(failed)?;
        let weak = Arc::downgrade(&shared);
        name("read").spawn(move || read(&weak, &far, input)).map_err(failed)?;
        let _ = shared.out.send(Ask::Hello.frame(0));
        let features = match tokio::time::timeout(connect.patience(), greeting).await {
            Ok(Ok(features)) => features,
            Ok(Err(_)) => return Err(shared.ended()),
            Err(_) => return Err(DoorError::Silent { seconds: connect.patience().as_secs() }.into()),
        };
        tokio::spawn(watch(Arc::downgrade(&shared)));
        let mut line = Self { held, features, read_max: PIECE, write_max: PIECE };
        if features.limits
            && let Reply::Extended(answer) = line.ask(&Ask::Limits).await?
        {
            (line.read_max, line.write_max) = parse_limits(answer).ok_or_else(|| line.odd())?;
        }
        Ok(line)
    }

    /// Sends a request when there is room for one, and waits for the answer.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Reply, SftpError> {
        let shared = &self.held.0;
        let answered = loop {
            // Before it is looked, so that no room is missed that there is between the two.
            let freed = shared.freed.notified();
            if let Some(answered) = shared.begin(ask)? {
                break answered;
            }
            freed.await;
        };
        answered.await.map_err(|_| shared.ended())
    }

    /// The error of a reply that makes no sense here; ends the connection.
    pub(super) fn odd(&self) -> SftpError {
        let error = broken("a reply of another kind, or longer than what was asked for");
        self.held.0.fail(error.clone());
        error
    }

    /// Sends a request whose answer says nothing.
    pub(super) fn tell(&self, ask: &Ask<'_>) {
        self.held.0.tell(ask);
    }

    /// Of a reply that is not what was asked for: the server says no, or breaks the rules.
    fn refused(&self, reply: &Reply, at: At<'_>) -> SftpError {
        match reply {
            Reply::Status { code, message } if *code != code::OK => SftpError::answer(at, *code, message),
            _ => self.odd(),
        }
    }

    /// A request that is answered by yes or no.
    pub(super) async fn done(&self, ask: &Ask<'_>, at: At<'_>) -> Result<(), SftpError> {
        match self.ask(ask).await? {
            Reply::Status { code: code::OK, .. } => Ok(()),
            reply => Err(self.refused(&reply, at)),
        }
    }

    /// What the server says of a file.
    pub(super) async fn look(&self, ask: &Ask<'_>, path: &str) -> Result<Attributes, SftpError> {
        match self.ask(ask).await? {
            Reply::Attributes(attributes) => Ok(attributes),
            reply => Err(self.refused(&reply, At { step: Step::Look, path })),
        }
    }

    /// What the server says of the thing with this name, which may be a link.
    pub(super) async fn link_stat(&self, path: &str) -> Result<Attributes, SftpError> {
        self.look(&Ask::LinkStat { path }, path).await
    }

    async fn handle(self: &Arc<Self>, ask: &Ask<'_>, at: At<'_>) -> Result<Handle, SftpError> {
        match self.ask(ask).await? {
            Reply::Handle(handle) => Ok(Handle { line: Arc::clone(self), handle, open: true }),
            reply => Err(self.refused(&reply, at)),
        }
    }

    /// Opens a file; on most servers a directory, too, so that it can be synced.
    pub(super) async fn open_file(self: &Arc<Self>, path: &str, mode: Mode) -> Result<Handle, SftpError> {
        let step = if mode == Mode::Read { Step::Open } else { Step::Create };
        self.handle(&Ask::Open { path, mode }, At { step, path }).await
    }

    pub(super) async fn open_directory(self: &Arc<Self>, path: &str) -> Result<Handle, SftpError> {
        self.handle(&Ask::OpenDirectory { path }, At { step: Step::Open, path }).await
    }
}

/// A file or directory that is open. Dropped, it is closed.
pub(super) struct Handle {
    line: Arc<Line>,
    handle: Bytes,
    open: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.open {
            self.line.tell(&Ask::Close { handle: &self.handle });
        }
    }
}

impl Handle {
    /// Closes it, and waits for what the server says.
    pub(super) async fn close(mut self, path: &str) -> Result<(), SftpError> {
        self.open = false;
        self.line.done(&Ask::Close { handle: &self.handle }, At { step: Step::Write, path }).await
    }

    /// At most as many bytes as are asked for; `None` at the end.
    pub(super) async fn read(&self, offset: u64, len: u32, path: &str) -> Result<Option<Bytes>, SftpError> {
        match self.line.ask(&Ask::Read { handle: &self.handle, offset, len }).await? {
            Reply::Data(content) if !content.is_empty() && content.len() <= len as usize => Ok(Some(content)),
            Reply::Status { code: code::END, .. } => Ok(None),
            reply => Err(self.line.refused(&reply, At { step: Step::Read, path })),
        }
    }

    pub(super) async fn write(&self, offset: u64, content: Bytes, path: &str) -> Result<(), SftpError> {
        let ask = Ask::Write { handle: &self.handle, offset, content };
        self.line.done(&ask, At { step: Step::Write, path }).await
    }

    pub(super) async fn stat(&self, path: &str) -> Result<Attributes, SftpError> {
        self.line.look(&Ask::HandleStat { handle: &self.handle }, path).await
    }

    pub(super) async fn sync(&self, at: At<'_>) -> Result<(), SftpError> {
        self.line.done(&Ask::Sync { handle: &self.handle }, at).await
    }

    /// Names that come next; `None` at the end.
    pub(super) async fn names(&self, path: &str) -> Result<Option<Vec<Row>>, SftpError> {
        match self.line.ask(&Ask::ReadDirectory { handle: &self.handle }).await? {
            Reply::Names(rows) if !rows.is_empty() => Ok(Some(rows)),
            Reply::Status { code: code::END, .. } => Ok(None),
            reply => Err(self.line.refused(&reply, At { step: Step::Read, path })),
        }
    }
}
