//! Fetching what is wanted, a few requests at a time, and opening each segment as it arrives.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;

use super::run::Run;
use super::segments::{Part, Request};
use crate::error::Error;
use crate::format::layout::ObjectName;
use crate::ops::tree::{Lookup, is_local_damage, may_have_moved};
use crate::repo::RepoError;
use crate::store::Key;

/// Works until nothing more is asked for and all is settled.
pub(super) async fn fetch_all(
    lookup: &Lookup<'_>,
    run: &Arc<Run>,
    at_once: usize,
    mut requests: UnboundedReceiver<Request>,
) -> Result<(), Error> {
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            Some(done) = under_way.next(), if !under_way.is_empty() => done?,
            request = requests.recv(), if open && under_way.len() < at_once => match request {
                Some(request) => under_way.push(fetch(lookup, run, request)),
                None => open = false,
            },
            else => return Ok(()),
        }
    }
}

/// Parts that come together: those that overlap, because an index object is wrong about one of them, are one piece.
struct Joint {
    range: Range<u64>,
    parts: Vec<Part>,
}

fn join(parts: Vec<Part>) -> Vec<Joint> {
    let mut joints: Vec<Joint> = Vec::with_capacity(parts.len());
    for part in parts {
        let range = part.range();
        match joints.last_mut() {
            Some(last) if range.start < last.range.end => {
                last.range.end = last.range.end.max(range.end);
                last.parts.push(part);
            }
            _ => joints.push(Joint { range, parts: vec![part] }),
        }
    }
    joints
}

async fn fetch(lookup: &Lookup<'_>, run: &Arc<Run>, request: Request) -> Result<(), Error> {
    let key =
        Key::new(ObjectName::Pack(request.pack).key()).map_err(|error| RepoError::Store(error.into()))?;
    let mut joints = join(request.parts);
    let ranges: Vec<_> = joints.iter().map(|joint| joint.range.clone()).collect();
    let mut take = |came: Range<usize>, bytes: Bytes| {
        let start = ranges[came.start].start;
        run.add_fetched(bytes.len() as u64);
        for joint in &mut joints[came] {
            for part in joint.parts.drain(..) {
                let Range { start: from, end: to } = part.range();
                open(run, part, bytes.slice((from - start) as usize..(to - start) as usize));
            }
        }
    };
    let reply = lookup.repo().store().get_parts(&key, &ranges, &mut take).await.map_err(Error::from);
    if let Err(error) = reply
        && !may_have_moved(&error)
        && !is_local_damage(&error)
    {
        return Err(error);
    }
    for part in joints.into_iter().flat_map(|joint| joint.parts) {
        part.cell.settle(None);
    }
    run.released.notify_one();
    Ok(())
}

/// Opens a segment on a thread of its own, when it is its turn.
fn open(run: &Arc<Run>, part: Part, stored: Bytes) {
    let run = Arc::clone(run);
    let Part { cell, entry, key } = part;
    tokio::spawn(async move {
        let turn = Arc::clone(&run.turns).acquire_owned().await;
        let theirs = Arc::clone(&run);
        let opened = tokio::task::spawn_blocking(move || {
            let mut opener = theirs.opener()?;
            let mut plain = Vec::new();
            let opened = opener.open(&key, &entry, &stored, &mut plain);
            theirs.give_back(opener);
            Ok::<_, Error>(opened.is_ok().then_some(plain))
        });
        let opened = opened.await;
        drop(turn);
        if !matches!(opened, Ok(Ok(_))) {
            run.break_off();
        }
        cell.settle(opened.ok().and_then(Result::ok).flatten());
        drop(cell);
        run.released.notify_one();
    });
}
