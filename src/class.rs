//! What kind of failure an error is. The command line turns a class into an exit code; nothing else decides by class,
//! except retry, which looks for [`Class::Unreachable`].

/// The kinds of outcome a script can tell apart. The list is a contract: `docs/exit-codes.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing usable was done.
    Failed,
    /// The arguments or the configuration are wrong.
    Usage,
    /// Done, but some entries failed.
    Partial,
    /// Damage was found.
    Damage,
    /// Something is not as a person wants it to be.
    Missed,
    /// Refused because it would be dangerous; a named flag allows it.
    Refused,
    /// Stored, but not confirmed.
    Unconfirmed,
    /// There is no repository, or its format is newer than this program.
    NoRepository,
    /// Another run of the same job is at work.
    Busy,
    /// Wrong key, a role that may not do this, or the store denies access.
    Denied,
    /// The store cannot be reached, after all retries.
    Unreachable,
    /// No space or quota left at the store, the cache or the target.
    NoSpace,
    /// The repository was rolled back or tampered with.
    Tampered,
    /// The user or the system asked the run to stop.
    Cancelled,
}
