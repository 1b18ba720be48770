//! A repository that has lived: of every kind it has several objects, and all that was ever stored in it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lifeboat::chunk::ChunkParams;
use lifeboat::crypto::slot::Unlock;
use lifeboat::crypto::{SecretKey, keyfile};
use lifeboat::format::gc::TombReason;
use lifeboat::format::keyslot::Role;
use lifeboat::format::layout::ObjectName;
use lifeboat::id::{ObjectHash, PackId, SnapshotId, WriterId};
use lifeboat::ops::anchor::anchor;
use lifeboat::ops::gc::{PruneOptions, prune};
use lifeboat::ops::init::{InitOptions, init};
use lifeboat::repo::{Listed, RepoError, Repository};
use lifeboat::store::{Key, Store};

use crate::world::{back_up, contents, env, store_of};

/// Objects by key.
pub type Objects = BTreeMap<String, Bytes>;
/// Files by path.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Collects without any delay.
pub const NOW: PruneOptions = PruneOptions::AT_ONCE;

/// A repository, and what it was.
pub struct Story {
    /// What there is.
    pub now: Objects,
    /// What there was and is not any more.
    pub gone: Objects,
    /// What there was at some times, the earliest first.
    pub before: Vec<Objects>,
    /// The files of every snapshot that was ever made.
    pub made: BTreeMap<SnapshotId, Files>,
    /// The newest snapshot.
    pub last: SnapshotId,
    /// Covers all snapshots.
    pub anchor: ObjectHash,
    /// Where the parts of each pack begin.
    pub parts: BTreeMap<String, Vec<usize>>,
    key: SecretKey,
    source: tempfile::TempDir,
    state: tempfile::TempDir,
}

async fn all(store: &Store) -> Objects {
    let mut objects = Objects::new();
    for object in store.list("").await.unwrap() {
        let bytes = store.get(&object.key, u64::MAX).await.unwrap();
        objects.insert(object.key.as_str().to_owned(), bytes);
    }
    objects
}

impl Story {
    /// Tells it; another seed makes another repository.
    pub async fn tell(seed: u8) -> Self {
        let (source, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store_of(&Objects::new()).await;
        let chunk_params = ChunkParams::new(64, 4096, 4096).unwrap();
        let options =
            InitOptions { new_key_file: true, recovery_words: true, chunk_params, ..InitOptions::default() };
        let made = init(store.clone(), &env(state.path()), options).await.unwrap();
        let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
        let repo = Repository::open(store.clone(), env(state.path()), &Unlock::KeyFile(key.clone())).await;
        let (nobody, none) = (SnapshotId::new([0; 32]), ObjectHash::new([0; 32]));
        let mut story = Self {
            now: Objects::new(),
            gone: Objects::new(),
            before: Vec::new(),
            made: BTreeMap::new(),
            last: nobody,
            anchor: none,
            parts: BTreeMap::new(),
            key,
            source,
            state,
        };
        story.live(&repo.unwrap(), seed).await;
        story
    }

    async fn live(&mut self, repo: &Repository, seed: u8) {
        let first = self.saves(repo, seed).await;
        self.saves(repo, seed + 1).await;
        self.remembers(repo.store(), true).await;
        repo.put_tomb(first, TombReason::Named).await.unwrap();
        self.remembers(repo.store(), false).await;
        prune(repo, &NOW).await.unwrap();
        self.leaves_marks(repo, seed).await;
        anchor(repo).await.unwrap();
        self.remembers(repo.store(), true).await;
        self.revokes(repo, seed).await;
        let last = self.saves(repo, seed + 9).await;
        self.last = last.2;
        self.anchor = anchor(repo).await.unwrap().hash;
        self.remembers(repo.store(), true).await;
        self.now = self.before.pop().unwrap();
        self.gone.retain(|key, _| !self.now.contains_key(key));
        for (key, bytes) in &self.now {
            let Some(ObjectName::Pack(id)) = ObjectName::parse(key) else { continue };
            let (footer, directory) = repo.read_directory(id, bytes.len() as u64).await.unwrap();
            let mut parts = vec![32];
            parts.extend(directory.segments.iter().map(|row| (row.offset + row.stored_len) as usize));
            parts.extend([footer.directory_offset as usize, bytes.len() - 64]);
            self.parts.insert(key.clone(), parts);
        }
    }

    /// One more snapshot, by whoever opened the repository.
    async fn saves(&mut self, repo: &Repository, seed: u8) -> (WriterId, u64, SnapshotId) {
        let write = |name: &str, bytes: &[u8]| std::fs::write(self.source.path().join(name), bytes).unwrap();
        let mut noise = vec![0; 12_000];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut noise);
        write("noise", &noise);
        write("line", format!("written by {seed}\n").repeat(40).as_bytes());
        write(&format!("only-{seed}"), &[seed; 700]);
        let id = back_up(repo, self.source.path()).await;
        self.made.insert(id, contents(self.source.path()));
        let listed: Vec<Listed> = repo.list_snapshots().await.unwrap();
        let listed = listed.into_iter().find(|listed| listed.id == id).unwrap();
        (listed.writer, listed.sequence, id)
    }

    /// Keeps all objects there are.
    async fn remembers(&mut self, store: &Store, whole: bool) {
        let objects = all(store).await;
        self.gone.extend(objects.clone());
        if whole {
            self.before.push(objects);
        }
    }

    /// Two marks of each kind, and some that are taken away again.
    async fn leaves_marks(&mut self, repo: &Repository, seed: u8) {
        let kept = repo.list_snapshots().await.unwrap()[0];
        let third = self.saves(repo, seed + 2).await;
        let nothing = |byte: u8| [byte ^ seed; 32];
        for byte in [0xc0, 0xc1] {
            repo.put_condemnation(vec![PackId::new(nothing(byte))]).await.unwrap();
            repo.put_removal(vec![SnapshotId::new(nothing(byte))]).await.unwrap();
        }
        let horizon = repo.horizon().await.unwrap();
        repo.put_horizon(horizon + 1).await.unwrap();
        for of in [(kept.writer, kept.sequence, kept.id), third] {
            let tomb = repo.put_tomb(of, TombReason::Named).await.unwrap();
            repo.put_undo(vec![tomb]).await.unwrap();
            repo.put_hold(vec![of.2], None).await.unwrap();
        }
        let hold = repo.put_hold(vec![SnapshotId::new(nothing(1))], None).await.unwrap();
        let ended = repo.put_condemnation(vec![PackId::new(nothing(2))]).await.unwrap();
        self.remembers(repo.store(), false).await;
        repo.delete_hold(hold).await.unwrap();
        // As a collector does in the end.
        repo.store().delete(&Key::new(ObjectName::Condemned(ended).key()).unwrap()).await.unwrap();
        let listed = repo.list_snapshots().await.unwrap();
        let other = listed.iter().find(|listed| listed.id == third.2).unwrap();
        repo.put_labels(&kept, (0, vec!["first=tag".into()])).await.unwrap();
        repo.put_labels(&kept, (1, vec!["second=tag".into()])).await.unwrap();
        repo.put_labels(other, (0, vec!["other=tag".into()])).await.unwrap();
    }

    /// Two more keys, one of which saves something and is revoked, and one that is removed.
    async fn revokes(&mut self, repo: &Repository, seed: u8) {
        let unlock = Unlock::KeyFile(SecretKey::from_bytes([seed; 32]));
        repo.add_slot(&unlock, Role::Writer, Some("stolen".into())).await.unwrap();
        let state = env(&self.state.path().join("thief"));
        let thief = Repository::open(repo.store().clone(), state, &unlock).await.unwrap();
        let (writer, ..) = self.saves(&thief, seed + 3).await;
        self.remembers(repo.store(), false).await;
        repo.revoke_writer(writer, None).await.unwrap();
        let other = Unlock::KeyFile(SecretKey::from_bytes([seed ^ 0xff; 32]));
        let slot = repo.add_slot(&other, Role::Reader, None).await.unwrap();
        self.remembers(repo.store(), false).await;
        repo.delete_slot(slot).await.unwrap();
    }

    /// A store that holds these objects, and got the newest snapshot last.
    pub async fn store(&self, objects: &Objects) -> Store {
        let newest = self.last.to_string();
        let (last, first): (Objects, Objects) =
            objects.clone().into_iter().partition(|(key, _)| key.contains(&newest));
        let store = store_of(&first).await;
        for (key, bytes) in last {
            store.put(&Key::new(key).unwrap(), vec![bytes]).await.unwrap();
        }
        store
    }

    /// Opens what these objects are, as a machine that remembers nothing.
    pub async fn open(&self, store: &Store) -> Result<Repository, RepoError> {
        let unlock = Unlock::KeyFile(self.key.clone());
        Repository::open(store.clone(), env(Path::new("/nonexistent")), &unlock).await
    }

    /// The path that was saved.
    pub fn saved(&self) -> &Path {
        self.source.path()
    }

    /// The writers and snapshots that names of this repository carry.
    pub fn named(&self) -> (BTreeSet<WriterId>, BTreeSet<SnapshotId>) {
        let (mut writers, mut snapshots) = (BTreeSet::new(), BTreeSet::new());
        for key in self.now.keys() {
            match ObjectName::parse(key).unwrap() {
                ObjectName::Writer(writer, ..) => drop(writers.insert(writer)),
                ObjectName::Snapshot(.., id) => drop(snapshots.insert(id)),
                _ => {}
            }
        }
        (writers, snapshots)
    }
}
