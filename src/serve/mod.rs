//! What goes on until it is told to stop: a repository shown to other programs, or opened to other machines.
//!
//! # Must not
//! Print, prompt, or read the environment. The mount changes nothing stored; the door changes what its client asks for and its
//! role allows.

pub mod door;
pub mod listen;
pub mod mount;
