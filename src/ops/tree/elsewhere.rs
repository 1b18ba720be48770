//! Chunks that were not to be had where they were looked for first: any other copy, and whatever else the index knows.

use bytes::Bytes;

use super::{ChunkCopy, LOOKS_MAX, Lookup, is_local_damage, may_have_moved};
use crate::crypto::{SecretKey, chunk_id};
use crate::error::Error;
use crate::format::content::ChunkRow;
use crate::format::envelope::ChunkKind;
use crate::format::layout::ObjectName;
use crate::index::Location;
use crate::repo::RepoError;
use crate::seal::SegmentOpener;
use crate::store::Key;

/// A chunk that could not be had from the copies that were tried.
#[derive(Debug)]
pub(crate) struct Sought {
    pub(crate) row: ChunkRow,
    pub(crate) tried: Vec<ChunkCopy>,
}

/// The chunk in an opened segment, if it is the one that was wanted.
pub(crate) fn genuine<'p>(
    id_key: &SecretKey,
    plain: &'p [u8],
    row: &ChunkRow,
    offset: u32,
) -> Option<&'p [u8]> {
    let start = offset as usize;
    let chunk = plain.get(start..start.checked_add(row.len as usize)?)?;
    (chunk_id(id_key, ChunkKind::Data, chunk) == row.id).then_some(chunk)
}

/// Reads each chunk from any copy that was not tried. `None` for what is lost: nowhere in the index, after it was listed again
/// once for all of them.
pub(crate) async fn elsewhere(
    lookup: &Lookup<'_>,
    id_key: &SecretKey,
    mut sought: Vec<Sought>,
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let mut found = vec![None; sought.len()];
    let mut opener = SegmentOpener::new(lookup.repo().id())?;
    loop {
        let generation = lookup.generation();
        for (sought, found) in sought.iter_mut().zip(&mut found).filter(|(_, found)| found.is_none()) {
            *found = look_for(lookup, id_key, sought, &mut opener).await?;
        }
        if found.iter().all(Option::is_some) || !lookup.reload(generation).await? {
            return Ok(found);
        }
    }
}

/// Any copy that was not tried, among what is known and what was not fetched of the index.
async fn look_for(
    lookup: &Lookup<'_>,
    id_key: &SecretKey,
    sought: &mut Sought,
    opener: &mut SegmentOpener,
) -> Result<Option<Vec<u8>>, Error> {
    for _ in 0..LOOKS_MAX {
        // In this order: a view that is newer than its number is only looked up once too often.
        let generation = lookup.generation();
        let chunk = try_copies(lookup, id_key, sought, opener).await?;
        if chunk.is_some() || !lookup.look(generation, ChunkKind::Data, &sought.row.id).await? {
            return Ok(chunk);
        }
    }
    Ok(None)
}

async fn try_copies(
    lookup: &Lookup<'_>,
    id_key: &SecretKey,
    sought: &mut Sought,
    opener: &mut SegmentOpener,
) -> Result<Option<Vec<u8>>, Error> {
    let Sought { row, tried } = sought;
    let view = lookup.view();
    let mut keys = lookup.opened_keys();
    for (copy, name) in keys.copies(&view, (&row.id, row.len))? {
        if tried.contains(&name) {
            continue;
        }
        tried.push(name);
        let passes = |error: &Error| may_have_moved(error) || is_local_damage(error);
        let stored = match fetch(lookup, &copy).await {
            Err(error) if passes(&error) => continue,
            stored => stored?,
        };
        let key = match keys.get(lookup.repo(), &view, copy.data_key) {
            Err(error) if is_local_damage(&error) => continue,
            key => key?,
        };
        let mut plain = Vec::new();
        if opener.open(&key, &copy.segment, &stored, &mut plain).is_ok()
            && let Some(chunk) = genuine(id_key, &plain, row, copy.offset)
        {
            return Ok(Some(chunk.to_vec()));
        }
    }
    Ok(None)
}

/// The stored bytes of the segment that holds this copy.
pub(crate) async fn fetch(lookup: &Lookup<'_>, copy: &Location) -> Result<Bytes, Error> {
    let start = u64::from(copy.segment.offset);
    let range = start..start + u64::from(copy.segment.stored_len);
    let key = Key::new(ObjectName::Pack(copy.pack_id).key()).map_err(|e| RepoError::Store(e.into()))?;
    Ok(lookup.repo().store().get_range(&key, range).await?)
}
