//! What the store holds and what each process remembers, small enough to be visited millions of times.
//!
//! Packs live in numbered slots. A slot is used again only when nothing in the store and nobody's memory names it, so a
//! number stands for a unique name, and runs without end have finitely many states.

/// Slots for packs; a state that needs more is reported, never dropped.
pub const SLOTS: usize = 8;
/// Slots for index objects.
pub const INDEXES: usize = 8;
/// No pack.
pub const NONE: u8 = 0xff;

/// A set of slots, of chunks (`CHUNKS`) or of index objects.
pub type Mask = u8;

/// Both chunks of the model.
pub const CHUNKS: Mask = 0b11;
/// Snapshot 0 is the old one, present from the start; the others are the writers', in their order.
pub const OLD: usize = 0;

/// The snapshot object is listed.
pub const EXISTS: u8 = 1;
/// It is confirmed and acknowledged.
pub const CONFIRMED: u8 = 1 << 1;
/// It was deleted, and a power cut may bring it back.
pub const UNSYNCED: u8 = 1 << 2;
/// It was acknowledged without a clean check of what it depends on.
pub const UNCHECKED: u8 = 1 << 3;

/// What the registry says of the one that is revoked, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Standing {
    #[default]
    Active,
    /// About to be revoked.
    Closing,
    Revoked,
}

/// Where the admin stands who revokes: the next call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Admin {
    #[default]
    ListFirst,
    PutClosing,
    ListIndex,
    ListOthers,
    PutRevoked,
    Ended,
}

/// Where a writer stands: the next call it makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum WriterAt {
    #[default]
    GetHorizon,
    ListIndex,
    ListPacks,
    ListCondemned,
    PutPack,
    PutIndex,
    PutSnapshot,
    CheckCondemned,
    CheckHorizon,
    CheckRegistry,
    CheckPacks,
    HealIndex,
    HealPacks,
    Confirm,
    /// Acknowledged, or ended with "not confirmed", or cut off.
    Ended,
}

/// A writer's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Writer {
    pub at: WriterAt,
    /// The horizon is no longer the one it read.
    pub moved: bool,
    /// The same, but for a horizon that will not count once its author is revoked.
    pub doubtful: bool,
    /// What it read of the registry last.
    pub known: Standing,
    /// Every read of the check came out clean.
    pub checked: bool,
    /// Chunks without a pack to depend on.
    pub lost: Mask,
    /// The pack of each chunk.
    pub depends: [u8; 2],
    /// Packs it may use.
    pub view: Mask,
    /// Condemned packs, as last listed.
    pub seen: Mask,
    /// Packs of its own that no index object names yet.
    pub unnamed: Mask,
    /// Packs of an earlier run that died, from its journal.
    pub journal: Mask,
    /// An earlier run listed packs and index objects at the present horizon.
    pub cache: bool,
    /// Packs that it listed.
    pub cached: Mask,
    /// Index objects that it listed.
    pub remembered: Mask,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            at: WriterAt::GetHorizon,
            moved: false,
            doubtful: false,
            known: Standing::Active,
            checked: false,
            lost: 0,
            depends: [NONE; 2],
            view: 0,
            seen: 0,
            unnamed: 0,
            journal: 0,
            cache: false,
            cached: 0,
            remembered: 0,
        }
    }
}

/// Where a collector stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum CollectorAt {
    #[default]
    Begin,
    PutRemoval,
    ListHolds,
    ListUndos,
    DeleteSnapshot,
    SyncRemoved,
    DropRemoval,
    ListSnapshots,
    Choose,
    Condemn,
    ListAgain,
    SyncListed,
    ListIndex,
    ListCondemned,
    ListPacks,
    CheckRegistry,
    MovePack,
    MoveIndex,
    DeletePacks,
    ReadIndex,
    PutReplacement,
    CountsIndex,
    DeleteIndex,
    ListHorizon,
    PutHorizon,
    CountsHorizon,
    DropRecord,
    Ended,
}

/// A collector's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Collector {
    pub at: CollectorAt,
    /// Rounds left to begin; `ENDLESS` never becomes fewer.
    pub rounds: u8,
    /// The condemnation it works on: its own, or one of the other's that it takes up.
    pub record: u8,
    /// Something spares the snapshot to be removed.
    pub spare: bool,
    /// The horizon it is about to write exists already.
    pub late: bool,
    /// The horizon is no longer the one it read when its round began.
    pub moved: bool,
    /// What it read of the registry last.
    pub known: Standing,
    /// Every index object that it replaces names the present horizon.
    pub fresh: bool,
    /// Chunks that listed snapshots need.
    pub live: Mask,
    /// Chunks to be moved.
    pub moving: Mask,
    /// The packs of its condemnation.
    pub packs: Mask,
    /// Packs named by the index; then those that count as another copy; then what a replacement names.
    pub named: Mask,
    /// Condemned packs, as last listed.
    pub seen: Mask,
    /// Where moved chunks went.
    pub target: Mask,
    /// Index objects to delete.
    pub superseded: Mask,
}

/// Rounds without end.
pub const ENDLESS: u8 = 0xff;

impl Default for Collector {
    fn default() -> Self {
        Self {
            at: CollectorAt::Begin,
            rounds: 0,
            record: 0,
            spare: false,
            late: false,
            moved: false,
            known: Standing::Active,
            fresh: false,
            live: 0,
            moving: 0,
            packs: 0,
            named: 0,
            seen: 0,
            target: 0,
            superseded: 0,
        }
    }
}

/// Where somebody stands who keeps the old snapshot: guard 0 holds it, guard 1 undoes its removal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Guard {
    #[default]
    Put,
    LookRemoval,
    LookSnapshot,
    Succeeded,
    TooLate,
    Ended,
}

/// Everything: the store, then the processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// What each pack holds; the bytes of a deleted pack stay known to index objects that still name it.
    pub chunks: [Mask; SLOTS],
    pub packs: Mask,
    /// The packs that each index object names.
    pub index: [Mask; INDEXES],
    /// Index objects that name the present horizon as the one their author saw.
    pub fresh: Mask,
    /// Condemnations, by the collector that wrote them.
    pub condemned: [Mask; 2],
    /// Condemnations of collectors that were cut off.
    pub left: Mask,
    /// Removal records, by collector; the third is of one that was cut off. They name the old snapshot.
    pub removals: [bool; 3],
    pub snapshots: [u8; 3],
    pub tomb: bool,
    /// Objects of the guards.
    pub kept: [bool; 2],
    /// The power was cut.
    pub cut: bool,
    /// A slot was needed that the model does not have.
    pub full: bool,
    pub writers: [Writer; 2],
    pub collectors: [Collector; 2],
    pub guards: [Guard; 2],
    pub admin: Admin,
    /// What the registry says of the one that is revoked.
    pub standing: Standing,
    /// Index objects that it signed.
    pub signed: Mask,
    /// Those that count once it is about to be revoked, and once it is.
    pub accepted: [Mask; 2],
    /// What else it signed counts once it is revoked: a writer's snapshot, a collector's condemnation.
    pub counts: bool,
    /// The condemnations of the one that is revoked are not those of others.
    pub condemns: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            chunks: [0; SLOTS],
            packs: 0,
            index: [0; INDEXES],
            fresh: 0,
            condemned: [0; 2],
            left: 0,
            removals: [false; 3],
            snapshots: [0; 3],
            tomb: false,
            kept: [false; 2],
            cut: false,
            full: false,
            writers: [Writer::default(); 2],
            collectors: [Collector::default(); 2],
            guards: [Guard::default(); 2],
            admin: Admin::default(),
            standing: Standing::Active,
            signed: 0,
            accepted: [0; 2],
            counts: false,
            condemns: false,
        }
    }
}

/// The members of a set.
pub fn members(mask: Mask) -> impl Iterator<Item = u8> {
    (0..8).filter(move |i| mask & (1 << i) != 0)
}

impl State {
    /// Packs that index objects name, present or not.
    pub fn named(&self) -> Mask {
        self.index.iter().fold(0, |all, names| all | names)
    }

    /// Packs that these index objects name.
    pub fn named_by(&self, objects: Mask) -> Mask {
        members(objects).fold(0, |all, slot| all | self.index[usize::from(slot)])
    }

    /// The index objects that there are.
    pub fn objects(&self) -> Mask {
        (0..INDEXES).filter(|slot| self.index[*slot] != 0).fold(0, |all, slot| all | (1 << slot))
    }

    /// Index objects that somebody may depend on who knows this of the registry.
    pub fn dependable(&self, known: Standing) -> Mask {
        let refused = match known {
            Standing::Active => 0,
            Standing::Closing => self.signed & !self.accepted[0],
            Standing::Revoked => self.signed & !self.accepted[1],
        };
        self.objects() & !refused
    }

    /// Packs that index objects name on which somebody may depend who knows this of the registry.
    pub fn dependably_named(&self, known: Standing) -> Mask {
        self.named_by(self.dependable(known))
    }

    /// Packs that index objects name which count: those of who is only about to be revoked do.
    pub fn countably_named(&self) -> Mask {
        match self.standing {
            Standing::Active | Standing::Closing => self.named(),
            Standing::Revoked => self.dependably_named(Standing::Revoked),
        }
    }

    /// Whether what the one that is revoked signed beside index objects says nothing.
    pub fn is_refused(&self) -> bool {
        self.standing == Standing::Revoked && !self.counts
    }

    /// Packs under a condemnation.
    pub fn all_condemned(&self) -> Mask {
        let first = if self.condemns && self.is_refused() { 0 } else { self.condemned[0] };
        first | self.condemned[1] | self.left
    }

    /// The chunks in these packs.
    pub fn chunks_in(&self, packs: Mask) -> Mask {
        members(packs).fold(0, |all, pack| all | self.chunks[usize::from(pack)])
    }

    /// Those of `packs` that hold `chunk`.
    pub fn holding(&self, chunk: u8, packs: Mask) -> Mask {
        members(packs)
            .filter(|pack| self.chunks[usize::from(*pack)] & (1 << chunk) != 0)
            .fold(0, |all, pack| all | (1 << pack))
    }

    /// Packs that the store or a process knows of.
    pub fn used(&self) -> Mask {
        let mut used = self.packs | self.named() | self.all_condemned();
        for w in &self.writers {
            used |= w.view | w.seen | w.unnamed | w.journal | w.cached;
            for pack in w.depends {
                used |= if pack == NONE { 0 } else { 1 << pack };
            }
        }
        for c in &self.collectors {
            used |= c.packs | c.named | c.seen | c.target;
        }
        used
    }

    /// PUT of a pack under a new name; `None` and `full` when the model has no slot left.
    pub fn put_pack(&mut self, chunks: Mask) -> Option<u8> {
        let used = self.used();
        let slot = used.trailing_ones() as usize;
        if slot >= SLOTS {
            self.full = true;
            return None;
        }
        self.chunks[slot] = chunks;
        self.packs |= 1 << slot;
        Some(slot as u8)
    }

    /// PUT of an index object under a new name; `fresh` if it names the present horizon, `signed` if its author may be revoked.
    pub fn put_index(&mut self, names: Mask, (fresh, signed): (bool, bool)) {
        if names == 0 {
            return;
        }
        let [w0, w1] = &self.writers;
        let [c0, c1] = &self.collectors;
        let busy = c0.superseded | c1.superseded | w0.remembered | w1.remembered;
        let free = (0..INDEXES).find(|i| self.index[*i] == 0 && busy & (1 << i) == 0);
        match free {
            Some(slot) => {
                self.index[slot] = names;
                self.fresh = (self.fresh & !(1 << slot)) | (u8::from(fresh) << slot);
                self.signed |= u8::from(signed) << slot;
            }
            None => self.full = true,
        }
    }

    /// A deleted index object is never listed again.
    pub fn forget_object(&mut self, slot: Mask) {
        self.fresh &= !slot;
        self.signed &= !slot;
        self.accepted = self.accepted.map(|list| list & !slot);
        for w in &mut self.writers {
            w.remembered &= !slot;
        }
    }

    /// The horizon moves: nobody who read it before holds the present one. `early` if its number may have been listed
    /// long before it is written, `listed` if it is among what counts of its author.
    pub fn put_horizon(&mut self, early: bool, listed: bool) {
        self.fresh = 0;
        for w in &mut self.writers {
            let reads = !matches!(w.at, WriterAt::GetHorizon | WriterAt::Ended);
            w.moved |= reads && listed;
            w.doubtful |= reads && !listed;
            (w.cache, w.cached, w.remembered) = (false, 0, 0);
        }
        for c in &mut self.collectors {
            c.moved |= !matches!(c.at, CollectorAt::Begin | CollectorAt::Ended);
            c.fresh = false;
            c.late |= early || c.at == CollectorAt::PutHorizon;
        }
    }

    /// Whether every one of `chunks` is in an existing pack that an index object names which counts.
    pub fn restorable(&self, chunks: Mask) -> bool {
        chunks & !self.chunks_in(self.packs & self.countably_named()) == 0
    }
}
