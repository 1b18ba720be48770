//! Cutting content into chunks, where the content itself says so: after an insertion the later cuts are found again.
//!
//! FastCDC: a rolling gear hash with a secret table, no look before the minimum length, and a mask that is strict
//! before the average and loose after it. [`Cutter`] finds the cuts with AVX-512 where the processor has it, and else
//! with the `fastcdc` crate.
//!
//! # Invariants
//!
//! * Cut points depend on the key, the parameters and the content alone; never on the processor, the length of the
//!   caller's buffer or the number of workers. They are a stored property: a change of the table, of the masks or of
//!   [`SPAN`] stores everything again in every repository.
//! * The portable scan is the definition; the vector scan agrees with it byte for byte.
//!
//! # Must not
//!
//! Do input or output, or allocate for each chunk. Lengths of chunks are not secret by the secret table alone: segments
//! and packs hide them.

mod blank;
mod cutter;
mod gear;
mod params;
mod span;
#[cfg(target_arch = "x86_64")]
mod vector;

pub use blank::{Blanks, Part, blank_block, is_zero};
pub use cutter::Cutter;
pub use params::{ChunkParams, ParamsError};
pub use span::{SPAN, spans};
