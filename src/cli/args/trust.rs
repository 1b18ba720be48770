//! `writer` and `anchor` as typed.

use clap::{Args, Subcommand};
use lifeboat::clock::Timestamp;
use lifeboat::ops::snapshots::parse_begin;

/// `writer`.
#[derive(Debug, Args)]
pub(crate) struct WriterArgs {
    #[command(subcommand)]
    pub(crate) verb: WriterVerb,
}

/// What to do with writers.
#[derive(Debug, Subcommand)]
pub(crate) enum WriterVerb {
    /// List who may sign what the repository holds, and what became of each
    List,
    /// Believe nothing any more that a writer stores from now on; takes an admin's key
    Revoke(RevokeArgs),
}

/// `writer revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The writer's id or the beginning of it; the whole of it if it is the one of the key in use
    #[arg(value_name = "WRITER")]
    pub(crate) writer: String,

    /// Also refuse its snapshots that the store got from this time on, such as 2026-03-01 or 2026-03-01T14:00
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<Timestamp>,
}

/// `anchor`.
#[derive(Debug, Args)]
pub(crate) struct AnchorArgs {
    /// Miss no more on this machine what the store does not show; nothing is stored
    #[arg(long)]
    pub(crate) accept_missing: bool,
}

fn since(text: &str) -> Result<Timestamp, &'static str> {
    parse_begin(text).ok_or("expected a time such as 2026-03-01 or 2026-03-01T14:00")
}
