//! Which packs to condemn: a pure decision about facts that someone else gathered.

use std::time::Duration;

use crate::format::envelope::ChunkKind;
use crate::format::pack::{PACK_TARGET, TREE_PACK_TARGET};
use crate::id::PackId;

/// A pack is small when it has fewer bytes than one in this many of a full one.
const SMALL: u64 = 4;
/// Small packs of a kind are merged when there are at least this many.
const SMALL_LEAST: usize = 32;

/// What is known of a pack that nobody condemned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackFacts {
    /// Its name.
    pub id: PackId,
    /// What its chunks are; unknown for a pack that no index object lists.
    pub kind: Option<ChunkKind>,
    /// Bytes in the store.
    pub size: u64,
    /// Bytes of its segments before compression.
    pub plain: u64,
    /// Bytes of chunks that are needed from it, before compression.
    pub live: u64,
    /// How long the store has had it.
    pub age: Duration,
}

/// How far a collection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Packs that the store has had for less are left alone, so that running backups need not store again what they
    /// just found.
    pub young: Duration,
    /// Dead bytes that may stay in packs that are otherwise needed, in thousandths of the live ones.
    pub max_unused: u64,
    /// Most bytes of live content that are moved to other packs.
    pub max_repack: u64,
}

/// Which packs to condemn, and what that brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Packs without anything that is needed.
    pub drop: Vec<PackId>,
    /// Packs whose needed content is moved first.
    pub rewrite: Vec<PackId>,
    /// Bytes of all packs that are condemned.
    pub condemned_bytes: u64,
    /// Bytes of them that will be written again, about.
    pub moved_bytes: u64,
    /// Packs that will stay.
    pub kept: u64,
    /// Bytes of the packs that will stay.
    pub kept_bytes: u64,
    /// Of these the bytes of content that nothing needs, about.
    pub unused_bytes: u64,
    /// Packs that would be condemned if the store had had them for longer.
    pub young: u64,
    /// Bytes of these.
    pub young_bytes: u64,
}

impl Plan {
    /// Whether there is nothing to condemn.
    pub fn is_empty(&self) -> bool {
        self.drop.is_empty() && self.rewrite.is_empty()
    }

    /// Bytes that will be free in the end, about.
    pub fn freed_bytes(&self) -> u64 {
        self.condemned_bytes.saturating_sub(self.moved_bytes)
    }

    /// Requests to the store that the plan takes, about: for each pack its directory and its deletion, for each that is
    /// moved a read, for what is moved packs of full size.
    pub fn requests(&self) -> u64 {
        let packs = (self.drop.len() + self.rewrite.len()) as u64;
        3 * packs + self.rewrite.len() as u64 + self.moved_bytes / PACK_TARGET as u64 + 4
    }
}

/// Stored bytes of what is needed from a pack, by its share.
fn live_stored(pack: &PackFacts) -> u64 {
    share(pack.size, pack.live, pack.plain)
}

fn share(size: u64, part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    u64::try_from(u128::from(size) * u128::from(part.min(whole)) / u128::from(whole)).unwrap_or(u64::MAX)
}

/// Decides. Dead packs go; of the others those with the greatest dead share, until what stays is within the rules; and
/// small ones, when there are many.
pub fn plan(mut packs: Vec<PackFacts>, rules: &Rules) -> Plan {
    packs.sort_unstable_by_key(|pack| pack.id);
    let mut plan = Plan::default();
    let mut stay = Vec::new();
    for pack in packs {
        match (pack.live, pack.age < rules.young) {
            (0, false) => {
                plan.drop.push(pack.id);
                plan.condemned_bytes += pack.size;
            }
            (0, true) => {
                plan.young += 1;
                plan.young_bytes += pack.size;
                plan.kept += 1;
                plan.kept_bytes += pack.size;
            }
            _ => stay.push(pack),
        }
    }
    let chosen = choose(&stay, rules);
    for (pack, chosen) in stay.iter().zip(chosen) {
        let live = live_stored(pack);
        if chosen {
            plan.rewrite.push(pack.id);
            plan.condemned_bytes += pack.size;
            plan.moved_bytes += live;
        } else {
            plan.kept += 1;
            plan.kept_bytes += pack.size;
            plan.unused_bytes += pack.size - live;
        }
    }
    plan
}

/// Of packs with live content, those to rewrite.
fn choose(packs: &[PackFacts], rules: &Rules) -> Vec<bool> {
    let dead = |pack: &PackFacts| pack.size - live_stored(pack);
    let live: u64 = packs.iter().map(live_stored).sum();
    let allowed = u128::from(live) * u128::from(rules.max_unused) / 1000;
    let allowed = u64::try_from(allowed).unwrap_or(u64::MAX);
    let mut unused: u64 = packs.iter().map(dead).sum();
    let mut chosen = vec![false; packs.len()];
    let mut moved = 0_u64;
    let mut order: Vec<usize> = (0..packs.len()).filter(|n| packs[*n].age >= rules.young).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&packs[*a], &packs[*b]);
        let of = |x: &PackFacts, y: &PackFacts| u128::from(x.live) * u128::from(y.plain);
        of(a, b).cmp(&of(b, a)).then(a.id.cmp(&b.id))
    });
    for &number in &order {
        let pack = &packs[number];
        let fits = moved.saturating_add(live_stored(pack)) <= rules.max_repack;
        if unused <= allowed || pack.live >= pack.plain || !fits {
            continue;
        }
        chosen[number] = true;
        moved += live_stored(pack);
        unused -= dead(pack);
    }
    for (kind, target) in [(ChunkKind::Data, PACK_TARGET), (ChunkKind::Tree, TREE_PACK_TARGET)] {
        let small = |n: &&usize| {
            packs[**n].kind == Some(kind) && packs[**n].size < target as u64 / SMALL && !chosen[**n]
        };
        let small: Vec<usize> = order.iter().filter(small).copied().collect();
        if small.len() < SMALL_LEAST {
            continue;
        }
        for number in small {
            let live = live_stored(&packs[number]);
            if moved.saturating_add(live) <= rules.max_repack {
                chosen[number] = true;
                moved += live;
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { young: Duration::from_secs(100), max_unused: 100, max_repack: u64::MAX };

    fn pack(number: u32, size: u64, live: u64, age: u64) -> PackFacts {
        PackFacts {
            id: PackId::new(*blake3::hash(&number.to_le_bytes()).as_bytes()),
            kind: Some(ChunkKind::Data),
            size,
            plain: 1000,
            live,
            age: Duration::from_secs(age),
        }
    }

    #[test]
    fn dead_packs_go_unless_they_are_young() {
        let packs = vec![pack(0, 500, 0, 1000), pack(1, 600, 0, 99), pack(2, 700, 1000, 1000)];
        let plan = plan(packs.clone(), &RULES);
        assert_eq!(plan.drop, [packs[0].id]);
        assert!(plan.rewrite.is_empty());
        assert_eq!((plan.freed_bytes(), plan.young, plan.young_bytes), (500, 1, 600));
        assert_eq!((plan.kept, plan.kept_bytes, plan.unused_bytes), (2, 1300, 0));
    }

    #[test]
    fn the_worst_packs_are_rewritten_until_the_rest_is_within_the_rules() {
        let full = (0..5).map(|n| pack(n, 1 << 24, 1000, 1000));
        let worn = [pack(100, 1 << 24, 100, 1000), pack(101, 1 << 24, 900, 1000)];
        let found = plan(full.chain(worn).collect(), &RULES);
        assert_eq!(found.rewrite, [worn[0].id], "one in ten may stay unused");
        let strict = Rules { max_unused: 0, ..RULES };
        assert_eq!(plan(worn.to_vec(), &strict).rewrite.len(), 2);
        let wide = Rules { max_unused: 10_000, ..RULES };
        assert!(plan(worn[..1].to_vec(), &wide).is_empty(), "more may be unused than is needed");
        let none = Rules { max_repack: 1, ..strict };
        assert!(plan(worn.to_vec(), &none).is_empty(), "a budget is kept");
    }

    #[test]
    fn many_small_packs_are_merged_and_few_are_left_alone() {
        let small = |count| (0..count).map(|n| pack(n, 1000, 1000, 1000)).collect::<Vec<_>>();
        assert!(plan(small(31), &RULES).is_empty());
        assert_eq!(plan(small(32), &RULES).rewrite.len(), 32);
    }

    fn facts() -> impl Strategy<Value = Vec<PackFacts>> {
        let one = (0_u64..1 << 26, 0_u64..=1000, 0_u64..200);
        proptest::collection::vec(one, 0..80).prop_map(|packs| {
            let numbered = packs.into_iter().enumerate();
            numbered.map(|(n, (size, live, age))| pack(n as u32, size, live, age)).collect()
        })
    }

    proptest! {
        #[test]
        fn the_sums_add_up_and_no_order_matters(
            packs in facts(), unused in 0_u64..500, repack in 0_u64..1 << 28,
        ) {
            let rules = Rules { max_unused: unused, max_repack: repack, ..RULES };
            let total: u64 = packs.iter().map(|pack| pack.size).sum();
            let found = plan(packs.clone(), &rules);
            prop_assert_eq!(found.condemned_bytes + found.kept_bytes, total);
            prop_assert!(found.moved_bytes <= repack);
            let touched = found.drop.iter().chain(&found.rewrite);
            let young = |id: &PackId| packs.iter().any(|pack| pack.id == *id && pack.age < rules.young);
            prop_assert!(!touched.clone().any(young), "young packs stay");
            let needed = |id: &PackId| packs.iter().any(|pack| pack.id == *id && pack.live > 0);
            prop_assert!(!found.drop.iter().any(needed), "what is needed is never dropped");
            let mut turned = packs;
            turned.reverse();
            prop_assert_eq!(plan(turned, &rules), found);
        }
    }
}
