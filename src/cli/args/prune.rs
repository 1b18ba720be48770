//! `prune` as typed.

use std::time::Duration;

use clap::Args;
use lifeboat::ops::gc::PruneOptions;
use lifeboat::units::ByteSize;

use super::global::duration;

/// `prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// How long condemned packs are kept before they are deleted, such as 0s, 12h or 7d [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    grace: Option<Duration>,

    /// How long forgotten snapshots can be taken back with `undelete` [default: 7d; 0s with --grace 0s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    undo_window: Option<Duration>,

    /// Leave packs alone that are younger than this [default: twice the grace]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    young: Option<Duration>,

    /// Move content out of packs until what nothing needs is at most this share of the rest
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = percent)]
    max_unused: u64,

    /// Move at most this much content, such as 20G
    #[arg(long, value_name = "SIZE")]
    max_repack: Option<ByteSize>,

    /// Bytes that stay free on a local disk while content is moved
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    reserve: ByteSize,

    /// Remove snapshots even if they are more than a quarter of all
    #[arg(short, long)]
    yes: bool,

    /// With --grace 0s, collect even if a backup may be running: it will read some files again
    #[arg(long)]
    force: bool,

    /// Go on although a snapshot is gone that nobody removed, and note it as removed
    #[arg(long)]
    accept_missing: bool,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl PruneArgs {
    /// What the library is asked for.
    pub(crate) fn options(&self) -> PruneOptions {
        let default = PruneOptions::default();
        let grace = self.grace.unwrap_or(default.grace);
        let window = if grace.is_zero() { Duration::ZERO } else { default.undo_window };
        PruneOptions {
            grace,
            undo_window: self.undo_window.unwrap_or(window),
            young: self.young,
            max_unused: self.max_unused,
            max_repack: self.max_repack.map_or(u64::MAX, |size| size.0),
            reserve: self.reserve.0,
            yes: self.yes,
            force: self.force,
            accept_missing: self.accept_missing,
            fold_from: default.fold_from,
            dry_run: self.dry_run,
        }
    }
}

/// Percent with one decimal, in thousandths.
pub(super) fn percent(text: &str) -> Result<u64, &'static str> {
    let error = "a share is a number from 0 to 100, such as 5 or 2.5";
    let text = text.strip_suffix('%').unwrap_or(text);
    let number: f64 = text.parse().map_err(|_| error)?;
    if (0.0..=100.0).contains(&number) { Ok((number * 10.0).round() as u64) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_thousandths_or_refused() {
        assert_eq!([percent("5"), percent("2.5%"), percent("0"), percent("100")], [50, 25, 0, 1000].map(Ok));
        for bad in ["", "%", "-1", "101", "nan", "inf", "a"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}
