//! chunk
mod cutter;
mod gear;
mod params;
mod span;
#[cfg(target_arch = "x86_64")]
mod vector;

pub use cutter::Cutter;
pub use params::{ChunkParams, ParamsError};
pub use span::{SPAN, spans};
