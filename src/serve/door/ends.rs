//! What carries the frames of a session: two threads over streams that block, or two tasks over one that does not.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ServeError;
use super::session::LINGER;
use crate::store::door::wire::{
    Frame, HEADER, Head, PREAMBLE, WireError, judge_preamble, preamble, read_preamble, write_preamble,
};

/// Frames that have come and wait, and frames that wait to go.
const QUEUED: usize = 8;
/// Buffers of streams: of a pipe, and of a socket, of which there are many.
const WIDE: usize = 64 * 1024;
const NARROW: usize = 8 * 1024;
/// How long a client may take to take what is said to it, piece by piece.
const STALLED: Duration = Duration::from_secs(120);

/// Both directions of a connection.
pub(super) struct Ends {
    pub(super) incoming: mpsc::Receiver<Result<Frame, WireError>>,
    /// Closed when nothing can be said any more.
    pub(super) out: mpsc::Sender<Frame>,
    pub(super) work: Work,
}

/// What is to be ended with the session.
pub(super) enum Work {
    Thread(std::thread::JoinHandle<()>),
    Tasks { reading: JoinSet<()>, writing: JoinSet<()> },
}

impl Ends {
    pub(super) fn of_threads(
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
    ) -> Result<Self, ServeError> {
        let (out, frames) = mpsc::channel(QUEUED);
        let (tell, incoming) = mpsc::channel(QUEUED);
        let thread = |name: &str| std::thread::Builder::new().name(format!("door {name}"));
        let writing = thread("write").spawn(move || write(frames, output)).map_err(ServeError::Thread)?;
        thread("read").spawn(move || read(input, &tell)).map_err(ServeError::Thread)?;
        Ok(Self { incoming, out, work: Work::Thread(writing) })
    }

    pub(super) fn of_tasks(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (input, output) = tokio::io::split(stream);
        let (out, frames) = mpsc::channel(QUEUED);
        let (tell, incoming) = mpsc::channel(QUEUED);
        let (mut reading, mut writing) = (JoinSet::new(), JoinSet::new());
        reading.spawn(take(input, tell));
        writing.spawn(give(frames, output));
        Self { incoming, out, work: Work::Tasks { reading, writing } }
    }
}

impl Work {
    /// Waits until what was said has gone, not for ever. Nothing more may be said.
    pub(super) async fn end(self) {
        match self {
            Self::Thread(writing) => {
                let flushed = tokio::task::spawn_blocking(move || writing.join());
                let _ = tokio::time::timeout(LINGER, flushed).await;
            }
            Self::Tasks { reading, mut writing } => {
                let _ = tokio::time::timeout(LINGER, writing.join_next()).await;
                drop(reading);
            }
        }
    }
}

fn read(input: impl Read, tell: &mpsc::Sender<Result<Frame, WireError>>) {
    let mut input = BufReader::with_capacity(WIDE, input);
    let mut run = || -> Result<(), WireError> {
        read_preamble(&mut input)?;
        while let Some(frame) = Frame::read(&mut input)? {
            if tell.blocking_send(Ok(frame)).is_err() {
                break;
            }
        }
        Ok(())
    };
    if let Err(error) = run() {
        // Nobody listens: the connection has ended for another reason.
        let _ = tell.blocking_send(Err(error));
    }
}

fn write(mut frames: mpsc::Receiver<Frame>, output: impl Write) {
    let mut output = BufWriter::with_capacity(WIDE, output);
    let mut run = || -> io::Result<()> {
        write_preamble(&mut output)?;
        while let Some(frame) = frames.blocking_recv() {
            frame.write(&mut output)?;
            if frames.is_empty() {
                output.flush()?;
            }
        }
        output.flush()
    };
    // Whoever has something to say finds the channel closed.
    let _ = run();
}

async fn take(input: impl AsyncRead + Unpin, tell: mpsc::Sender<Result<Frame, WireError>>) {
    if let Err(error) = take_all(input, &tell).await {
        // Nobody listens: the connection has ended for another reason.
        let _ = tell.send(Err(error)).await;
    }
}

async fn take_all(
    input: impl AsyncRead + Unpin,
    tell: &mpsc::Sender<Result<Frame, WireError>>,
) -> Result<(), WireError> {
    let mut input = tokio::io::BufReader::with_capacity(NARROW, input);
    let mut first = [0; PREAMBLE];
    input.read_exact(&mut first).await?;
    judge_preamble(first)?;
    loop {
        let mut header = [0; HEADER];
        // Whether it ends between two frames or within one makes no difference: what was begun is given up.
        input.read_exact(&mut header).await?;
        let Head { kind, id, len } = Head::parse(header)?;
        let mut payload = vec![0; len];
        input.read_exact(&mut payload).await?;
        if tell.send(Ok(Frame { kind, id, payload: payload.into() })).await.is_err() {
            return Ok(());
        }
    }
}

async fn give(frames: mpsc::Receiver<Frame>, output: impl AsyncWrite + Unpin) {
    // Whoever has something to say finds the channel closed.
    let _ = give_all(frames, output).await;
}

async fn give_all(mut frames: mpsc::Receiver<Frame>, output: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut output = tokio::io::BufWriter::with_capacity(NARROW, output);
    output.write_all(&preamble()).await?;
    output.flush().await?;
    while let Some(frame) = frames.recv().await {
        let said = async {
            output.write_all(&frame.header()).await?;
            output.write_all(&frame.payload).await?;
            if frames.is_empty() { output.flush().await } else { Ok(()) }
        };
        tokio::time::timeout(STALLED, said).await??;
    }
    tokio::time::timeout(STALLED, output.shutdown()).await?
}
