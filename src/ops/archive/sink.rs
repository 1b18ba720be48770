//! Where the bytes of an archive go: a thread of its own writes them, so that a reader that is slow or stuck stops nobody else.

use std::io::{self, Write};

use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::repo::RepoError;

/// Bytes that are handed over at once.
const BLOCK: usize = 256 << 10;
/// Blocks that wait for the writer.
const AHEAD: usize = 4;

/// The near end.
pub(super) struct Sink {
    block: Vec<u8>,
    at: u64,
    blocks: mpsc::Sender<Vec<u8>>,
    done: oneshot::Receiver<io::Result<()>>,
}

fn write_all(out: &mut dyn Write, blocks: &mut mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(block) = blocks.blocking_recv() {
        out.write_all(&block)?;
    }
    out.flush()
}

impl Sink {
    /// Starts the thread. It is not waited for when the sink is dropped: nobody knows when a stuck reader goes on.
    pub(super) fn start(mut out: Box<dyn Write + Send>) -> Result<Self, Error> {
        let (blocks, mut theirs) = mpsc::channel(AHEAD);
        let (tell, done) = oneshot::channel();
        let work = move || {
            let written = write_all(&mut *out, &mut theirs);
            drop(out);
            drop(theirs);
            // Nobody listens any more if the run ended early.
            let _ = tell.send(written);
        };
        std::thread::Builder::new().name("archive".to_owned()).spawn(work).map_err(Error::Output)?;
        Ok(Self { block: Vec::with_capacity(BLOCK), at: 0, blocks, done })
    }

    /// Bytes that were given so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Writes bytes.
    pub(super) async fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.at += bytes.len() as u64;
        self.block.extend_from_slice(bytes);
        if self.block.len() < BLOCK { Ok(()) } else { self.send().await }
    }

    /// Writes bytes without copying them, if they are many.
    pub(super) async fn give(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        if bytes.len() < BLOCK {
            return self.put(&bytes).await;
        }
        self.send().await?;
        self.at += bytes.len() as u64;
        self.hand_over(bytes).await
    }

    /// Writes zeroes.
    pub(super) async fn zeroes(&mut self, mut len: u64) -> Result<(), Error> {
        while len > 0 {
            let now = len.min((BLOCK - self.block.len().min(BLOCK)).max(1) as u64);
            self.block.resize(self.block.len() + now as usize, 0);
            self.at += now;
            len -= now;
            if self.block.len() >= BLOCK {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Error> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.hand_over(block).await
    }

    async fn hand_over(&mut self, block: Vec<u8>) -> Result<(), Error> {
        if self.blocks.send(block).await.is_ok() {
            return Ok(());
        }
        match (&mut self.done).await {
            Ok(Err(error)) => Err(Error::Output(error)),
            _ => Err(RepoError::Task.into()),
        }
    }

    /// Waits until everything is written.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        self.send().await?;
        let Self { blocks, done, .. } = self;
        drop(blocks);
        done.await.map_err(|_| RepoError::Task)?.map_err(Error::Output)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn everything_arrives_in_order() {
        let memory = Memory::default();
        let mut sink = Sink::start(Box::new(memory.clone())).unwrap();
        let mut expected = Vec::new();
        for number in 0..40_u8 {
            let piece = vec![number; usize::from(number) * 9001];
            expected.extend_from_slice(&piece);
            expected.resize(expected.len() + usize::from(number) * 5000, 0);
            if number % 2 == 0 { sink.put(&piece).await } else { sink.give(piece).await }.unwrap();
            sink.zeroes(u64::from(number) * 5000).await.unwrap();
        }
        assert_eq!(sink.at(), expected.len() as u64);
        sink.finish().await.unwrap();
        assert!(*memory.0.lock().unwrap() == expected);
    }

    #[tokio::test]
    async fn an_error_of_the_writer_is_heard_of() {
        let mut sink = Sink::start(Box::new(Full)).unwrap();
        let mut last = Ok(());
        for _ in 0..100 {
            last = sink.zeroes(1 << 20).await;
            if last.is_err() {
                break;
            }
        }
        let error = last.unwrap_err();
        assert!(
            matches!(&error, Error::Output(error) if error.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
        let sink = Sink::start(Box::new(Full)).unwrap();
        assert!(sink.finish().await.is_ok(), "nothing was to be written");
    }
}
