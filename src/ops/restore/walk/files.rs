//! The walk in one file: its chunks, and where they are to be read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::entries::{DAMAGED, Dir, File, MISFIT, Meta};
use super::super::layout::Layout;
use super::super::plan::Want;
use super::super::run::{Task, lock};
use super::super::window::Lost;
use super::{Open, Walk};
use crate::error::Error;
use crate::format::content::{ChunkRow, Content};
use crate::format::envelope::ChunkKind;
use crate::format::node::Node;
use crate::index::Location;
use crate::ops::tree::{ContentRows, is_cache_damage, is_local_damage};

impl Walk<'_> {
    pub(super) async fn file(
        &mut self,
        dir: &Arc<Dir>,
        mut node: Box<Node>,
        link: Option<[u8; 16]>,
    ) -> Result<(), Error> {
        let meta = Meta::take(&mut node, &mut self.names);
        let layout = Layout::new(node.size, &node.holes);
        let content = std::mem::replace(&mut node.content, Content::Inline(Vec::new()));
        let sound = layout.as_ref().is_some_and(|(_, len)| match &content {
            Content::Inline(rows) => rows.iter().map(|row| u64::from(row.len)).sum::<u64>() == *len,
            Content::Paged(_) => true,
        });
        let (layout, len) = layout.unwrap_or_default();
        let (owned, size) = ((node.name, meta), node.size);
        let file = File::new(Arc::clone(dir), owned, (size, layout), (link, self.run.verify));
        let file = Arc::new(file);
        self.run.begin();
        let mut open = Open { file, number: None, wants: 0, at: 0 };
        if sound {
            self.zero_holes(&open.file.clone()).await?;
            self.rows(&mut open, ContentRows::new(content), len).await?;
        } else {
            open.file.give_up(MISFIT);
        }
        let Open { file, wants, .. } = open;
        if self.surveys() {
            return self.through_with(file).await;
        }
        if wants > 0 {
            // Nothing of this window is under way yet, so the walk's own hold becomes the first want's.
            file.left.fetch_add(wants - 1, Ordering::Relaxed);
            return self.flush_if_full(None).await;
        }
        self.push(Task::Release(file)).await
    }

    /// Plans the content of a file.
    async fn rows(&mut self, open: &mut Open, mut rows: ContentRows, len: u64) -> Result<(), Error> {
        loop {
            let row = match rows.next_here() {
                Some(row) => Some(row),
                None => match rows.next(&mut self.reader).await {
                    Ok(row) => row,
                    Err(error) if is_local_damage(&error) => {
                        open.file.give_up(DAMAGED);
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                },
            };
            let Some(row) = row else { break };
            if u64::from(row.len) > len - open.at {
                open.file.give_up(MISFIT);
                return Ok(());
            }
            self.want(open, row).await?;
            self.flush_if_full(Some(&mut *open)).await?;
            if self.run.stopped() || (open.file.is_settled() && !self.run.verify) {
                return Ok(());
            }
        }
        if open.at != len {
            open.file.give_up(MISFIT);
        }
        Ok(())
    }

    async fn want(&mut self, open: &mut Open, row: ChunkRow) -> Result<(), Error> {
        let at = open.at;
        open.at += u64::from(row.len);
        if let Some(rows) = &open.file.rows {
            lock(rows).push(row);
        }
        if self.surveys() {
            self.parts.add(&open.file, (at, row));
            return Ok(());
        }
        open.wants += 1;
        self.plan_row((&open.file, &mut open.number), (at, row)).await
    }

    /// Plans one chunk of a file, whose number in the window is given to it with its first one.
    pub(super) async fn plan_row(
        &mut self,
        (file, number): (&Arc<File>, &mut Option<u32>),
        (at, row): (u64, ChunkRow),
    ) -> Result<(), Error> {
        if let Some((location, segment)) = self.find(&row).await? {
            let file = *number.get_or_insert_with(|| self.builder.add_file(Arc::clone(file)));
            let (offset, len, chunk) = (location.offset, row.len, row.id);
            self.builder.want(Want { segment, offset, len, file, at, chunk });
            return Ok(());
        }
        // Somebody else looks for it, who may ask for the index again.
        let wanted = vec![(Arc::clone(file), at)];
        self.lost.push(Lost { chunk: row.id, len: row.len, wanted, tried: Vec::new() });
        Ok(())
    }

    /// Where a chunk is to be read, asking for more of the index if need be.
    pub(super) async fn find(&mut self, row: &ChunkRow) -> Result<Option<(Location, u32)>, Error> {
        // More than one level may be damaged.
        let located = loop {
            match self.locate(row) {
                Err(error) if is_cache_damage(&error) && self.lookup.reload(self.generation).await? => {
                    self.renew_view();
                }
                located => break located?,
            }
        };
        if located.is_none() && self.lookup.look(self.generation, ChunkKind::Data, &row.id).await? {
            self.renew_view();
            return self.locate(row);
        }
        Ok(located)
    }

    fn locate(&mut self, row: &ChunkRow) -> Result<Option<(Location, u32)>, Error> {
        let copies = self.keys.copies(&self.view, (&row.id, row.len))?;
        let chosen = self.builder.choose(copies.into_iter());
        let Some(chosen) = chosen else { return Ok(None) };
        if let Some(segment) = chosen.segment {
            return Ok(Some((chosen.location, segment)));
        }
        match self.keys.get(self.lookup.repo(), &self.view, chosen.location.data_key) {
            Ok(key) => Ok(Some((chosen.location, self.builder.add_segment(&chosen, key)))),
            Err(error) if is_local_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
