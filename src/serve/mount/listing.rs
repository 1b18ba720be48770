//! The entries of a directory, from any place on.
//!
//! # Invariants
//! Names ascend strictly, whatever the pages say, so every listing ends. Where a part of a directory cannot be read, all the
//! rest is listed, and the end is an error: what is missing must not pass for what was never there.

use std::time::Duration;

use fuser::{Errno, FileAttr, FileType};

use super::attr;
use super::dirs::{self, Spot};
use super::inodes::Ino;
use super::layout::Dir;
use super::server::{BRIEFLY, Entry, FOREVER, Fault, Object, Root, Server};
use super::virtuals::Place;
use crate::format::FormatError;
use crate::format::node::{Node, NodeKind};
use crate::ops::tree::damaged_page;

/// Takes entries one by one: number to go on from, name, attributes, and how long they may be believed. False if there is no
/// more room.
pub(super) type Sink<'s> = &'s mut (dyn FnMut(u64, &[u8], &FileAttr, Duration) -> bool + Send);

impl Server<'_> {
    /// The entries of a directory behind the one with this number to go on from; 0 for the beginning.
    pub(super) async fn list(&self, ino: u64, behind: u64, sink: Sink<'_>) -> Result<(), Fault> {
        match self.object(ino).await? {
            Object::Virtual(Place::Dir(dir)) => self.list_virtual((ino, dir), behind, sink).await,
            Object::Entry(entry) if entry.node.kind == NodeKind::Directory => {
                if !self.list_dots((ino, entry.dir), behind, sink) {
                    return Ok(());
                }
                self.list_entries(&entry, behind, sink).await
            }
            _ => Err(Fault::Errno(Errno::ENOTDIR)),
        }
    }

    fn list_dots(&self, (own, above): (u64, u64), behind: u64, sink: Sink<'_>) -> bool {
        [(1, &b"."[..], own), (2, b"..", above)].into_iter().all(|(cookie, name, ino)| {
            let attr = attr::virtual_attr(ino, FileType::Directory, (self.since, 0), self.owner);
            behind >= cookie || sink(cookie, name, &attr, BRIEFLY)
        })
    }

    async fn list_virtual(&self, (ino, dir): (u64, Dir), behind: u64, sink: Sink<'_>) -> Result<(), Fault> {
        let Root::Shelf(shelf) = &self.root else { return Ok(()) };
        let layout = shelf.look().await;
        let above = self.virtuals().number(&Place::Dir(dir.clone()).parent());
        let Some(members) = layout.entries(&dir) else { return Ok(()) };
        if !self.list_dots((ino, above), behind, sink) {
            return Ok(());
        }
        for (cookie, (name, member)) in (3..).zip(members).filter(|(cookie, _)| *cookie > behind) {
            // What was forgotten just now is not there any more.
            let Ok(attr) = self.member(&dir, member) else { continue };
            if !sink(cookie, name, &attr, BRIEFLY) {
                break;
            }
        }
        Ok(())
    }

    async fn list_entries(&self, dir: &Entry, behind: u64, sink: Sink<'_>) -> Result<(), Fault> {
        let Some(tree) = dir.tree()? else { return Ok(()) };
        let (mut spot, mut last) = self.resume(behind).await?;
        loop {
            if let Some(spot) = spot.take() {
                if !self.list_page(dir, spot, &mut last, sink).await {
                    return Ok(());
                }
                // A page without any name that can be read is behind us, too.
                last.get_or_insert_default();
            }
            let next = dirs::next(&self.pages, tree, last.as_deref()).await?;
            for error in next.damage {
                self.told.note(dir.ino);
                self.tell(dir.ino, error.into()).await;
            }
            match next.spot {
                Some(found) => spot = Some(found),
                None if self.told.is_noted(dir.ino) => return Err(Fault::Errno(Errno::EIO)),
                None => return Ok(()),
            }
        }
    }

    /// The place behind an entry, and the entry's name.
    async fn resume(&self, behind: u64) -> Result<(Option<Spot>, Option<Vec<u8>>), Fault> {
        let Ino::Row { page: page @ 1.., row } = Ino::parse(behind) else { return Ok((None, None)) };
        let record = self.inodes().record(page).ok_or(Fault::Errno(Errno::ESTALE))?;
        let leaf = self.pages.leaf(record.page).await?;
        let last = leaf.name(row).map(<[u8]>::to_vec);
        Ok((Some(Spot { page: record.page, leaf, row: row.saturating_add(1) }), last))
    }

    /// Gives the entries of a page to the sink, from a row on; false if there is no more room.
    async fn list_page(
        &self,
        dir: &Entry,
        mut spot: Spot,
        last: &mut Option<Vec<u8>>,
        sink: Sink<'_>,
    ) -> bool {
        while let Some(decoded) = spot.leaf.node(spot.row) {
            let name = spot.leaf.name(spot.row).unwrap_or_default();
            let node = match decoded {
                _ if last.as_ref().is_some_and(|last| name <= last.as_slice()) => {
                    Err(FormatError::Value { section: "5", what: "order of names" })
                }
                decoded => decoded,
            };
            match node {
                Ok(node) => {
                    *last = Some(node.name.clone());
                    if !self.list_node(dir, &spot, &node, sink).await {
                        return false;
                    }
                }
                Err(rule) => {
                    if last.as_ref().is_none_or(|last| name > last.as_slice()) {
                        *last = Some(name.to_vec());
                    }
                    self.told.note(dir.ino);
                    self.tell(dir.ino, damaged_page(&spot.page.id, rule).into()).await;
                }
            }
            spot.row += 1;
        }
        true
    }

    async fn list_node(&self, dir: &Entry, spot: &Spot, node: &Node, sink: Sink<'_>) -> bool {
        let ino = self.number(dir, spot, node);
        match ino.and_then(|ino| attr::attr(node, ino)) {
            Ok(attr) => {
                self.bare.note(attr.ino.0, node);
                let page = self.page(dir, spot.page);
                let cookie = Ino::Row { page, row: spot.row }.number();
                sink(cookie, &node.name, &attr, FOREVER)
            }
            Err(unfit) => {
                self.tell_of(dir.ino, &node.name, unfit).await;
                true
            }
        }
    }
}
