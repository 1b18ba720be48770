//! What verbs that make a snapshot have in common, and what those that write files of one have.

use clap::Args;
use lifeboat::source::target::OwnerPolicy;

use super::backup::word;

/// What is said of a new snapshot, and how hard its content is compressed.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Name of the machine [default: its own]
    #[arg(long, value_name = "HOST", value_parser = word)]
    pub(crate) host: Option<String>,

    /// Add a tag, `key` or `key=value`; may be given several times
    #[arg(long, value_name = "TAG", value_parser = word)]
    pub(crate) tag: Vec<String>,

    /// How hard to compress, 1 to 22
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) level: i32,
}

/// Whose the restored files are.
#[derive(Debug, Args)]
pub(crate) struct OwnerArgs {
    /// Leave owners and groups as the system sets them
    #[arg(long, conflicts_with = "numeric_owner")]
    no_owner: bool,

    /// Set owners and groups by number, not by name
    #[arg(long)]
    pub(crate) numeric_owner: bool,
}

impl OwnerArgs {
    /// What is done about owners.
    pub(crate) fn policy(&self) -> OwnerPolicy {
        match (self.no_owner, self.numeric_owner) {
            (true, _) => OwnerPolicy::Skip,
            (false, true) => OwnerPolicy::Numbers,
            (false, false) => OwnerPolicy::Names,
        }
    }
}
