//! The cache: which levels there are, what goes into them, when they are merged, and what happens when the directory
//! is of no use.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::IndexError;
use super::bits::Bits;
use super::cursor::Input;
use super::directory::Directory;
use super::header::Source;
use super::level::Level;
use super::map::Backing;
use super::merge::{MergeError, write_level};
use super::scratch::ScratchMap;
use super::view::View;
use crate::format::index::{IndexHeader, IndexTables, PackRow, RECORD_LEN, StoredRows};
use crate::format::segment::SegmentEntry;
use crate::id::ObjectHash;

/// Most levels that a view looks through.
pub(super) const LEVELS_MAX: usize = 8;

/// Most levels between two views, while many index objects come in.
const LEVELS_OPEN_MAX: usize = if cfg!(test) { 12 } else { 64 };

/// Index objects are gathered in memory up to this many bytes before they become a level.
const PENDING_MAX: usize = if cfg!(test) { 4 << 10 } else { 16 << 20 };

/// Levels of fewer records are always merged with each other.
const SMALL_RECORDS: u64 = if cfg!(test) { 16 } else { 1 << 16 };

/// A level is merged with all smaller ones together unless it is more than this many times as large.
const TIER: u64 = 3;

/// The directory could not be used as wished; the run goes on, in memory where need be.
#[derive(Debug, thiserror::Error)]
#[error("the index cache in {} cannot be used: this run keeps what it must in memory", path.display())]
pub struct CacheWarning {
    /// The directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// An index object whose rows lie in a file. Whoever makes it has checked signature and rows.
#[derive(Debug)]
pub struct MappedTables {
    /// Everything but the rows.
    pub header: IndexHeader,
    /// The plaintext of all blocks, in stored order.
    pub rows: ScratchMap,
}

/// Index objects, merged into levels. See the module for what it promises.
#[derive(Debug)]
pub struct Cache {
    directory: Option<Directory>,
    /// Whether writing to the directory has worked so far.
    writable: bool,
    levels: Vec<Arc<Level>>,
    /// What the levels and `pending` hold, unless levels were removed since this was counted.
    known: Option<HashSet<ObjectHash>>,
    pending: Vec<(ObjectHash, IndexTables)>,
    pending_bytes: usize,
    warnings: Vec<CacheWarning>,
}

impl Cache {
    /// Opens the cache in this directory, and makes the directory if need be. Without one, and when it cannot be used,
    /// everything is held in memory; [`Self::take_warnings`] says so. Reads headers only.
    pub fn open(directory: Option<&Path>) -> Self {
        let mut cache = Self {
            directory: None,
            writable: false,
            levels: Vec::new(),
            known: None,
            pending: Vec::new(),
            pending_bytes: 0,
            warnings: Vec::new(),
        };
        if let Some(path) = directory
            && let Err(source) = cache.open_directory(path)
        {
            cache.warnings.push(CacheWarning { path: path.to_owned(), source });
        }
        cache
    }

    fn open_directory(&mut self, path: &Path) -> io::Result<()> {
        let directory = Directory::open(path)?;
        // A name that vanishes was merged by another process: what replaces it is in a new listing.
        for _ in 0..3 {
            let mut vanished = false;
            self.levels.clear();
            for name in directory.levels()? {
                match directory.load(&name) {
                    Ok(backing) => match Level::open(&name, backing) {
                        Ok(level) => self.levels.push(Arc::new(level)),
                        Err(_) => directory.remove(&name),
                    },
                    Err(error) => vanished |= error.kind() == io::ErrorKind::NotFound,
                }
            }
            if !vanished {
                break;
            }
        }
        self.writable = true;
        self.directory = Some(directory);
        self.remove_redundant();
        Ok(())
    }

    /// Removes levels whose sources are all in larger ones: a merge was cut short, or two processes made one.
    fn remove_redundant(&mut self) {
        self.levels.sort_by_key(|level| std::cmp::Reverse(level.header.records()));
        let mut known = HashSet::new();
        for level in mem::take(&mut self.levels) {
            let mut new = false;
            for entry in &level.header.sources {
                new |= known.insert(entry.source.object);
            }
            if new { self.levels.push(level) } else { self.remove(&level) }
        }
    }

    /// What went wrong with the directory since the last call; for the user, once a run.
    pub fn take_warnings(&mut self) -> Vec<CacheWarning> {
        mem::take(&mut self.warnings)
    }

    /// Those of the listed index objects that the cache does not hold: fetch and [`Self::add`] them.
    pub fn missing(&self, listed: &[ObjectHash]) -> Vec<ObjectHash> {
        let known = self.count_known();
        listed.iter().filter(|object| !known.contains(*object)).copied().collect()
    }

    fn count_known(&self) -> HashSet<ObjectHash> {
        let pending = self.pending.iter().map(|(object, _)| *object);
        self.sources().map(|source| source.object).chain(pending).collect()
    }

    /// What is known of the index objects in the cache, listed or not; those added since the last view may be absent.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let levels = self.levels.iter().filter(|level| !level.is_damaged());
        levels.flat_map(|level| level.header.sources.iter().map(|entry| &entry.source))
    }

    /// Takes in an index object whose signature was checked. Adding it again changes nothing.
    pub fn add(&mut self, object: ObjectHash, tables: IndexTables) -> Result<(), IndexError> {
        self.drop_damaged();
        tables.check().map_err(|source| IndexError::Malformed { object, source })?;
        let mut known = self.known.take().unwrap_or_else(|| self.count_known());
        let new = known.insert(object);
        self.known = Some(known);
        if !new {
            return Ok(());
        }
        self.pending_bytes += size_of_val(&tables)
            + tables.records.len() * RECORD_LEN
            + tables.segments.len() * SegmentEntry::LEN
            + tables.packs.len() * PackRow::LEN
            + tables.data_keys.iter().map(Vec::len).sum::<usize>();
        self.pending.push((object, tables));
        if self.pending_bytes > PENDING_MAX {
            self.flush()?;
            if self.levels.len() > LEVELS_OPEN_MAX {
                let all = self.sources().map(|source| source.object).collect();
                let alive = self.alive(&all);
                self.compact(alive)?;
            }
        }
        Ok(())
    }

    /// Takes in an index object whose rows were checked and are mapped; it becomes a level at once.
    pub fn add_mapped(&mut self, object: ObjectHash, tables: &MappedTables) -> Result<(), IndexError> {
        self.flush()?;
        if self.count_known().contains(&object) {
            return Ok(());
        }
        let malformed = |source| IndexError::Malformed { object, source };
        let rows = StoredRows::new(&tables.header, tables.rows.as_ref()).map_err(malformed)?;
        let input = [Input::Mapped { object, header: &tables.header, rows }];
        let level = match self.write_file(&input)? {
            Some(level) => level,
            None => write_memory(&input)?,
        };
        self.known = None;
        self.levels.push(Arc::new(level));
        Ok(())
    }

    /// A view of those listed index objects that the cache holds, after merging to at most eight levels. Objects that
    /// are listed no longer are left out, and removed from the cache when they make up a quarter of a level. Which
    /// superseded objects to leave out of `listed` is for the caller to decide.
    ///
    /// On [`IndexError::CacheDamaged`] the damaged level is gone: ask [`Self::missing`] again.
    pub fn view(&mut self, listed: &[ObjectHash]) -> Result<View, IndexError> {
        self.drop_damaged();
        self.flush()?;
        let listed: HashSet<_> = listed.iter().copied().collect();
        let alive = self.alive(&listed);
        let alive = self.compact(alive)?;
        View::new(self.levels.iter().cloned().zip(alive).collect())
    }

    /// For each level the sources that count: listed, and each in one level only. Levels without any are removed.
    fn alive(&mut self, listed: &HashSet<ObjectHash>) -> Vec<Bits> {
        self.levels.sort_by_key(|level| std::cmp::Reverse(level.header.records()));
        self.known = None;
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        for level in mem::take(&mut self.levels) {
            let mut alive = Bits::new(level.header.sources.len(), false);
            let mut any = false;
            for (number, entry) in level.header.sources.iter().enumerate() {
                let counts = listed.contains(&entry.source.object) && seen.insert(entry.source.object);
                alive.set(number, counts);
                any |= counts;
            }
            if any {
                self.levels.push(level);
                kept.push(alive);
            } else {
                self.remove(&level);
            }
        }
        kept
    }

    /// Writes what was added as a level.
    fn flush(&mut self) -> Result<(), IndexError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = mem::take(&mut self.pending);
        (self.pending_bytes, self.known) = (0, None);
        let inputs: Vec<_> =
            pending.iter().map(|(object, tables)| Input::Tables { object: *object, tables }).collect();
        let level = match self.write_file(&inputs)? {
            Some(level) => level,
            None => write_memory(&inputs)?,
        };
        // After an error before this line the objects are missing again.
        self.levels.push(Arc::new(level));
        Ok(())
    }

    /// Merges the smallest levels while that is worth it or there are too many; gives the sources that count in each
    /// level that is left. When the directory cannot be written, only levels in memory are merged.
    fn compact(&mut self, alive: Vec<Bits>) -> Result<Vec<Bits>, IndexError> {
        let mut candidates: Vec<_> = mem::take(&mut self.levels).into_iter().zip(alive).collect();
        candidates.sort_by_key(|(level, alive)| live_records(level, alive));
        let (chosen, mut kept) = self.choose(candidates);
        if !chosen.is_empty() {
            let inputs: Vec<_> = chosen.iter().map(|(level, alive)| Input::Level { level, alive }).collect();
            let merged = match self.write_file(&inputs) {
                Ok(None) if chosen.iter().all(|(level, _)| level.is_memory()) => {
                    write_memory(&inputs).map(Some)
                }
                other => other,
            };
            match merged {
                Ok(Some(level)) => {
                    chosen
                        .iter()
                        .filter(|(old, _)| old.name != level.name)
                        .for_each(|(old, _)| self.remove(old));
                    let all = Bits::new(level.header.sources.len(), true);
                    kept.push((Arc::new(level), all));
                }
                Ok(None) => kept.extend(chosen),
                Err(error) => {
                    self.levels = kept.into_iter().chain(chosen).map(|(level, _)| level).collect();
                    self.drop_damaged();
                    return Err(error);
                }
            }
        }
        // Small levels first: they are the newest, and their filters are in the processor's cache.
        kept.sort_by_key(|(level, alive)| live_records(level, alive));
        let (levels, alive) = kept.into_iter().unzip();
        self.levels = levels;
        Ok(alive)
    }

    /// Splits levels, smallest first, into those to merge and those to keep.
    fn choose(&self, levels: Vec<LiveLevel>) -> (Vec<LiveLevel>, Vec<LiveLevel>) {
        let (mut chosen, mut kept) = (Vec::new(), Vec::new());
        let mut gathered = 0_u64;
        let mut left = levels.len();
        let mut wasteful = false;
        for (level, alive) in levels {
            let live = live_records(&level, &alive);
            let waste = live < level.header.records() - level.header.records() / 4;
            let movable = self.writable || level.is_memory();
            let merge = live < SMALL_RECORDS || live <= gathered * TIER || left >= LEVELS_MAX || waste;
            if merge && movable {
                gathered += live;
                wasteful |= waste;
                chosen.push((level, alive));
            } else {
                kept.push((level, alive));
            }
            left -= 1;
        }
        if chosen.len() == 1 && !wasteful {
            kept.append(&mut chosen);
        }
        (chosen, kept)
    }

    /// Writes a level to the directory; none if it cannot be written there, of which the user hears once.
    fn write_file(&mut self, inputs: &[Input<'_>]) -> Result<Option<Level>, IndexError> {
        let Some(directory) = self.directory.as_ref().filter(|_| self.writable) else { return Ok(None) };
        let written = directory.part().map_err(MergeError::from).and_then(|mut part| {
            let name = write_level(inputs, &mut part)?;
            let backing = part.publish(&name)?;
            Ok(Level::open(&name, backing)?)
        });
        match written {
            Ok(level) => Ok(Some(level)),
            Err(MergeError::Read(error)) => Err(error),
            Err(MergeError::Write(source)) => {
                self.warnings.push(CacheWarning { path: directory.path().to_owned(), source });
                self.writable = false;
                Ok(None)
            }
        }
    }

    fn drop_damaged(&mut self) {
        for level in mem::take(&mut self.levels) {
            if level.is_damaged() {
                self.remove(&level);
                self.known = None;
            } else {
                self.levels.push(level);
            }
        }
    }

    fn remove(&self, level: &Level) {
        if let Some(directory) = self.directory.as_ref().filter(|_| !level.is_memory()) {
            directory.remove(&level.name);
        }
    }
}

/// A level and the sources in it that count.
type LiveLevel = (Arc<Level>, Bits);

fn live_records(level: &Level, alive: &Bits) -> u64 {
    let sources = level.header.sources.iter().enumerate();
    sources.filter(|(number, _)| alive.get(*number)).map(|(_, entry)| entry.source.records).sum()
}

fn write_memory(inputs: &[Input<'_>]) -> Result<Level, IndexError> {
    let mut bytes = Vec::new();
    match write_level(inputs, &mut bytes) {
        Ok(name) => Level::open(&name, Backing::Memory(bytes)),
        Err(MergeError::Read(error)) => Err(error),
        // A vector takes every byte; were it not so, there would be no level.
        Err(MergeError::Write(_)) => Err(IndexError::CacheDamaged { level: "memory".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::index::testing::{Model, Object, all_ids, damage_level, object_strategy};

    fn levels_in(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    /// One step of the property test.
    #[derive(Debug, Clone)]
    enum Step {
        Add(Object),
        View { listed: Vec<bool>, usable: u16, present: u16 },
        Reopen,
    }

    fn step_strategy() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => object_strategy().prop_map(Step::Add),
            3 => (proptest::collection::vec(prop::bool::weighted(0.8), 40), any::<u16>(), any::<u16>())
                .prop_map(|(listed, usable, present)| Step::View { listed, usable, present }),
            1 => Just(Step::Reopen),
        ]
    }

    fn run(steps: Vec<Step>, directory: Option<&Path>) {
        let mut cache = Cache::open(directory);
        let mut objects: Vec<Object> = Vec::new();
        for step in steps {
            match step {
                Step::Add(object) => objects.push(object),
                Step::Reopen => cache = Cache::open(directory),
                Step::View { listed, usable, present } => {
                    let chosen = objects.iter().zip(&listed).filter(|(_, listed)| **listed);
                    let model = Model::new(chosen.map(|(object, _)| object.clone()).collect());
                    let listed: Vec<_> = model.objects.keys().copied().collect();
                    for missing in cache.missing(&listed) {
                        cache.add(missing, model.objects[&missing].tables.clone()).unwrap();
                    }
                    assert_eq!(cache.missing(&listed), []);
                    let view = cache.view(&listed).unwrap();
                    assert!(cache.levels.len() <= LEVELS_MAX);
                    model.compare(view, usable, present).unwrap();
                }
            }
        }
        assert!(cache.take_warnings().is_empty());
        if let Some(path) = directory {
            assert!(levels_in(path) <= LEVELS_OPEN_MAX);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(120))]

        #[test]
        fn views_answer_as_a_map_would(steps in proptest::collection::vec(step_strategy(), 1..30)) {
            let temp = tempfile::tempdir().unwrap();
            run(steps.clone(), Some(&temp.path().join("cache")));
            run(steps, None);
        }
    }

    #[test]
    fn many_objects_become_few_files_and_are_not_fetched_again() {
        let temp = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(Some(temp.path()));
        let model = Model::new((0..300).map(Object::numbered).collect());
        let listed: Vec<_> = model.objects.keys().copied().collect();
        for (number, object) in listed.iter().enumerate() {
            cache.add(*object, model.objects[object].tables.clone()).unwrap();
            cache.add(*object, model.objects[object].tables.clone()).unwrap();
            if number % 50 == 0 {
                cache.view(&listed).unwrap();
            }
        }
        let old = cache.view(&listed).unwrap();
        assert!(cache.levels.len() <= LEVELS_MAX);
        assert_eq!(levels_in(temp.path()), cache.levels.len());
        model.compare(old.clone(), 0x5555, 0xff).unwrap();

        let mut again = Cache::open(Some(temp.path()));
        assert_eq!(again.missing(&listed), []);
        model.compare(again.view(&listed).unwrap(), 0x5555, 0xff).unwrap();

        // What is listed no longer leaves the files once it is a quarter; old views keep their answers.
        let fewer = Model::new(model.objects.values().take(100).cloned().collect());
        let listed: Vec<_> = fewer.objects.keys().copied().collect();
        let size = |path: &Path| {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>()
        };
        let before = size(temp.path());
        fewer.compare(again.view(&listed).unwrap(), 0xffff, 0xffff).unwrap();
        assert!(size(temp.path()) < before / 2);
        model.compare(old, 0x0f, 0xf0).unwrap();
        assert_eq!(again.view(&[]).unwrap().pack_count(), 0);
        assert_eq!(levels_in(temp.path()), 0);
    }

    #[test]
    fn a_damaged_level_is_dropped_and_its_objects_are_missing_again() {
        let temp = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(Some(temp.path()));
        let model = Model::new((0..3).map(Object::numbered).collect());
        let listed: Vec<_> = model.objects.keys().copied().collect();
        listed.iter().for_each(|object| cache.add(*object, model.objects[object].tables.clone()).unwrap());
        cache.view(&listed).unwrap();
        drop(cache);
        let file = damage_level(temp.path(), 70, 4);

        let mut cache = Cache::open(Some(temp.path()));
        assert_eq!(cache.missing(&listed), []);
        let view = cache.view(&listed).unwrap();
        let error = view.locate(&all_ids()[0]).next();
        assert!(matches!(error, Some(Err(IndexError::CacheDamaged { .. }))), "{error:?}");
        assert_eq!(cache.missing(&listed).len(), 3);
        assert_eq!(cache.view(&[]).unwrap().pack_count(), 0);
        assert!(!file.exists());
        listed.iter().for_each(|object| cache.add(*object, model.objects[object].tables.clone()).unwrap());
        model.compare(cache.view(&listed).unwrap(), 1, 1).unwrap();
    }

    #[test]
    fn damage_that_a_view_met_is_not_met_again() {
        let temp = tempfile::tempdir().unwrap();
        let object = Object::numbered(2);
        let mut cache = Cache::open(Some(temp.path()));
        cache.add(object.hash, object.tables.clone()).unwrap();
        cache.view(&[object.hash]).unwrap();
        drop(cache);
        let file = damage_level(temp.path(), 70, 4);

        let mut cache = Cache::open(Some(temp.path()));
        let view = cache.view(&[object.hash]).unwrap();
        drop(cache);
        assert!(file.exists() && !view.is_damaged(), "nobody has looked at it");
        assert!(matches!(view.locate(&all_ids()[0]).next(), Some(Err(_))));
        assert!(!file.exists() && view.is_damaged());
        assert_eq!(Cache::open(Some(temp.path())).missing(&[object.hash]).len(), 1);
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_replaced_by_memory() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, b"").unwrap();
        let mut never = Cache::open(Some(&file.join("cache")));
        assert_eq!(never.take_warnings().len(), 1);

        // A directory that vanishes fails every write, as a full or read-only one does.
        let path = temp.path().join("cache");
        let model = Model::new((0..40).map(Object::numbered).collect());
        let listed: Vec<_> = model.objects.keys().copied().collect();
        let mut later = Cache::open(Some(&path));
        later.add(listed[0], model.objects[&listed[0]].tables.clone()).unwrap();
        later.view(&listed).unwrap();
        fs::remove_dir_all(&path).unwrap();
        for cache in [&mut never, &mut later] {
            for object in cache.missing(&listed) {
                cache.add(object, model.objects[&object].tables.clone()).unwrap();
            }
            model.compare(cache.view(&listed).unwrap(), 0x33, 0xffff).unwrap();
        }
        let warnings = later.take_warnings();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].path, path);
        assert!(never.take_warnings().is_empty() && later.take_warnings().is_empty());
    }

    #[test]
    fn caches_that_share_a_directory_do_not_disturb_each_other() {
        let temp = tempfile::tempdir().unwrap();
        let model = Model::new((0..60).map(Object::numbered).collect());
        let listed: Vec<_> = model.objects.keys().copied().collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (model, listed, path) = (&model, &listed, temp.path());
                scope.spawn(move || {
                    for round in 0..6 {
                        let mut cache = Cache::open(Some(path));
                        let part = &listed[..10 + (thread * 7 + round * 10) % 50];
                        for object in cache.missing(part) {
                            cache.add(object, model.objects[&object].tables.clone()).unwrap();
                        }
                        let view = cache.view(part).unwrap();
                        let part = part.iter().map(|object| model.objects[object].clone()).collect();
                        Model::new(part).compare(view, 0xf0f0, 0xff00).unwrap();
                        assert!(cache.take_warnings().is_empty());
                    }
                });
            }
        });
        let mut last = Cache::open(Some(temp.path()));
        for object in last.missing(&listed) {
            last.add(object, model.objects[&object].tables.clone()).unwrap();
        }
        model.compare(last.view(&listed).unwrap(), 0xffff, 0xffff).unwrap();
        assert!(levels_in(temp.path()) <= LEVELS_MAX);
    }

    #[test]
    fn tables_that_contradict_themselves_are_not_taken() {
        let object = Object::numbered(1);
        let mut tables = object.tables.clone();
        tables.records.reverse();
        let mut cache = Cache::open(None);
        let error = cache.add(object.hash, tables).unwrap_err();
        assert!(matches!(error, IndexError::Malformed { .. }), "{error}");
        assert_eq!(cache.missing(&[object.hash]), [object.hash]);
        cache.add(object.hash, object.tables).unwrap();
        assert_eq!(cache.missing(&[object.hash]), []);
    }
}
