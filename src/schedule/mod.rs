//! Schedules: at which times a job is due, which of them is to be run now, and which was missed.
//!
//! A schedule names *slots*, moments in time. Which slot a run was for is all that has to be remembered: a job is due when there
//! is a slot that is later than that of its last run. So a machine that slept runs once when it wakes, however many slots passed.
//!
//! # Invariants
//! * A slot of a local time that does not exist, because clocks went forward, is the first moment that does. One that exists
//!   twice is the first of both. So every day has each of its slots once.
//! * A slot is run once: what ran is not due again, unless it was interrupted, or failed and is to be tried again.
//! * What is not known counts as not run. So does a run for a slot that is still to come: a clock was wrong.
//! * The shift that spreads machines is always the same for one job of one machine, so it adds no slot and loses none.
//!
//! # Must not
//! Read a clock or the zone of the machine.

mod grammar;
mod plan;
mod slot;

pub use grammar::{Schedule, ScheduleError};
pub use plan::{Due, LastRun, Plan, Standing, spread};
