//! A process at work on a simulated disk, what it was told is safe, and whether that is still so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use lifeboat::crypto::slot::Unlock;
use lifeboat::crypto::{SecretKey, keyfile};
use lifeboat::error::Error;
use lifeboat::format::gc::TombReason;
use lifeboat::id::SnapshotId;
use lifeboat::ops::backup::{BackupOptions, BackupSource, backup};
use lifeboat::ops::gc::{PruneOptions, prune};
use lifeboat::ops::init::{InitOptions, init};
use lifeboat::ops::restore::{RestoreOptions, restore};
use lifeboat::ops::snapshots::{SnapshotFilter, resolve};
use lifeboat::ops::verify::{Depth, Problem, Severity, verify};
use lifeboat::repo::{Env, Limits, Places, RepoError, Repository};
use lifeboat::store::local::{LocalOptions, LocalStore};
use lifeboat::store::{Store, StoreOptions};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::disk::{ROOT, SimDisk};

/// What was acknowledged: it must be true after any power cut.
#[derive(Clone, Default)]
pub struct Facts {
    /// There is a repository that this opens.
    pub key: Option<SecretKey>,
    /// Snapshots and what they must restore to.
    pub snapshots: Vec<(SnapshotId, PathBuf)>,
    /// Snapshots that someone began to forget: whole, or not there.
    pub leaving: Vec<Leaving>,
    /// Snapshots that were removed.
    pub gone: Vec<SnapshotId>,
    /// Objects outside of any repository: their content, or that there are none.
    pub objects: BTreeMap<String, Option<Vec<u8>>>,
}

/// A snapshot that is being removed.
#[derive(Clone)]
pub struct Leaving {
    id: SnapshotId,
    version: PathBuf,
    /// Whether its tomb was acknowledged: the next collection removes it.
    forgotten: bool,
}

/// Everything at once, and as much of it as there can be: the second removal is folded with the first.
const NOW: PruneOptions = PruneOptions { young: None, fold_from: 2, ..PruneOptions::AT_ONCE };

/// How far a run has come: different for different facts of one run.
pub type Stage = (bool, [usize; 3], Vec<bool>, BTreeMap<String, Option<Vec<u8>>>);

impl Facts {
    pub fn stage(&self) -> Stage {
        let counts = [self.snapshots.len(), self.leaving.len(), self.gone.len()];
        let forgotten = self.leaving.iter().map(|leaving| leaving.forgotten).collect();
        (self.key.is_some(), counts, forgotten, self.objects.clone())
    }
}

/// A directory that is backed up, with a copy of each of its versions.
pub struct Source {
    home: tempfile::TempDir,
    versions: Mutex<usize>,
}

impl Source {
    pub fn new() -> Self {
        let source = Self { home: tempfile::tempdir().unwrap(), versions: Mutex::default() };
        for n in 0..12 {
            write(&source.path().join(format!("kept/{n}")), format!("kept {n} ").repeat(n + 1).as_bytes());
        }
        source.change();
        source
    }

    pub fn path(&self) -> PathBuf {
        self.home.path().join("source")
    }

    /// Goes on to the next version: enough new content for a pack that is written directly.
    pub fn change(&self) {
        let mut versions = self.versions.lock().unwrap();
        *versions += 1;
        write(&self.path().join("large"), &noise(*versions as u64, 1_100_000));
        write(&self.path().join(format!("new/{versions}")), versions.to_string().as_bytes());
        copy(&self.path(), &self.home.path().join(versions.to_string()));
    }

    /// What the present version must restore to.
    fn version(&self) -> PathBuf {
        self.home.path().join(self.versions.lock().unwrap().to_string())
    }
}

/// A process: it knows its disk, its local state, and the source. A new one remembers nothing else.
#[derive(Clone)]
pub struct Process {
    pub facts: Arc<Mutex<Facts>>,
    pub source: Arc<Source>,
    local: LocalStore<SimDisk>,
    store: Store,
    state: PathBuf,
}

impl Process {
    pub fn new(disk: SimDisk, state: &Path, source: Arc<Source>, facts: Arc<Mutex<Facts>>) -> Self {
        let env = env(state);
        let options = StoreOptions { retry_for: Duration::ZERO, ..StoreOptions::default() };
        let store_env = env.store_env();
        let local = LocalStore::on_disk(disk, ROOT.into(), LocalOptions::default(), &store_env).unwrap();
        let store = Store::from_object_store(Arc::new(local.clone()), &options, store_env);
        Self { facts, source, local, store, state: state.to_owned() }
    }

    /// Makes the root, as the first thing of all.
    pub async fn create_root(&self) {
        self.local.create_root().await.unwrap();
    }

    /// Makes a repository unless there is one whose key is known.
    pub async fn init(&self) -> Result<(), Error> {
        if self.facts.lock().unwrap().key.is_some() {
            return Ok(());
        }
        self.create_root().await;
        let options = InitOptions { new_key_file: true, ..InitOptions::default() };
        let made = init(self.store.clone(), &env(&self.state), options).await?;
        let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
        self.facts.lock().unwrap().key = Some(key);
        Ok(())
    }

    pub async fn open(&self) -> Result<Repository, RepoError> {
        let key = self.facts.lock().unwrap().key.clone().expect("there is a repository");
        Repository::open(self.store.clone(), env(&self.state), &Unlock::KeyFile(key)).await
    }

    /// Saves the present version of the source.
    pub async fn back_up(&self) -> Result<(), Error> {
        let repo = self.open().await?;
        let options = BackupOptions {
            job: Some("power".into()),
            ..BackupOptions::new(BackupSource::Paths(vec![self.source.path()]))
        };
        let summary = backup(&repo, options).await?;
        assert_eq!(summary.failed, 0, "the source is quiet");
        let id = summary.snapshot.expect("a backup that succeeds has a snapshot");
        self.facts.lock().unwrap().snapshots.push((id, self.source.version()));
        Ok(())
    }

    /// Forgets the oldest snapshot.
    pub async fn forget(&self) -> Result<(), Error> {
        let repo = self.open().await?;
        let id = {
            let mut facts = self.facts.lock().unwrap();
            let (id, version) = facts.snapshots.remove(0);
            facts.leaving.push(Leaving { id, version, forgotten: false });
            id
        };
        let listed = repo.list_snapshots().await?.into_iter().find(|listed| listed.id == id).unwrap();
        repo.put_tomb((listed.writer, listed.sequence, id), TombReason::Named).await?;
        let mut facts = self.facts.lock().unwrap();
        facts.leaving.iter_mut().filter(|leaving| leaving.id == id).for_each(|l| l.forgotten = true);
        Ok(())
    }

    /// Removes what was forgotten and gives back all its space.
    pub async fn prune(&self) -> Result<(), Error> {
        prune(&self.open().await?, &NOW).await?;
        let mut facts = self.facts.lock().unwrap();
        let (gone, leaving) = facts.leaving.drain(..).partition(|leaving| leaving.forgotten);
        facts.leaving = leaving;
        facts.gone.extend(Vec::<Leaving>::into_iter(gone).map(|leaving| leaving.id));
        Ok(())
    }

    /// Stores an object of its own.
    pub async fn put(&self, key: &str, content: &[u8]) -> Result<(), object_store::Error> {
        self.local.put(&ObjectPath::parse(key).unwrap(), content.to_vec().into()).await?;
        self.facts.lock().unwrap().objects.insert(key.to_owned(), Some(content.to_vec()));
        Ok(())
    }

    pub async fn delete(&self, key: &str) {
        self.facts.lock().unwrap().objects.remove(key);
        self.local.delete(&ObjectPath::parse(key).unwrap()).await.unwrap();
        self.facts.lock().unwrap().objects.insert(key.to_owned(), None);
    }

    /// Stores an object that says which of these objects were listed; so it must stay.
    pub async fn put_what_is_listed(&self, keys: &[&str]) {
        let objects: Vec<_> =
            self.local.list(None).map(|found| found.unwrap().location.to_string()).collect().await;
        let mut seen = BTreeMap::new();
        for key in keys {
            let content = match objects.iter().any(|found| found == key) {
                true => {
                    let found = self.local.get(&ObjectPath::parse(*key).unwrap()).await.unwrap();
                    Some(found.bytes().await.unwrap().to_vec())
                }
                false => None,
            };
            seen.insert((*key).to_owned(), content);
        }
        self.put("other/list", objects.join("\n").as_bytes()).await.unwrap();
        self.facts.lock().unwrap().objects.extend(seen);
    }

    /// Everything that was acknowledged is there, nothing is damaged, and it can go on without help.
    pub async fn check(&self) -> Result<(), String> {
        let facts = self.facts.lock().unwrap().clone();
        for (key, wanted) in &facts.objects {
            let found = match self.local.get(&ObjectPath::parse(key).unwrap()).await {
                Ok(found) => Some(found.bytes().await.map_err(|error| chain(&error))?.to_vec()),
                Err(object_store::Error::NotFound { .. }) => None,
                Err(error) => return Err(chain(&error)),
            };
            if found != *wanted {
                let state = |content: &Option<Vec<u8>>| content.as_ref().map(Vec::len);
                return Err(format!("{key}: {:?} bytes instead of {:?}", state(&found), state(wanted)));
            }
        }
        if facts.key.is_some() {
            return self.check_repository(&facts).await;
        }
        if !facts.objects.is_empty() {
            return self.put("after/it", b"goes on").await.map_err(|error| chain(&error));
        }
        match self.init().await {
            Ok(()) => self.go_on().await,
            // The configuration was durable; only the answer was lost.
            Err(Error::Repo(RepoError::AlreadyExists { .. })) => Ok(()),
            Err(error) => Err(format!("init: {}", chain(&error))),
        }
    }

    async fn check_repository(&self, facts: &Facts) -> Result<(), String> {
        let repo = self.open().await.map_err(|error| format!("open: {}", chain(&error)))?;
        check_damage(&repo, Severity::Damage).await?;
        check_snapshots(&repo, facts).await?;
        drop(repo);
        self.go_on().await
    }

    /// The next backup and the next collection need no help, and leave nothing odd behind.
    async fn go_on(&self) -> Result<(), String> {
        self.back_up().await.map_err(|error| format!("the next backup: {}", chain(&error)))?;
        let repo = self.open().await.map_err(|error| chain(&error))?;
        let facts = self.facts.lock().unwrap().clone();
        let last = Facts { snapshots: facts.snapshots.last().cloned().into_iter().collect(), ..facts };
        check_snapshots(&repo, &last).await.map_err(|error| format!("the next backup: {error}"))?;
        check_damage(&repo, Severity::Damage).await?;
        drop(repo);
        self.prune().await.map_err(|error| format!("the next collection: {}", chain(&error)))?;
        let repo = self.open().await.map_err(|error| chain(&error))?;
        let facts = self.facts.lock().unwrap().clone();
        check_snapshots(&repo, &facts).await.map_err(|error| format!("the next collection: {error}"))?;
        let removals = repo.removals(&mut Vec::new()).await.map_err(|error| chain(&error))?.all().count();
        if removals > 1 {
            return Err(format!("the next collection: {removals} removals are left"));
        }
        check_damage(&repo, Severity::Warning).await.map_err(|error| format!("the next collection: {error}"))
    }
}

/// Nothing may be as bad as this or worse. That a snapshot is not confirmed is nobody's fault.
async fn check_damage(repo: &Repository, least: Severity) -> Result<(), String> {
    let report = verify(repo, Depth::Data).await.map_err(|error| chain(&error))?;
    let mut bad = report.findings.iter().filter(|finding| finding.severity <= least);
    match bad.find(|finding| !matches!(finding.problem, Problem::Unconfirmed)) {
        Some(finding) => Err(format!("verify: {finding}")),
        None => Ok(()),
    }
}

/// What was saved restores; what is being removed restores or is not there; what was removed is not there.
async fn check_snapshots(repo: &Repository, facts: &Facts) -> Result<(), String> {
    let listed = repo.list_snapshots().await.map_err(|error| chain(&error))?;
    let is_listed = |id: &SnapshotId| listed.iter().any(|listed| listed.id == *id);
    if let Some(id) = facts.gone.iter().find(|id| is_listed(id)) {
        return Err(format!("snapshot {id} was removed, and is back"));
    }
    let leaving = facts.leaving.iter().filter(|leaving| is_listed(&leaving.id));
    let leaving = leaving.map(|leaving| (leaving.id, &leaving.version));
    for (id, version) in facts.snapshots.iter().map(|(id, version)| (*id, version)).chain(leaving) {
        check_snapshot(repo, id, version).await.map_err(|error| format!("snapshot {id}: {error}"))?;
    }
    Ok(())
}

async fn check_snapshot(repo: &Repository, id: SnapshotId, version: &Path) -> Result<(), String> {
    let found = resolve(repo, &id.to_string(), &SnapshotFilter::default()).await;
    let snapshot = found.map_err(|error| chain(&error))?;
    if !snapshot.confirmed {
        return Err("is not confirmed".to_owned());
    }
    let target = tempfile::tempdir().unwrap();
    let path = snapshot.snapshot.paths[0].clone();
    let options = RestoreOptions::new(snapshot, path, target.path().join("restored"));
    let summary = restore(repo, options).await.map_err(|error| chain(&error))?;
    if (summary.failed, summary.damaged.len()) != (0, 0) {
        return Err(format!("{} failed, {} damaged", summary.failed, summary.damaged.len()));
    }
    match contents(&target.path().join("restored")) == contents(version) {
        true => Ok(()),
        false => Err("differs from its source".to_owned()),
    }
}

fn env(state: &Path) -> Env {
    Env::system(
        Limits { workers: 2, requests: 2 },
        Places { state: state.join("state"), cache: Some(state.join("cache")) },
    )
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn contents(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let below = |path: &Path| path.strip_prefix(root).unwrap().to_owned();
    let entries = ignore::WalkBuilder::new(root).standard_filters(false).build().map(Result::unwrap);
    let entries = entries.filter(|entry| entry.depth() > 0);
    entries.map(|entry| (below(entry.path()), std::fs::read(entry.path()).ok())).collect()
}

/// Copies a directory of plain files; a file that goes away meanwhile is left out.
pub fn copy(from: &Path, to: &Path) {
    for entry in ignore::WalkBuilder::new(from).standard_filters(false).build().filter_map(Result::ok) {
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            std::fs::create_dir_all(&target).unwrap();
        } else if let Err(error) = std::fs::copy(entry.path(), &target) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", entry.path().display());
        }
    }
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
