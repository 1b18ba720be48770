//! What may befall a request.

use crate::chance::Dice;
use crate::store::Request;

/// Objects whose loss loses no content.
pub const MARKS: [&str; 7] =
    ["gc/condemned/", "gc/horizon/", "gc/removed/", "gc/undone/", "tombs/", "holds/", "labels/"];

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// An error, and no effect.
    Before,
    /// The effect, and then an error.
    After,
    /// The effect twice.
    Twice,
    /// An error now, and the effect after so many further requests, whoever lives then.
    Late(u64),
    /// No space.
    Full,
    /// The content ends early.
    Short(u64),
    /// A bit of the content is another.
    Corrupt(u64),
    /// The second half of the content is zeroes.
    Torn,
    /// What is there is said not to be there.
    Hides,
    /// From now on a bit of what is stored is another, if it is a mark: anything else would be lost.
    Rots(u64),
    /// The listing fails after so many objects.
    ListFails(u64),
    /// The machine dies before the effect.
    Dies,
    /// The machine dies after the effect.
    DiesAfter,
    /// The machine sleeps while the others make so many requests; days pass.
    Sleeps(u64),
}

/// How often what happens: one request in so many; zero for never.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub faults: u64,
    pub deaths: u64,
    pub sleeps: u64,
    pub rot: u64,
}

impl Weather {
    pub fn new(dice: &mut Dice) -> Self {
        let faults = dice.pick(&[0, 0, 60, 25, 10]);
        let deaths = dice.pick(&[0, 0, 80, 40]);
        let sleeps = dice.pick(&[0, 80, 30, 12]);
        let rot = dice.pick(&[0, 0, 0, 0, 0, 0, 0, 60]);
        Self { faults, deaths, sleeps, rot }
    }

    /// Decides about a request. Draws the same amount of chance whatever it decides.
    pub fn decide(&self, dice: &mut Dice, request: &Request) -> Fault {
        let (fault, death, sleep) =
            (dice.one_in(self.faults), dice.one_in(self.deaths), dice.one_in(self.sleeps));
        let (which, amount, rot) = (dice.next(), dice.next(), dice.one_in(self.rot));
        if death {
            return if which % 2 == 0 { Fault::Dies } else { Fault::DiesAfter };
        }
        if sleep {
            return Fault::Sleeps(5 + amount % 120);
        }
        match request {
            Request::Get(key, _) if rot && MARKS.iter().any(|marks| key.starts_with(marks)) => {
                return Fault::Rots(amount);
            }
            _ if !fault => return Fault::None,
            _ => {}
        }
        match request {
            Request::Put(..) => match which % 6 {
                0 | 1 => Fault::Before,
                2 => Fault::After,
                3 => Fault::Twice,
                4 => Fault::Late(1 + amount % 40),
                _ => Fault::Full,
            },
            Request::Delete(..) => match which % 4 {
                0 => Fault::Before,
                1 => Fault::After,
                2 => Fault::Twice,
                _ => Fault::Late(1 + amount % 40),
            },
            Request::Get(..) => match which % 6 {
                0 | 1 => Fault::Before,
                2 => Fault::Short(amount),
                3 => Fault::Corrupt(amount),
                4 => Fault::Hides,
                _ => Fault::Torn,
            },
            Request::List(..) => match which % 2 {
                0 => Fault::Before,
                _ => Fault::ListFails(amount),
            },
        }
    }
}
