//! From segments to the bytes of files: each chunk is compared with its id before anybody sees it, on several threads, and what
//! cannot be had is looked for elsewhere.

use std::sync::Arc;

use super::entry::{Entry, Piece, Problem};
use super::run::Run;
use super::segments::Cell;
use super::zip::Packer;
use crate::error::Error;
use crate::format::content::ChunkRow;
use crate::ops::restore::flaw::Flaw;
use crate::ops::restore::layout::Layout;
use crate::ops::tree::{ChunkCopy, Lookup, Sought, elsewhere, genuine};
use crate::repo::RepoError;

/// A chunk of a file.
#[derive(Debug)]
pub(super) struct Chunk {
    row: ChunkRow,
    from: Option<(Arc<Cell>, ChunkCopy)>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not looked at.
    Untried,
    /// It could not be had from where it was to be read.
    Missed,
    /// It was had from elsewhere.
    Found(Vec<u8>),
}

impl Chunk {
    /// To be read from there; from elsewhere if nothing is named.
    pub(super) fn new(row: ChunkRow, from: Option<(Arc<Cell>, ChunkCopy)>) -> Self {
        Self { row, from, state: State::Untried }
    }

    fn bytes<'c>(&'c self, run: &Run) -> Option<&'c [u8]> {
        match (&self.state, &self.from) {
            (State::Found(bytes), _) => Some(bytes),
            (State::Untried, Some((cell, copy))) => {
                genuine(&run.id_key, cell.plain()?, &self.row, copy.offset)
            }
            _ => None,
        }
    }

    fn sought(&self) -> Sought {
        Sought { row: self.row, tried: self.from.iter().map(|(_, copy)| *copy).collect() }
    }
}

/// Chunks of one file, in order.
#[derive(Debug)]
pub(super) struct Content {
    /// Where they begin in the content, holes not counted.
    pub(super) at: u64,
    /// Where content lies in the file, if the file has holes.
    pub(super) layout: Option<Arc<Layout>>,
    pub(super) chunks: Vec<Chunk>,
}

/// What the walk comes upon, in the order of the archive. `B` is the content.
#[derive(Debug)]
pub(super) enum Step<B = Content> {
    /// An entry without content.
    Entry(Entry),
    /// A further name of what stands under another name in the archive.
    Link(Entry, Box<[u8]>),
    /// A regular file. Its content follows, then its end.
    Begin(Entry),
    /// A part of the content of the file that was begun.
    Content(B),
    /// The file ends here, and is not whole.
    Lost(Problem),
    /// The file ends here.
    End,
}

/// A step that can be written.
pub(super) type Ready = Step<Vec<Piece>>;

/// Makes the steps of a batch ready, with compressed content if there is a packer.
pub(super) async fn assemble(
    lookup: &Lookup<'_>,
    run: &Arc<Run>,
    packer: Option<Arc<Packer>>,
    batch: Vec<Step>,
) -> Result<Vec<Ready>, Error> {
    for chunk in batch.iter().flat_map(chunks) {
        if let Some((cell, _)) = &chunk.from {
            cell.settled().await;
        }
    }
    run.check()?;
    let mut gathered = gather_all(run, &packer, batch.into_iter().map(Err).collect()).await?;
    let missed = |step: &Result<Ready, Step>| step.as_ref().err().map(chunks).unwrap_or_default().len();
    if gathered.iter().any(|step| missed(step) > 0) {
        find_missed(lookup, run, &mut gathered).await?;
        gathered = gather_all(run, &packer, gathered).await?;
    }
    let lost = |step: Result<Ready, Step>| step.unwrap_or(Step::Lost(Flaw::Lost.into()));
    let ready = gathered.into_iter().map(lost).collect();
    // The last of what the batch held of segments was dropped.
    run.released.notify_one();
    Ok(ready)
}

fn chunks(step: &Step) -> &[Chunk] {
    match step {
        Step::Content(content) => &content.chunks,
        _ => &[],
    }
}

/// Puts together what is not ready and can be.
async fn gather_all(
    run: &Arc<Run>,
    packer: &Option<Arc<Packer>>,
    steps: Vec<Result<Ready, Step>>,
) -> Result<Vec<Result<Ready, Step>>, Error> {
    let turn = Arc::clone(&run.turns).acquire_owned().await;
    let (run, packer) = (Arc::clone(run), packer.clone());
    let work = move || {
        let gather = |step: Result<Ready, Step>| step.or_else(|step| gather(&run, packer.as_deref(), step));
        steps.into_iter().map(gather).collect()
    };
    let gathered = tokio::task::spawn_blocking(work).await.map_err(|_| RepoError::Task)?;
    drop(turn);
    Ok(gathered)
}

fn gather(run: &Run, packer: Option<&Packer>, step: Step) -> Result<Ready, Step> {
    let mut content = match step {
        Step::Content(content) => content,
        Step::Entry(entry) => return Ok(Step::Entry(entry)),
        Step::Link(entry, first) => return Ok(Step::Link(entry, first)),
        Step::Begin(entry) => return Ok(Step::Begin(entry)),
        Step::Lost(problem) => return Ok(Step::Lost(problem)),
        Step::End => return Ok(Step::End),
    };
    let len = content.chunks.iter().map(|chunk| chunk.row.len as usize).sum();
    let mut raw = Vec::with_capacity(len);
    let mut whole = true;
    for chunk in &mut content.chunks {
        match chunk.bytes(run) {
            Some(bytes) => raw.extend_from_slice(bytes),
            None => {
                chunk.state = State::Missed;
                whole = false;
            }
        }
    }
    if !whole {
        return Err(Step::Content(content));
    }
    let piece =
        |place: u64, raw: Vec<u8>| Piece { place, packed: packer.map(|packer| packer.pack(&raw)), raw };
    Ok(Step::Content(match &content.layout {
        None => vec![piece(content.at, raw)],
        Some(layout) => {
            let pieces = layout.pieces(content.at, raw.len());
            pieces.map(|(range, place)| piece(place, raw[range].to_vec())).collect()
        }
    }))
}

/// Looks elsewhere for all chunks that were missed.
async fn find_missed(
    lookup: &Lookup<'_>,
    run: &Arc<Run>,
    steps: &mut [Result<Ready, Step>],
) -> Result<(), Error> {
    let contents = steps.iter_mut().filter_map(|step| match step {
        Err(Step::Content(content)) => Some(content),
        _ => None,
    });
    let missed = contents.flat_map(|content| &mut content.chunks);
    let mut missed: Vec<_> = missed.filter(|chunk| matches!(chunk.state, State::Missed)).collect();
    let sought = missed.iter().map(|chunk| chunk.sought()).collect();
    let found = elsewhere(lookup, &run.id_key, sought).await?;
    for (chunk, found) in missed.iter_mut().zip(found) {
        if let Some(found) = found {
            chunk.state = State::Found(found);
        }
    }
    Ok(())
}
