//! How snapshots are brought from elsewhere, as typed: what `copy` and `import` have in common.

use clap::Args;

/// How snapshots are brought.
#[derive(Debug, Args)]
pub(crate) struct BringArgs {
    /// Bring those again that lack something because of damage
    #[arg(long)]
    pub(crate) again: bool,

    /// How hard to compress, 1 to 22
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) level: i32,

    /// Say what would be brought, and store nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}
