//! The next step after an error, by variant.

mod configured;
mod database;

use lifeboat::crypto::CryptoError;
use lifeboat::error::{Error, TrustError};
use lifeboat::format::layout::UNDONE;
use lifeboat::index::IndexError;
use lifeboat::policy::PolicyError;
use lifeboat::repo::{RekeyError, RepoError, SlotError};
use lifeboat::restic::ResticError;
use lifeboat::serve::listen::ListenError;
use lifeboat::source::SourceError;
use lifeboat::source::target::TargetError;
use lifeboat::store::{OpenError, StoreError};

use super::super::error::CliError;
use super::{Context, quote};

/// What to do next.
pub(super) fn hint(error: &CliError, context: &Context) -> Option<String> {
    Some(match error {
        CliError::Library(Error::SameRepository { .. }) => "name another one with --to".to_owned(),
        CliError::Library(error) => return library(error, context),
        CliError::NoHome { option, .. } => format!("set HOME, or give {option}"),
        CliError::NoOtherRepository => "name it with --to or LIFEBOAT_TO_REPO".to_owned(),
        CliError::OfOther { place, error } => return other(place, error),
        CliError::OfForeign { error, .. } => return foreign(error, context),
        CliError::PastIsReadOnly { .. } => {
            "leave --as-of out; what it shows can be restored, or copied into a new repository: lifeboat copy --to".to_owned()
        }
        CliError::NoRepositoryNamed => "name it with --repo or LIFEBOAT_REPO".to_owned(),
        CliError::NoDefaultRepository { .. } => {
            "name a repository with --repo or LIFEBOAT_REPO, or make the default one: lifeboat backup PATH".to_owned()
        }
        CliError::DefaultRepositoryGone { key_file, .. } => format!(
            "mount or restore the disk it lies on; or, for a new one, first move {} away",
            quote(&key_file.display().to_string())
        ),
        CliError::TwoSecrets { .. } => "keep one of them".to_owned(),
        CliError::NoSecret => "give --key-file, --password-file or --password-command, or set LIFEBOAT_KEY_FILE, \
             LIFEBOAT_PASSWORD_FILE, LIFEBOAT_PASSWORD_COMMAND or LIFEBOAT_PASSWORD; for a new repository also \
             --new-key-file"
            .to_owned(),
        CliError::NotForInit { .. } => "give --new-key-file FILE, or a password".to_owned(),
        CliError::NoWordsPlace => "name a file with --words-to or --png, or run it at a terminal".to_owned(),
        CliError::WordsReplaced => "see them with the key that made them, or make new ones: lifeboat key recovery".to_owned(),
        CliError::NoWordsToCheck => "name a file with --words-file, or run it at a terminal".to_owned(),
        CliError::KeyFileExists { .. } => "choose another name, or move the file away".to_owned(),
        CliError::KeyLost { place, .. } => format!("delete {place}, which nobody can open, and make it again"),
        CliError::UnnamedServer { .. } => "name it after the server, as in --job db1".to_owned(),
        CliError::StdinNotAlone => "make a backup of its own of standard input".to_owned(),
        CliError::StdinIsTerminal => "pipe into it, or use --command".to_owned(),
        CliError::NoFileName { .. } => "for a directory use --target DIR".to_owned(),
        CliError::Listen(error) => return listen(error).map(str::to_owned),
        CliError::NoPath => "write SNAPSHOT:/PATH".to_owned(),
        _ => return configured::hint(error),
    })
}

/// The next step where the second repository cannot be opened.
fn other(place: &str, error: &CliError) -> Option<String> {
    Some(match error {
        CliError::NoSecret => "give --to-key-file, --to-password-file or --to-password-command, or set \
             LIFEBOAT_TO_KEY_FILE, LIFEBOAT_TO_PASSWORD_FILE, LIFEBOAT_TO_PASSWORD_COMMAND or LIFEBOAT_TO_PASSWORD"
            .to_owned(),
        error => {
            let init = format!("lifeboat init --repo {} --new-key-file FILE", quote(place));
            return hint(error, &Context { init: Some(init), ..Context::default() });
        }
    })
}

/// The next step where the repository of another tool cannot be opened.
fn foreign(error: &CliError, context: &Context) -> Option<String> {
    Some(match error {
        CliError::NoSecret => {
            "give --from-password-file or --from-password-command, or set LIFEBOAT_FROM_PASSWORD_FILE, \
             LIFEBOAT_FROM_PASSWORD_COMMAND or LIFEBOAT_FROM_PASSWORD"
                .to_owned()
        }
        CliError::Library(Error::Store(StoreError::NoBucket { .. })) => "check the place".to_owned(),
        error => return hint(error, context),
    })
}

fn restic(error: &ResticError) -> Option<String> {
    Some(match error {
        ResticError::NotFound { .. } => {
            "check the place; older layouts of buckets must be migrated by restic first".to_owned()
        }
        ResticError::WrongPassword { .. } => "check that the password belongs to that repository".to_owned(),
        ResticError::NoSnapshot { .. } | ResticError::AmbiguousSnapshot { .. } => {
            "see what there is: lifeboat import restic REPO --dry-run".to_owned()
        }
        ResticError::KdfCost { .. } => "add a key with restic: restic key add".to_owned(),
        _ => return None,
    })
}

fn library(error: &Error, context: &Context) -> Option<String> {
    Some(match error {
        Error::Repo(error) => return repo(error, context),
        Error::Store(error) => return store(error, context),
        Error::Crypto(error) => return crypto(error),
        Error::OutputIsTerminal { .. } => "name a file, or pipe it into another program".to_owned(),
        Error::Restic(ResticError::Store(error)) => return store(error, context),
        Error::Restic(error) => return restic(error),
        Error::Trust(error) => return trust(error),
        Error::Index(error) => index(error)?.to_owned(),
        Error::Postgres(error) => database::postgres(error)?.to_owned(),
        Error::Base(error) => database::base(error)?.to_owned(),
        Error::Sqlite(error) => database::sqlite(error)?.to_owned(),
        Error::Source(SourceError::NotADatabase { .. } | SourceError::LinkedDatabase { .. }) => {
            "save it as a file while nobody writes to it: lifeboat backup".to_owned()
        }
        Error::Log(error) => return database::log(error),
        Error::Source(error) => source(error)?.to_owned(),
        Error::CommandFailed { source: error, .. } => source(error)?.to_owned(),
        Error::Policy(error) => policy(error)?.to_owned(),
        Error::NoKeySlot => "give --new-key-file FILE, or a password".to_owned(),
        Error::WeakStore { .. } => {
            "see what fails: lifeboat doctor; --accept-weak-store makes it all the same".to_owned()
        }
        Error::NotLockable { .. } => {
            "make a bucket of S3 with Object Lock enabled, which can only be done when it is made; or leave --lock out"
                .to_owned()
        }
        Error::NotListed { .. } => "see what fails: lifeboat doctor".to_owned(),
        Error::Remains { .. } => "restore its configuration, or choose another place".to_owned(),
        Error::Shrunk { .. } => "if that is right, run it again with --allow-shrink".to_owned(),
        Error::NoSource { .. } => "check the paths; is a disk not mounted?".to_owned(),
        Error::NothingToForget => {
            "say what to keep, such as --keep-daily 7, or name snapshots; --unconfirmed is possible, too"
                .to_owned()
        }
        Error::NamedAndPolicy => "leave the names out, or every --keep option and --unconfirmed".to_owned(),
        Error::NothingLeft { .. } => "if that is right, run it again with --allow-empty".to_owned(),
        Error::NoSuchPath { .. } | Error::NotAFile { .. } => {
            "see what it holds: lifeboat ls SNAPSHOT".to_owned()
        }
        Error::Busy { .. } => "wait for it to end, or give this one another --job".to_owned(),
        Error::Unconfirmed { .. } => "run the backup again: what is stored is not stored twice".to_owned(),
        Error::ManyRemoved { .. } => "if that is right, run it again with --yes".to_owned(),
        Error::WriterAtWork { .. } => {
            "wait for it to end, give a --grace, or go on with --force: that run will read some files again"
                .to_owned()
        }
        Error::SnapshotVanished { .. } => {
            "find out who deleted it; if that is in order, go on with --accept-missing".to_owned()
        }
        Error::SnapshotUnreadable { snapshot } => format!(
            "see what is damaged: lifeboat verify; restore it from a replica, or give the snapshot up: lifeboat forget {snapshot}"
        ),
        // Deleted, it would protect nothing any more: what it had taken back would be removed.
        Error::MarkDamaged { key } if key.starts_with(UNDONE) => {
            "restore the object from a replica; or undelete the snapshots concerned again, then delete it"
                .to_owned()
        }
        Error::MarkDamaged { .. } => {
            "restore the object from a replica, or delete it if no hold stands".to_owned()
        }
        Error::ChunkLost { .. } | Error::Damaged { .. } => {
            "see how much is damaged: lifeboat verify --data".to_owned()
        }
        _ => return hold(error).or_else(|| selector(error)).or_else(|| target(error)).or_else(|| mount(error)),
    })
}

/// What to do where a hold or a wish to keep is in the way, or no hold is made.
fn hold(error: &Error) -> Option<String> {
    Some(match error {
        Error::Held { hold, .. } => {
            format!("see why: lifeboat hold list; end it: lifeboat hold remove {hold}")
        }
        Error::NoHold { .. } | Error::AmbiguousHold { .. } => {
            "see what there is: lifeboat hold list".to_owned()
        }
        Error::HoldIsOver => "give --until a time to come".to_owned(),
        Error::NoLegalHold => {
            "without --legal nobody's `forget` or `prune` removes it; for more, a new repository: lifeboat init --lock"
                .to_owned()
        }
        _ => return None,
    })
}

fn policy(error: &PolicyError) -> Option<&'static str> {
    match error {
        PolicyError::Place { .. } => {
            Some("name the place with -r: s3://BUCKET/PREFIX, gs:// for gcs, az:// for azure")
        }
        PolicyError::NobodyNamed { .. } => Some("name them with --principal"),
        PolicyError::Prefix { .. } => Some("choose another prefix, or a bucket without one"),
        PolicyError::Lock { .. } => Some("leave --lock out, and let the bucket itself keep what is deleted"),
        _ => None,
    }
}

/// What to do where something is not to be believed.
fn trust(error: &TrustError) -> Option<String> {
    Some(match error {
        TrustError::RolledBack { .. } => "find out who did it; what is there still restores, by its id (lifeboat snapshots). If \
             that is in order: lifeboat prune --accept-missing with a maintainer's key, for all machines; or lifeboat \
             anchor --accept-missing, for this one"
            .to_owned(),
        TrustError::NoAnchor { .. } => {
            "check the anchor and the repository; if both are right, find out who rolled the store back".to_owned()
        }
        TrustError::AnchorBroken { .. } => "find out who did it; what is there still restores, without \
             --require-anchor. If that is in order: lifeboat prune --accept-missing where it was seen before, or take a \
             new anchor: lifeboat anchor"
            .to_owned(),
        TrustError::NoWriter { .. } | TrustError::AmbiguousWriter { .. } => {
            "see who there is: lifeboat writer list".to_owned()
        }
        TrustError::OwnWriter { writer } => {
            format!("if that is right, name it in full: lifeboat writer revoke {writer}")
        }
        TrustError::LastMaintainer { .. } => "first make another key that may remove".to_owned(),
        TrustError::IsRevoked { .. } => "give --since TIME to refuse more of its snapshots".to_owned(),
        _ => return None,
    })
}

/// What to do when nobody can come to a server.
fn listen(error: &ListenError) -> Option<&'static str> {
    match error {
        ListenError::Exposed { .. } => {
            Some("give --cert and --key, or listen at 127.0.0.1 or a unix: socket")
        }
        ListenError::File { .. } => {
            Some("check the path, and who runs the server; tokens are made by --new-token")
        }
        ListenError::Top { .. } => Some("make the directory, or mount the disk it lies on"),
        _ => None,
    }
}

/// What to do when no snapshot is meant, or one that cannot be used.
fn selector(error: &Error) -> Option<String> {
    let step = match error {
        Error::NoSnapshot { .. } | Error::AmbiguousSnapshot { .. } => "see what there is: lifeboat snapshots",
        Error::UnreadableSnapshot { .. } => {
            "see what is damaged: lifeboat verify; take another one by its id: lifeboat snapshots"
        }
        Error::BadSelector { .. } => "use an id or its beginning, latest, latest~2 or @2026-03-01T14:00",
        _ => return None,
    };
    Some(step.to_owned())
}

fn source(error: &SourceError) -> Option<&'static str> {
    match error {
        SourceError::ExcludedRoot { .. } => Some("change the rule, or leave the path out"),
        SourceError::Scratch { .. } => {
            Some("make room there, or name a place with more of it with --state-dir")
        }
        SourceError::NotAnImage { .. } => {
            Some("give --image block devices and files; directories are saved without it")
        }
        SourceError::WantsTerminal { .. } => {
            Some("give it what it asks for in a file or the environment, as ~/.pgpass or ~/.my.cnf")
        }
        SourceError::OutputHeld { .. } => {
            Some("wait in the command for what it starts, or let that write elsewhere")
        }
        SourceError::NoPipefail { .. } => Some("install bash, or give a command without a pipe"),
        SourceError::MissingRights { .. } => {
            Some("grant them on *.* to the account, or to a role that is its default one")
        }
        SourceError::BadList => {
            Some("see what the option files of the server's tools change in their output")
        }
        SourceError::BrokenOff => Some("see what the server says, and run it again"),
        _ => None,
    }
}

/// What concerns the place that is restored to.
fn target(error: &Error) -> Option<String> {
    let step = match error {
        Error::InPlacePolicy => "with --in-place, --overwrite is always or if-changed",
        Error::NotOnDevice => "leave --in-place, --delete and --strip out",
        Error::ManyDeleted { .. } => {
            "see which: --dry-run --verbose; if that is right, run it again with --yes"
        }
        Error::TargetTooSmall { .. } => "make room, or choose another target",
        Error::DeviceOverwrite { .. } => "if that is the right device, run it again with --overwrite-device",
        Error::Target(TargetError::DeviceInUse { .. }) => {
            "unmount it, or end what uses it; see what that is: lsblk"
        }
        _ => return None,
    };
    Some(step.to_owned())
}

/// What to do when nothing can be mounted.
fn mount(error: &Error) -> Option<String> {
    let step = match error {
        Error::NotADirectory { .. } => "see what it holds: lifeboat ls SNAPSHOT",
        Error::MountPoint { .. } => "name an empty directory, which must exist",
        Error::NoFuse { missing } if missing.starts_with("/dev") => {
            "load it: modprobe fuse; give a container --device /dev/fuse and --cap-add SYS_ADMIN; or use restore"
        }
        Error::NoFuse { .. } => "install the package fuse3, or use restore",
        Error::OthersRefused => "add the line user_allow_other to /etc/fuse.conf, or leave --allow-other out",
        Error::MountRefused { .. } => {
            "an ordinary user needs the package fuse3 and the right to open /dev/fuse; in a container, give it \
             --device /dev/fuse and --cap-add SYS_ADMIN; or use restore"
        }
        _ => return None,
    };
    Some(step.to_owned())
}

fn repo(error: &RepoError, context: &Context) -> Option<String> {
    Some(match error {
        RepoError::NotFound { .. } => init(context)?,
        RepoError::AlreadyExists { .. } => "choose another place, or use what is there".to_owned(),
        RepoError::WrongRole { one, .. } => format!(
            "open it with such a key, or have one made with a key of role admin: lifeboat key add --role {one}"
        ),
        RepoError::StaleKey => "ask an admin for a new one: lifeboat key add; or to make this one anew: lifeboat rekey --keep-key-file"
            .to_owned(),
        RepoError::Untrusted { reason, .. } if reason.contains("this machine") => {
            "find out who put it back; if that is in order: lifeboat anchor --accept-missing".to_owned()
        }
        RepoError::Rekey(error) => return rekey(error),
        RepoError::Index(error) => index(error)?.to_owned(),
        RepoError::Slot(error) => return slot(error),
        RepoError::WriterRevoked { .. } => {
            "what it stored before stays; ask an admin for a new key, and why this one was revoked".to_owned()
        }
        RepoError::AfterRevocation { .. } => "see since when: lifeboat writer list".to_owned(),
        RepoError::UnknownWriter { .. } => "see who there is: lifeboat writer list".to_owned(),
        RepoError::Closing { writer } => {
            format!("end it with an admin's key: lifeboat writer revoke {writer}")
        }
        RepoError::WrongKey { .. } => "check that the key or password belongs to this repository".to_owned(),
        // Nothing can be read from a mark that is damaged, and what goes by it stops.
        RepoError::HashMismatch { key } if ["gc/", "tombs/", "holds/"].iter().any(|p| key.starts_with(p)) => {
            "see what to do about it: lifeboat doctor".to_owned()
        }
        RepoError::HashMismatch { .. } | RepoError::Damaged { .. } | RepoError::BadSignature { .. } => {
            "see how much is damaged: lifeboat verify --packs".to_owned()
        }
        RepoError::Store(error) => return store(error, context),
        RepoError::Crypto(error) => return crypto(error),
        _ => return None,
    })
}

fn index(error: &IndexError) -> Option<&'static str> {
    matches!(error, IndexError::CacheDamaged { .. })
        .then_some("run it again: what is damaged was removed, and is fetched anew")
}

fn rekey(error: &RekeyError) -> Option<String> {
    let step = match error {
        RekeyError::Incomplete { .. } => {
            "leave --remove-old out, or give the secrets of those keys, too: --keep-key-file, --keep-password-file"
        }
        RekeyError::AtOnce => {
            "run it again with the other admin's secret, so that one key opens all: --keep-key-file, --keep-password-file"
        }
        RekeyError::Overtaken => {
            "see what there is: lifeboat key list; then run it again if it is still needed"
        }
        RekeyError::TooOften | RekeyError::NoNumber => {
            "copy the snapshots into a new repository: lifeboat copy --to"
        }
        _ => return None,
    };
    Some(step.to_owned())
}

fn slot(error: &SlotError) -> Option<String> {
    let step = match error {
        SlotError::InUse { .. } => {
            "open the repository with another admin's key to remove this one; to replace its secret: lifeboat key passwd"
        }
        SlotError::NotFound { .. } | SlotError::Ambiguous { .. } => "see the ids: lifeboat key list --json",
        SlotError::Taken { .. } => "choose another secret",
        SlotError::ByWords => {
            "for new words: lifeboat key recovery; for a password: lifeboat key add --role admin"
        }
        _ => return None,
    };
    Some(step.to_owned())
}

fn store(error: &StoreError, context: &Context) -> Option<String> {
    Some(match error {
        // Directories are made by `init`; buckets have owners, rules and costs of their own.
        StoreError::NoBucket { place } if is_bucket(place) => {
            format!("make the bucket, then: {}", context.init.as_deref()?)
        }
        StoreError::NoBucket { .. } => init(context)?,
        StoreError::Open(OpenError::NoToken { .. }) => {
            "name a file with it: LIFEBOAT_TOKEN_FILE; the server makes one: lifeboat serve --new-token".to_owned()
        }
        StoreError::Open(OpenError::NoRoots) => {
            "install ca-certificates, name a file: -o https.ca_file=FILE, or add the fingerprint to the location: \
             https://…#sha256:…"
                .to_owned()
        }
        StoreError::Open(OpenError::NoVersions { .. }) => {
            "turn versions on for the bucket: from then on it can be read as it was".to_owned()
        }
        StoreError::Denied { source, .. } if source.to_string().contains("opened with the role") => {
            "do it with a key whose line on the server has another --role, or with another token".to_owned()
        }
        StoreError::Denied { source, .. } if source.to_string().contains("certificate is not trusted") => {
            "if the server shows this fingerprint where it runs, add it to the location: https://…#sha256:…; or name a file \
             with its authority: -o https.ca_file=FILE"
                .to_owned()
        }
        StoreError::Denied { source, .. } if source.to_string().contains("token") => {
            "check the token (LIFEBOAT_TOKEN_FILE, LIFEBOAT_TOKEN_COMMAND, LIFEBOAT_TOKEN), and its line on the server".to_owned()
        }
        StoreError::Denied { .. } | StoreError::Credentials { .. } => {
            "check credentials and rights: lifeboat doctor".to_owned()
        }
        StoreError::Unreachable { .. } => "check the connection: lifeboat doctor".to_owned(),
        StoreError::NoSpace { .. } => {
            "make room at the store; the next run goes on where this one ended".to_owned()
        }
        _ => return None,
    })
}

/// Whether a location is one in a cloud; directories of other machines are made by `init`, as those of this one.
fn is_bucket(place: &str) -> bool {
    place.split_once("://").is_some_and(|(scheme, _)| !matches!(scheme, "ssh" | "sftp" | "https"))
}

fn crypto(error: &CryptoError) -> Option<String> {
    match error {
        CryptoError::WrongKey => Some("check that the key or password belongs to this repository".to_owned()),
        _ => None,
    }
}

fn init(context: &Context) -> Option<String> {
    Some(format!("to make one: {}", context.init.as_deref()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_mark_is_answered_by_what_it_may_be() {
        let hint_for = |key: &str| {
            let error = Error::MarkDamaged { key: key.to_owned() };
            hint(&CliError::Library(error), &Context::default()).unwrap()
        };
        assert!(hint_for("gc/holds/ab").contains("if no hold stands"));
        let undo = hint_for("gc/undone/ab");
        assert!(undo.contains("undelete") && !undo.contains("hold"), "{undo}");
    }

    #[test]
    fn only_init_is_told_how_it_takes_a_weak_store() {
        let error = |library| hint(&CliError::Library(library), &Context::default()).unwrap();
        let url = || "/x".to_owned();
        assert!(error(Error::WeakStore { url: url() }).contains("--accept-weak-store"));
        let unlisted = error(Error::NotListed { url: url() });
        assert!(unlisted.contains("lifeboat doctor") && !unlisted.contains("--accept"), "{unlisted}");
    }

    #[test]
    fn a_missing_repository_is_answered_with_the_command_that_makes_it() {
        let context = Context { init: Some("lifeboat init -r /x".to_owned()), ..Context::default() };
        let error = CliError::Library(RepoError::NotFound { url: "/x".to_owned() }.into());
        assert_eq!(hint(&error, &context).as_deref(), Some("to make one: lifeboat init -r /x"));
        let bucket = CliError::Library(StoreError::NoBucket { place: "s3://b".to_owned() }.into());
        assert!(hint(&bucket, &context).unwrap().starts_with("make the bucket"));
        for place in ["/x", "ssh://host/x", "sftp://host/x"] {
            let missing = CliError::Library(StoreError::NoBucket { place: place.to_owned() }.into());
            assert!(hint(&missing, &context).unwrap().starts_with("to make one"), "{place}");
        }
    }
}
