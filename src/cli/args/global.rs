//! Options that every verb takes, before or after it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use lifeboat::clock::Timestamp;
use lifeboat::id::ObjectHash;
use lifeboat::ops::snapshots::parse_time;
use lifeboat::units::ByteSize;

/// Options for every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Where the repository lies: a directory, ssh://, sftp://, https://, s3://, gs:// or az://, or its name in the
    /// configuration [env: LIFEBOAT_REPO]
    #[arg(short, long, global = true, value_name = "URL")]
    pub(crate) repo: Option<OsString>,

    /// Read this configuration alone [env: LIFEBOAT_CONFIG] [default: lifeboat.toml and conf.d in /etc/lifeboat for root, else in
    /// the user's configuration directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Read the password from a file; one trailing newline is not part of it [env: LIFEBOAT_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// Read the password from a command that the shell runs [env: LIFEBOAT_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub(crate) password_command: Option<OsString>,

    /// Open with a key file [env: LIFEBOAT_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// Open with the 24 recovery words in a file [env: LIFEBOAT_WORDS_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) words_file: Option<PathBuf>,

    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Name every entry that is worked on
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Where to cache; may be deleted at any time [env: LIFEBOAT_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Work without a cache
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,

    /// Where to keep what must last between runs [env: LIFEBOAT_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Fail unless the store shows at least what this anchor covers; see `lifeboat anchor`
    #[arg(long, global = true, value_name = "HASH", value_parser = anchor)]
    pub(crate) require_anchor: Option<ObjectHash>,

    /// Send at most so many bytes a second, such as 10M
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) limit_upload: Option<ByteSize>,

    /// Fetch at most so many bytes a second, such as 10M
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) limit_download: Option<ByteSize>,

    /// How long to try again when the store does not answer, such as 0, 30s, 15m or 2h [default: 15m]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub(crate) retry_for: Option<Duration>,

    /// Read a bucket of S3 that keeps versions as it was at this time, also if everything was deleted or replaced since
    #[arg(long, global = true, value_name = "TIME", value_parser = time)]
    pub(crate) as_of: Option<Timestamp>,

    /// Threads that read, compress and encrypt [default: one a processor]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,

    /// An option of the store; may be given several times
    #[arg(short, long = "option", global = true, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) option: Vec<(String, String)>,
}

/// Reads `2026-03-01` (its end), `2026-03-01T14:00` or any other form of a time.
pub(super) fn time(text: &str) -> Result<Timestamp, &'static str> {
    parse_time(text).ok_or("expected a time such as 2026-03-01T14:00")
}

/// Reads an anchor: 64 hexadecimal digits, perhaps in groups.
fn anchor(text: &str) -> Result<ObjectHash, &'static str> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    digits
        .to_ascii_lowercase()
        .parse()
        .map_err(|_| "expected the 64 hexadecimal digits that lifeboat anchor prints")
}

/// Reads `KEY=VALUE`. The value may be a secret, so no message repeats it.
pub(super) fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE"),
    }
}

const DAY: u64 = 24 * 3600;
const LONGEST: u64 = 365 * DAY;

/// Reads `90`, `90s`, `15m`, `2h` or `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    const WANTED: &str = "expected a time such as 0, 30s, 15m or 2h, at most 365d";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| WANTED)?;
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY,
        _ => return Err(WANTED),
    };
    match number.checked_mul(unit) {
        Some(seconds) if seconds <= LONGEST => Ok(Duration::from_secs(seconds)),
        _ => Err(WANTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_parse_or_are_refused() {
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "-1", "1e9", "m", "1.5h", "1w", "400d", "18446744073709551615d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_store_option_does_not_repeat_a_secret() {
        assert!(!pair("hunter2").unwrap_err().contains("hunter2"));
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    }
}
