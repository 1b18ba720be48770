//! What went wrong, told once, by the path at which it is seen.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::Errno;

use super::attr::Unfit;
use super::inodes::Ino;
use super::layout::{Dir, Entry as Member, Group};
use super::server::{Fault, Server};
use super::virtuals::Place;
use crate::class::Class;
use crate::event::{Event, Observer};
use crate::ops::restore::as_path;

/// So many things are remembered as told, and so many directories as damaged.
const REMEMBERED: usize = 1 << 16;
/// Directories above an entry that are named.
const DEPTH: usize = 64;

/// Who is told, and what was told already.
pub(super) struct Told {
    observer: Arc<dyn Observer>,
    /// Where the mount is.
    place: PathBuf,
    said: Mutex<HashSet<(u64, Vec<u8>, Class)>>,
    /// Directories that a part is missing of.
    noted: Mutex<HashSet<u64>>,
    pub(super) damaged: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Unfit {
    fn class(self) -> Class {
        match self {
            Self::Kind | Self::Unsaved => Class::Partial,
            Self::Name | Self::Device | Self::Crowded | Self::Size => Class::Damage,
        }
    }
}

impl Told {
    pub(super) fn new(observer: Arc<dyn Observer>, place: PathBuf) -> Self {
        let (damaged, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { observer, place, said: Mutex::default(), noted: Mutex::default(), damaged, failed }
    }

    /// Remembers that a part of this directory cannot be read.
    pub(super) fn note(&self, dir: u64) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() >= REMEMBERED {
            // Who lists one of these meets its damage, and notes it, again.
            noted.clear();
        }
        noted.insert(dir);
    }

    /// Whether a part of this directory cannot be read.
    pub(super) fn is_noted(&self, dir: u64) -> bool {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).contains(&dir)
    }

    /// Whether this is told for the first time.
    fn is_new(&self, ino: u64, name: &[u8], class: Class) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= REMEMBERED {
            said.clear();
        }
        said.insert((ino, name.to_vec(), class))
    }

    fn say(&self, path: Vec<u8>, error: &(dyn StdError + 'static), class: Class) {
        let count = if class == Class::Damage { &self.damaged } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        let path = self.place.join(as_path(path));
        self.observer.observe(&Event::EntryFailed { path: &path, error, class });
    }
}

impl Server<'_> {
    /// What the kernel is answered; tells the user what they should know.
    pub(super) async fn tell(&self, ino: u64, fault: Fault) -> Errno {
        match fault {
            Fault::Errno(errno) => return errno,
            Fault::Unfit(unfit) => {
                if self.told.is_new(ino, b"", unfit.class()) {
                    self.told.say(self.path(ino).await, &unfit, unfit.class());
                }
            }
            Fault::Failed(error) => {
                let class = error.class();
                if class != Class::Cancelled && self.told.is_new(ino, b"", class) {
                    self.told.say(self.path(ino).await, &error, class);
                }
            }
        }
        Errno::EIO
    }

    /// Tells that an entry of a directory is left out.
    pub(super) async fn tell_of(&self, dir: u64, name: &[u8], unfit: Unfit) {
        if self.told.is_new(dir, name, unfit.class()) {
            let mut path = self.path(dir).await;
            path.push(b'/');
            path.extend_from_slice(name);
            self.told.say(path, &unfit, unfit.class());
        }
    }

    /// Where an entry is seen, below the mount; `…` for what cannot be said.
    async fn path(&self, ino: u64) -> Vec<u8> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = Some(ino);
        while let Some(ino) = at {
            let (name, above) = self.step(ino).await;
            names.extend(name);
            at = if names.len() < DEPTH { above } else { None };
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The name of an entry, and the directory it is in.
    async fn step(&self, ino: u64) -> (Option<Vec<u8>>, Option<u64>) {
        let unknown = || (Some("…".into()), None);
        match Ino::parse(ino) {
            Ino::Root => (None, None),
            Ino::Link(number) => match self.inodes().linked(number) {
                Some(row) => (None, Some(row)),
                None => unknown(),
            },
            Ino::Virtual(number) => {
                let Some(place) = self.virtuals().place(number).cloned() else { return unknown() };
                let above = self.virtuals().number(&place.parent());
                (self.name_of(&place), Some(above))
            }
            Ino::Row { page, row } => {
                let Some(record) = self.inodes().record(page) else { return unknown() };
                let leaf = self.pages.leaf(record.page).await;
                let name = leaf.ok().and_then(|leaf| leaf.name(row).map(<[u8]>::to_vec));
                (Some(name.unwrap_or_else(|| "…".into())), Some(record.dir))
            }
        }
    }

    fn name_of(&self, place: &Place) -> Option<Vec<u8>> {
        Some(match place {
            Place::Dir(Dir::Root) => return None,
            Place::Dir(Dir::Ids) => b"ids".to_vec(),
            Place::Dir(Dir::Group(Group::Jobs)) => b"jobs".to_vec(),
            Place::Dir(Dir::Group(Group::Hosts)) => b"hosts".to_vec(),
            Place::Dir(Dir::Group(Group::Tags)) => b"tags".to_vec(),
            Place::Dir(Dir::Named(_, name)) => name.clone(),
            Place::Latest(_) => b"latest".to_vec(),
            Place::Snapshot(dir, id) => {
                let layout = self.layout();
                let members = layout.as_ref().and_then(|layout| layout.entries(dir));
                let is_it = |(_, member): &(&Vec<u8>, &Member)| **member == Member::Snapshot(*id);
                let found = members.and_then(|members| members.iter().find(is_it));
                found.map_or_else(|| id.short().into_bytes(), |(name, _)| name.clone())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::CountingObserver;

    #[test]
    fn the_last_directory_that_lacks_a_part_is_always_known() {
        let told = Told::new(Arc::new(CountingObserver::default()), "/mnt".into());
        for dir in 0..2 * REMEMBERED as u64 + 2 {
            told.note(dir);
            assert!(told.is_noted(dir));
            assert!(told.noted.lock().unwrap().len() <= REMEMBERED);
        }
    }
}
