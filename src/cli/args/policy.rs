//! `policy` as typed, and locks.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use lifeboat::format::config::{Lock, LockMode};
use lifeboat::policy::Provider;

use super::global::duration;
use super::key::RoleArg;

/// `policy`.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) verb: PolicyVerb,
}

/// What to do with permissions.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Print the permission that a store has to give to a role
    ///
    /// It names exactly what the program asks of the store in that role, below the place that -r names, but for keys: only an
    /// admin's reaches them, so `key passwd` of any key, and `key add` by a reader, need the store's rights of an admin. Neither
    /// the repository nor a key is needed. How it is applied, and what the store cannot enforce, is said on standard error.
    Generate(PolicyGenerateArgs),
}

/// `policy generate`.
#[derive(Debug, Args)]
pub(crate) struct PolicyGenerateArgs {
    /// Whose store it is
    #[arg(value_parser = provider())]
    pub(crate) provider: Provider,

    /// What its holder does
    #[arg(long)]
    pub(crate) role: RoleArg,

    /// Who gets it: an ARN (aws), a user (ceph, minio), serviceAccount:NAME (gcs), an object id or name (azure)
    #[arg(long, value_name = "NAME")]
    pub(crate) principal: Vec<String>,

    /// The lock of the repository as `init --lock` got it: the permission to lock objects, and no longer than that
    #[arg(long, value_name = "MODE:TIME", value_parser = lock)]
    pub(crate) lock: Option<Lock>,
}

fn provider() -> impl TypedValueParser<Value = Provider> {
    let known = |name: String| Provider::ALL.into_iter().find(|known| known.name() == name);
    PossibleValuesParser::new(Provider::ALL.map(Provider::name))
        .try_map(move |name| known(name).ok_or("no such provider"))
}

/// Reads `compliance:30d` or `governance:30d`.
pub(super) fn lock(text: &str) -> Result<Lock, &'static str> {
    const WANTED: &str = "expected compliance:TIME or governance:TIME, such as compliance:30d, at most 365d";
    let (mode, time) = text.split_once(':').ok_or(WANTED)?;
    let mode = LockMode::ALL.into_iter().find(|known| known.name() == mode).ok_or(WANTED)?;
    let seconds = duration(time).ok().and_then(|time| u32::try_from(time.as_secs()).ok());
    seconds.filter(|seconds| *seconds > 0).map(|seconds| Lock { mode, seconds }).ok_or(WANTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_parse_or_are_refused() {
        let found = lock("compliance:30d").unwrap();
        assert_eq!((found.mode, found.seconds, found.days()), (LockMode::Compliance, 30 * 86_400, 30));
        assert_eq!(found.to_string(), "compliance:30d");
        assert_eq!(lock("governance:36h").map(|lock| lock.to_string()), Ok("governance:36h".to_owned()));
        for bad in
            ["", "compliance", "compliance:", "compliance:0", "legal:3d", "governance:366d", "governance:-1"]
        {
            assert!(lock(bad).is_err(), "{bad}");
        }
    }
}
