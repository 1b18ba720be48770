//! The judge: knows what every snapshot must hold, and holds the rules of the protocol against every request.

mod marks;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use lifeboat::crypto::object_hash;
use lifeboat::format::envelope::ObjectKind;
use lifeboat::format::gc::{Condemnation, Hold, Removal, Undo};
use lifeboat::format::layout::ObjectName;
use lifeboat::format::pack::Directory;
use lifeboat::format::signed::Signed;
use lifeboat::id::{ChunkId, ObjectHash, PackId, SnapshotId, WriterId};
use lifeboat::repo::{Repository, open_directory, open_index_object};

use crate::reading::Reader;
use crate::store::Request;
use crate::tree::Tree;
use crate::world::{Life, Objects};

/// A snapshot whose confirmation is in the store.
#[derive(Debug)]
pub struct Confirmed {
    /// What was backed up.
    pub tree: Arc<Tree>,
    pub chunks: Vec<ChunkId>,
}

/// What one life of a machine has done so far.
#[derive(Debug, Default)]
struct Deeds {
    /// Objects it put without a good answer.
    unanswered: BTreeSet<String>,
    /// When its last snapshot was answered.
    snapshot: u64,
    /// What it listed completely, and when.
    listed: Vec<(String, u64)>,
    /// When a horizon of its own was answered.
    horizon: u64,
    /// When it last deleted a pack or an index object.
    deleted: u64,
    /// What it is backing up.
    tree: Option<Arc<Tree>>,
}

pub struct Judge {
    repo: Arc<Repository>,
    reader: Reader,
    /// Every name that was ever written, with the hash of its content.
    ever: HashMap<String, ObjectHash>,
    packs: HashMap<PackId, Arc<Directory>>,
    places: HashMap<ChunkId, Vec<PackId>>,
    needed: HashMap<ChunkId, u32>,
    pub confirmed: BTreeMap<SnapshotId, Confirmed>,
    /// Confirmed once, and removed since as was asked.
    pub removed: HashSet<SnapshotId>,
    /// Snapshots that someone asked to be removed, and how often.
    forgotten: HashMap<SnapshotId, u32>,
    condemnations: HashMap<String, (u64, HashSet<PackId>)>,
    /// The tombs that each snapshot got, and when.
    tombs: HashMap<SnapshotId, Vec<(ObjectHash, u64)>>,
    /// What every removal names that was ever put, and what it replaces.
    removals: HashMap<String, (Vec<SnapshotId>, Vec<ObjectHash>)>,
    /// Snapshots that were deleted, confirmed or not.
    gone: HashSet<SnapshotId>,
    /// Packs that were deleted; a late request may put one again.
    dropped: HashSet<PackId>,
    /// Holds that were acknowledged, with what they hold.
    holds: HashMap<ObjectHash, SnapshotId>,
    /// What every hold names that was ever put.
    named: HashMap<ObjectHash, Vec<SnapshotId>>,
    /// Holds that someone asked to remove.
    let_go: HashSet<ObjectHash>,
    /// Tombs that were taken back.
    undone: HashSet<ObjectHash>,
    deeds: Vec<Deeds>,
    /// What each snapshot that was put should hold; its confirmation may come late.
    trees: HashMap<SnapshotId, Arc<Tree>>,
    pub violations: Vec<String>,
    collects: bool,
}

impl Deeds {
    /// Whether it listed these completely, in this order, since then.
    fn has_listed(&self, rooms: &[&str], since: u64) -> bool {
        let mut rooms = rooms.iter();
        let mut next = rooms.next();
        for (room, _) in self.listed.iter().filter(|(_, at)| *at > since) {
            if next.is_some_and(|next| next == room) {
                next = rooms.next();
            }
        }
        next.is_none()
    }
}

impl Judge {
    pub fn new(repo: Arc<Repository>, contents: Arc<Vec<Vec<ChunkId>>>) -> Self {
        Self {
            reader: Reader::new(Arc::clone(&repo), contents),
            repo,
            ever: HashMap::new(),
            packs: HashMap::new(),
            places: HashMap::new(),
            needed: HashMap::new(),
            confirmed: BTreeMap::new(),
            removed: HashSet::new(),
            forgotten: HashMap::new(),
            condemnations: HashMap::new(),
            tombs: HashMap::new(),
            removals: HashMap::new(),
            gone: HashSet::new(),
            dropped: HashSet::new(),
            holds: HashMap::new(),
            named: HashMap::new(),
            let_go: HashSet::new(),
            undone: HashSet::new(),
            deeds: Vec::new(),
            trees: HashMap::new(),
            violations: Vec::new(),
            collects: false,
        }
    }

    pub fn expect_collections(&mut self, collects: bool) {
        self.collects = collects;
    }

    /// Whether packs may vanish under a reader.
    pub fn collects(&self) -> bool {
        self.collects
    }

    /// A machine begins a new life.
    pub fn begin(&mut self, actor: usize) {
        if self.deeds.len() <= actor {
            self.deeds.resize_with(actor + 1, Deeds::default);
        }
        self.deeds[actor] = Deeds::default();
    }

    /// What the machine backs up in this life.
    pub fn will_save(&mut self, actor: usize, tree: &Tree) {
        self.deeds[actor].tree = Some(Arc::new(tree.clone()));
    }

    /// Whether this condemnation names packs.
    pub fn condemns(&self, key: &str) -> bool {
        self.condemnations.get(key).is_some_and(|(_, packs)| !packs.is_empty())
    }

    fn demand(&mut self, holds: bool, rule: &str, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(format!("{rule}: {}", what()));
        }
    }

    /// A machine sends a request.
    pub fn sent(&mut self, (life, _): (Life, u64), request: &Request, objects: &Objects) {
        match request {
            Request::Put(key, bytes) => {
                self.check_order(life.actor, key, bytes, objects);
                self.deeds[life.actor].unanswered.insert(key.clone());
            }
            Request::Delete(key) => self.check_delete(life.actor, key, objects),
            _ => {}
        }
    }

    /// I1 and I5: what must be answered before this is put.
    fn check_order(&mut self, actor: usize, key: &str, bytes: &[u8], objects: &Objects) {
        let deeds = &self.deeds[actor];
        let missing = |rooms: &[&str]| {
            let of = |key: &&String| rooms.iter().any(|room| key.starts_with(room)) && !key.ends_with(".ok");
            deeds.unanswered.iter().find(of).cloned()
        };
        match ObjectName::parse(key) {
            Some(ObjectName::Index(..)) => {
                let mut bad = None;
                match open_index_object(&self.repo, key, bytes) {
                    Ok(tables) => {
                        for pack in tables.packs {
                            let name = ObjectName::Pack(pack.id).key();
                            if deeds.unanswered.contains(&name) || !self.ever.contains_key(&name) {
                                bad = Some(name);
                            }
                        }
                    }
                    Err(error) => bad = Some(error.to_string()),
                }
                self.demand(bad.is_none(), "I1", || format!("{key} is put before {bad:?}"));
            }
            Some(ObjectName::Snapshot(_, _, id)) => {
                let bad = missing(&["packs/", "index/"]);
                if let Some(tree) = deeds.tree.clone() {
                    self.trees.insert(id, tree);
                }
                self.demand(bad.is_none(), "I1", || format!("{key} is put before {bad:?}"));
            }
            Some(ObjectName::Confirmation(writer, sequence, id)) => {
                let bad = missing(&["packs/", "index/", "snapshots/"]);
                let checked =
                    deeds.snapshot > 0 && deeds.has_listed(&["gc/condemned", "gc/horizon"], deeds.snapshot);
                let looked =
                    deeds.listed.iter().rev().find(|(room, _)| room == "tombs").map_or(0, |(_, at)| *at);
                let tombs = self.tombs.get(&id).into_iter().flatten();
                let tomb = tombs.filter(|(tomb, _)| !self.is_undone(tomb)).map(|(_, at)| *at).min();
                let told = tomb.is_some_and(|at| at < looked) || looked < deeds.snapshot;
                let stands = objects.contains_key(&ObjectName::Snapshot(writer, sequence, id).key());
                let forgotten = self.forgotten.contains_key(&id);
                self.demand(bad.is_none(), "I1", || format!("{key} is put before {bad:?}"));
                self.demand(checked, "I5", || format!("{key} is put without a check"));
                self.demand(!told, "tomb", || {
                    format!("{key} is put; a tomb since {tomb:?}, looked for at {looked}")
                });
                self.demand(stands || forgotten, "I1", || format!("{key} confirms what is not there"));
            }
            _ => {}
        }
    }

    /// I4: what must have happened before this is deleted.
    fn check_delete(&mut self, actor: usize, key: &str, objects: &Objects) {
        let deeds = &self.deeds[actor];
        match ObjectName::parse(key) {
            Some(ObjectName::Pack(id)) => {
                let said = self.condemnations.values().filter(|(_, packs)| packs.contains(&id));
                let since = said.map(|(at, _)| *at).min();
                let order = ["snapshots", "gc/condemned", "packs"];
                let good = since.is_some_and(|since| deeds.has_listed(&order, since));
                self.demand(good, "I4", || {
                    format!("{key} is deleted, condemned at {since:?}, without looking again")
                });
            }
            Some(ObjectName::Condemned(_)) => {
                let good = deeds.horizon > 0 && deeds.deleted <= deeds.horizon;
                let (horizon, deleted) = (deeds.horizon, deeds.deleted);
                let packs = self.condemnations.get(key).map(|(_, packs)| packs.clone()).unwrap_or_default();
                // A pack that must stay is condemned anew before its old condemnation goes.
                let others = self
                    .condemnations
                    .iter()
                    .filter(|(other, _)| other.as_str() != key && objects.keys().any(|held| held == *other));
                let again: HashSet<PackId> =
                    others.flat_map(|(_, (_, packs))| packs.iter().copied()).collect();
                let stands = |pack: &&PackId| {
                    self.packs.contains_key(pack) && !self.dropped.contains(pack) && !again.contains(pack)
                };
                let left = packs.iter().filter(stands).count();
                // One that condemns nothing only shows the store's time.
                self.demand(good || packs.is_empty(), "I4", || {
                    format!("{key} is removed; horizon at {horizon}, last delete at {deleted}")
                });
                self.demand(left == 0, "I4", || format!("{key} is removed and {left} of its packs stand"));
            }
            Some(ObjectName::Snapshot(_, _, id)) => {
                let named = self.named_as_removed(objects, "").contains(&id);
                let known = !self.confirmed.contains_key(&id) || self.forgotten.contains_key(&id);
                self.demand(named, "removal", || format!("{key} is deleted and no removal names it"));
                self.demand(known, "removal", || format!("{key} is deleted and nobody asked for it"));
                self.demand(!self.is_held(&id), "hold", || format!("{key} is deleted and held"));
            }
            Some(ObjectName::Removed(_)) if objects.contains_key(key) => self.check_removal(key, objects),
            Some(ObjectName::Hold(hash)) => self.check_hold(&hash, objects),
            _ => {}
        }
    }

    /// A machine got its answer.
    pub fn answered(&mut self, (life, step): (Life, u64), request: &Request, good: bool) {
        let deeds = &mut self.deeds[life.actor];
        if !good {
            return;
        }
        match request {
            Request::Put(key, _) => {
                deeds.unanswered.remove(key);
                match ObjectName::parse(key) {
                    Some(ObjectName::Snapshot(..)) => deeds.snapshot = step,
                    Some(ObjectName::Horizon(..)) => deeds.horizon = step,
                    _ => {}
                }
            }
            Request::Delete(key) if key.starts_with("packs/") || key.starts_with("index/") => {
                deeds.deleted = step;
            }
            Request::List(prefix) => {
                deeds.listed.push((prefix.clone(), step));
            }
            _ => {}
        }
    }

    /// An object is in the store, by whomever.
    pub fn stored(&mut self, step: u64, (key, bytes): (&str, &Bytes), all: &Objects) {
        let hash = object_hash(bytes);
        let is_new = !self.ever.contains_key(key);
        let before = *self.ever.entry(key.to_owned()).or_insert(hash);
        self.demand(before == hash, "I6", || format!("{key} is put with another content"));
        match ObjectName::parse(key) {
            Some(ObjectName::Pack(id)) if !self.packs.contains_key(&id) => self.add_pack(id, bytes),
            Some(ObjectName::Condemned(_)) => {
                let signed = Signed::decode(bytes, ObjectKind::Condemnation, None);
                let said = signed.ok().and_then(|(_, signed)| Condemnation::decode(signed.value).ok());
                let packs = said.map(|said| said.packs.into_iter().collect()).unwrap_or_default();
                self.condemnations.entry(key.to_owned()).or_insert((step, packs));
            }
            Some(ObjectName::Confirmation(writer, sequence, id)) => {
                let known = self.confirmed.contains_key(&id) || self.removed.contains(&id);
                match self.trees.get(&id).cloned() {
                    Some(tree) if !known => self.confirm((writer, sequence, id), tree, all),
                    _ => {}
                }
            }
            Some(ObjectName::Snapshot(_, _, id)) => drop(self.gone.remove(&id)),
            Some(ObjectName::Tomb(id, hash)) if is_new => {
                self.tombs.entry(id).or_default().push((hash, step));
                // It may have been on its way while an earlier one was taken back.
                self.forget(id);
            }
            Some(ObjectName::Hold(hash)) => {
                let signed = Signed::decode(bytes, ObjectKind::Hold, None);
                let hold = signed.ok().and_then(|(_, signed)| Hold::decode(signed.value).ok());
                self.named.insert(hash, hold.map(|hold| hold.snapshots).unwrap_or_default());
            }
            Some(ObjectName::Removed(_)) => {
                let signed = Signed::decode(bytes, ObjectKind::Removal, None);
                let removal = signed.ok().and_then(|(_, signed)| Removal::decode(signed.value).ok());
                let said = removal.map(|r| (r.snapshots, r.replaces)).unwrap_or_default();
                self.removals.insert(key.to_owned(), said);
            }
            Some(ObjectName::Undone(_)) => {
                let signed = Signed::decode(bytes, ObjectKind::Undo, None);
                let undo = signed.ok().and_then(|(_, signed)| Undo::decode(signed.value).ok());
                self.undone.extend(undo.into_iter().flat_map(|undo| undo.tombs));
            }
            // What asks for the store's time.
            None if key.starts_with("probe/") => {}
            None => self.violations.push(format!("{key} is no name of an object")),
            _ => {}
        }
    }

    fn add_pack(&mut self, id: PackId, bytes: &Bytes) {
        let index = self.repo.index_key().unwrap();
        match open_directory(index, self.repo.id(), bytes, bytes.len() as u64) {
            Ok((_, directory)) => {
                let mut seen = HashSet::new();
                for chunk in directory.chunks.iter().filter(|chunk| seen.insert(chunk.id)) {
                    self.places.entry(chunk.id).or_default().push(id);
                }
                self.packs.insert(id, Arc::new(directory));
            }
            Err(error) => self.violations.push(format!("pack {id} does not open: {error}")),
        }
    }

    /// I2: all of a confirmed snapshot is there, and is what was backed up.
    fn confirm(
        &mut self,
        (writer, sequence, id): (WriterId, u64, SnapshotId),
        tree: Arc<Tree>,
        all: &Objects,
    ) {
        let name = ObjectName::Snapshot(writer, sequence, id).key();
        let Some(object) = all.get(&name) else { return };
        let found = self.reader.read((&object.bytes, false), |chunk| {
            let pack = self.places.get(chunk)?.first()?;
            let directory = self.packs.get(pack)?;
            Some((Arc::clone(directory), all.get(&ObjectName::Pack(*pack).key())?.bytes.clone()))
        });
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.violations.push(format!("I2: {name} is confirmed: {error}")),
        };
        for (path, content) in &found.files {
            let right = tree.get(path).is_some_and(|number| self.reader.is_content(*number, content));
            self.demand(right, "content", || format!("{name} has other chunks at {path}"));
        }
        let (many, wanted) = (found.files.len(), tree.len());
        self.demand(many == wanted, "content", || format!("{name} has {many} files of {wanted}"));
        let missing = found.chunks.iter().find(|chunk| !self.places.contains_key(*chunk)).copied();
        self.demand(missing.is_none(), "I2", || format!("{name} is confirmed and lacks {missing:?}"));
        for chunk in &found.chunks {
            *self.needed.entry(*chunk).or_default() += 1;
        }
        self.confirmed.insert(id, Confirmed { tree, chunks: found.chunks });
    }

    /// An object is not in the store any more.
    pub fn deleted(&mut self, key: &str) {
        match ObjectName::parse(key) {
            Some(ObjectName::Pack(id)) => {
                let Some(directory) = self.packs.remove(&id) else { return };
                self.dropped.insert(id);
                for chunk in &directory.chunks {
                    let Some(places) = self.places.get_mut(&chunk.id) else { continue };
                    places.retain(|pack| *pack != id);
                    if !places.is_empty() {
                        continue;
                    }
                    self.places.remove(&chunk.id);
                    if self.needed.get(&chunk.id).is_some_and(|needed| *needed > 0) {
                        let needs =
                            |(_, snapshot): &(&SnapshotId, &Confirmed)| snapshot.chunks.contains(&chunk.id);
                        let of = self.confirmed.iter().find(needs).map(|(id, _)| id.to_string());
                        let text =
                            format!("I2: {key} is deleted with the last copy of {} of {of:?}", chunk.id);
                        self.violations.push(text);
                    }
                }
            }
            Some(name @ (ObjectName::Snapshot(_, _, id) | ObjectName::Confirmation(_, _, id))) => {
                if matches!(name, ObjectName::Snapshot(..)) {
                    self.gone.insert(id);
                }
                if let Some(gone) = self.confirmed.remove(&id) {
                    for chunk in gone.chunks {
                        self.needed.entry(chunk).and_modify(|needed| *needed -= 1);
                    }
                    self.removed.insert(id);
                }
            }
            _ => {}
        }
    }

    /// Packs that hold nothing any snapshot in the store reaches.
    pub fn garbage(&mut self, all: &Objects) -> Vec<PackId> {
        let mut live = HashSet::new();
        for (key, object) in all.range("snapshots/".to_owned()..) {
            if !key.starts_with("snapshots/") || key.ends_with(".ok") {
                continue;
            }
            let found = self.reader.read((&object.bytes, true), |chunk| {
                let pack = self.places.get(chunk)?.first()?;
                let directory = self.packs.get(pack)?;
                Some((Arc::clone(directory), all.get(&ObjectName::Pack(*pack).key())?.bytes.clone()))
            });
            live.extend(found.map(|found| found.chunks).unwrap_or_default());
        }
        let dead = |directory: &Directory| directory.chunks.iter().all(|chunk| !live.contains(&chunk.id));
        self.packs.iter().filter(|(_, directory)| dead(directory)).map(|(id, _)| *id).collect()
    }
}
