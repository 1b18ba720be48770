//! The rules as data. To change a rule, change a row and say why.

/// An import between rooms of one layer: who, whom, why it is allowed.
pub(crate) const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("repo", "index", "a repository looks its chunks up"),
    ("restic", "index", "its index of blobs takes room on the disk instead of memory"),
    ("ops", "error", "operations fail with the public error"),
    ("serve", "ops", "what is shown is found and read as the operations do it"),
    ("serve", "error", "what is served fails with the public error"),
    ("postgres", "format", "files of a log are named in stored names"),
    ("crypto", "format", "sealed keys, slots and ids have stored forms"),
];

/// Where a word is banned.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// The library and the command line.
    All,
    /// Everything below `src/` but `src/cli/` and `src/main.rs`.
    Library,
    /// Everything but what starts with this.
    Except(&'static str),
    /// Rooms of layer 1, and every `plan.rs`.
    Pure,
}

/// Sequences of tokens that no code outside of tests may hold: the place, the tokens, why.
pub(crate) const BANS: &[(Place, &str, &str)] = &[
    (Place::All, "anyhow", "a caller must be able to match on the error: give the room's enum a variant"),
    (Place::All, "Other ( String )", "an error without fields cannot be handled: give it a variant"),
    (Place::All, "todo !", "nothing unfinished is merged"),
    (Place::All, "unimplemented !", "nothing unfinished is merged"),
    (Place::All, "dbg !", "left over from debugging"),
    (Place::All, ". unwrap ( )", "say why it holds with `expect`, or return an error"),
    (Place::Library, "block_on", "the library has no hidden runtime: be async, or be called from the bridge"),
    (Place::Library, "println !", "only the command line prints: send an event"),
    (Place::Library, "eprintln !", "only the command line prints: send an event"),
    (Place::Library, "print !", "only the command line prints: send an event"),
    (Place::Library, "eprint !", "only the command line prints: send an event"),
    (Place::Library, "env :: var", "the command line reads the environment and passes values"),
    (Place::Library, "env :: var_os", "the command line reads the environment and passes values"),
    (Place::Library, "process :: exit", "return an error; only `main` ends the process"),
    (Place::Library, "indicatif", "bars belong to the command line"),
    (Place::Library, "clap", "arguments belong to the command line"),
    (Place::Except("src/store"), "object_store", "only the room `store` knows the storage library"),
    (Place::Except("src/serve/mount"), "fuser", "only the mount speaks to the kernel"),
    (Place::Except("src/clock.rs"), "SystemTime :: now", "take the time from `Clock`"),
    (Place::Except("src/random.rs"), "getrandom", "take randomness from `Random`"),
    (Place::Pure, "async", "pure rooms and plans do not wait"),
    (Place::Pure, "std :: fs", "pure rooms and plans do no I/O"),
    (Place::Pure, "std :: net", "pure rooms and plans do no I/O"),
    (Place::Pure, "File :: open", "pure rooms and plans do no I/O"),
    (Place::Pure, "tokio", "pure rooms and plans do not wait"),
    (Place::Pure, "SystemTime", "pure rooms and plans have no clock: take a `Timestamp`"),
    (Place::Pure, "Instant", "pure rooms and plans have no clock"),
    (Place::Pure, "SystemClock", "pure rooms and plans have no clock: take a `Timestamp`"),
    (Place::Pure, "SystemRandom", "pure rooms and plans take `&dyn Random`"),
];

/// Text that no tracked file may hold, in two halves so that this file may list it.
pub(crate) const FOREIGN_TEXT: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", "a path of the machine it was written on"),
    ("crates", ".io", "a registry's host name: say \"the crate registry\" or give the crate's name"),
    ("py", "pi.org", "a registry's host name"),
    ("npm", "js.", "a registry's host name"),
    ("rubygems", ".org", "a registry's host name"),
    ("proxy.golang", ".org", "a registry's host name"),
];

/// Files that tools write and that name registries.
pub(crate) const GENERATED: &[&str] = &["Cargo.lock"];

/// Lines of a function, braces included.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file before its unit tests.
pub(crate) const FILE_LINES_MAX: usize = 500;
/// Arguments of a function, `self` not counted.
pub(crate) const ARGUMENTS_MAX: usize = 5;
/// Direct dependencies of the library and the binary.
pub(crate) const DEPENDENCIES_MAX: usize = 45;
