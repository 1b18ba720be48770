//! Every key of the file, once: what it is called, what it takes, what it means. The reader, the schema, the defaults that
//! `config show` names and the options that a job stands for are all made from these tables.

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Text that is not empty.
    Text,
    /// An absolute path.
    Path,
    /// A list of absolute paths.
    Paths,
    /// A list of texts.
    List,
    /// A command line for the shell, or a list of them.
    Commands,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number,
    /// A whole number or text: an amount of snapshots.
    Limit,
    /// A schedule.
    Schedule,
    /// A time such as `15m`.
    Time,
    /// Keys of any name, with texts.
    Pairs,
    /// A table of its own.
    Table(&'static Table),
}

/// A key of a table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// As it stands in the file.
    pub(crate) name: &'static str,
    /// What it takes.
    pub(crate) shape: Shape,
    /// The option of the command line that it stands for, which checks the value, too.
    pub(crate) option: Option<&'static str>,
    /// What holds if it is left out, for people.
    pub(crate) default: &'static str,
    /// What it means, in a sentence.
    pub(crate) about: &'static str,
}

/// The keys that belong together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// A call that takes the options of these keys; whatever else it needs stands here, too.
    pub(crate) call: &'static [&'static str],
    /// Keys that must be there.
    pub(crate) required: &'static [&'static str],
    /// All keys.
    pub(crate) keys: &'static [Key],
}

impl Table {
    /// The key of this name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn key(name: &'static str, shape: Shape, default: &'static str, about: &'static str) -> Key {
    Key { name, shape, option: None, default, about }
}

const fn option(name: &'static str, shape: Shape, option: &'static str, about: &'static str) -> Key {
    Key { name, shape, option: Some(option), default: "", about }
}

/// `[repositories.NAME]`.
pub(crate) static REPOSITORY: Table = Table {
    call: &["stats"],
    required: &["location"],
    keys: &[
        key(
            "location",
            Shape::Text,
            "",
            "An absolute path, or ssh://, sftp://, https://, s3://, gs:// or az://",
        ),
        key("key-file", Shape::Path, "", "The key file that opens it"),
        key("key-credential", Shape::Text, "", "The name of a systemd credential that is a key file"),
        key("password-file", Shape::Path, "", "A file with its password"),
        key("password-command", Shape::Text, "", "A command that prints its password; the shell runs it"),
        key("password-credential", Shape::Text, "", "The name of a systemd credential that is its password"),
        key("words-file", Shape::Path, "", "A file with the recovery words that open it"),
        key(
            "options",
            Shape::Pairs,
            "",
            "Options of the store, as --option takes them; none that is a secret",
        ),
        Key {
            default: "15m",
            ..option(
                "retry-for",
                Shape::Time,
                "--retry-for",
                "How long to try again when the store does not answer",
            )
        },
        key(
            "metrics",
            Shape::Path,
            "",
            "A file that `lifeboat run` writes metrics for Prometheus into, such as one of node_exporter's",
        ),
        key(
            "prune",
            Shape::Table(&PRUNE),
            "",
            "When and how `lifeboat run` gives space back; takes a key that may",
        ),
        key(
            "verify",
            Shape::Table(&VERIFY),
            "",
            "When and how `lifeboat run` verifies; takes a key that may, of a verifier, maintainer or admin",
        ),
    ],
};

/// `[repositories.NAME.prune]`.
pub(crate) static PRUNE: Table = Table {
    call: &["prune"],
    required: &["schedule"],
    keys: &[
        key("schedule", Shape::Schedule, "", "When it is due"),
        Key {
            default: "7d",
            ..option(
                "grace",
                Shape::Time,
                "--grace",
                "How long condemned packs are kept before they are deleted",
            )
        },
        Key {
            default: "7d",
            ..option(
                "undo-window",
                Shape::Time,
                "--undo-window",
                "How long forgotten snapshots can be taken back",
            )
        },
        Key {
            default: "5",
            ..option(
                "max-unused",
                Shape::Limit,
                "--max-unused",
                "Percent of what nothing needs that may stay in packs",
            )
        },
        option(
            "max-repack",
            Shape::Text,
            "--max-repack",
            "Move at most this much content at once, such as 20G",
        ),
    ],
};

/// `[repositories.NAME.verify]`.
pub(crate) static VERIFY: Table = Table {
    call: &["verify"],
    required: &["schedule"],
    keys: &[
        key("schedule", Shape::Schedule, "", "When it is due"),
        Key {
            default: "everything",
            ..option(
                "budget",
                Shape::Text,
                "--budget",
                "Stop after this time or so many bytes, such as 30m or 50GiB, and take what was verified longest ago",
            )
        },
        Key {
            default: "as closely as the key can",
            ..option("packs", Shape::Flag, "--packs", "Read content and check its hashes, and open nothing")
        },
    ],
};

/// `[jobs.NAME]`.
pub(crate) static JOB: Table = Table {
    call: &["backup", "x"],
    required: &[],
    keys: &[
        key("repository", Shape::Text, "the only one", "The name of the repository it is saved to"),
        key("sources", Shape::Paths, "", "Files and directories to save"),
        option("images", Shape::Paths, "--image", "Block devices and disk images, whose content is saved"),
        key(
            "command",
            Shape::List,
            "",
            "A program and its arguments, whose output is saved instead of files",
        ),
        option("as", Shape::Path, "--as", "The path that it is stored under instead of its own"),
        Key {
            default: "the machine's own",
            ..option("host", Shape::Text, "--host", "The name of the machine")
        },
        option("tags", Shape::List, "--tag", "Tags of its snapshots: key or key=value"),
        option("exclude", Shape::List, "--exclude", "Patterns of what is left out, as in a .gitignore file"),
        option("iexclude", Shape::List, "--iexclude", "The same, upper and lower case being the same"),
        option("exclude-files", Shape::Paths, "--exclude-file", "Files with such patterns, one a line"),
        option(
            "iexclude-files",
            Shape::Paths,
            "--iexclude-file",
            "The same, upper and lower case being the same",
        ),
        option("include", Shape::List, "--include", "Patterns of what alone is kept"),
        option("iinclude", Shape::List, "--iinclude", "The same, upper and lower case being the same"),
        option("include-files", Shape::Paths, "--include-file", "Files with such patterns, one a line"),
        option(
            "iinclude-files",
            Shape::Paths,
            "--iinclude-file",
            "The same, upper and lower case being the same",
        ),
        option(
            "ignore-file",
            Shape::Text,
            "--ignore-file",
            "A file of this name in a directory has patterns for it",
        ),
        option(
            "one-file-system",
            Shape::Flag,
            "--one-file-system",
            "Stay on the file systems of the sources",
        ),
        option(
            "exclude-caches",
            Shape::Flag,
            "--exclude-caches",
            "Leave out directories that are tagged as caches",
        ),
        option(
            "exclude-larger-than",
            Shape::Text,
            "--exclude-larger-than",
            "Leave out larger files, such as 500M",
        ),
        Key { default: "1", ..option("level", Shape::Number, "--level", "How hard to compress, 1 to 22") },
        option("read-holes", Shape::Flag, "--read-holes", "Read holes of sparse files, too"),
        Key {
            default: "warn",
            ..option("sqlite", Shape::Text, "--sqlite", "Name databases of SQLite in use: warn, or off")
        },
        option(
            "allow-shrink",
            Shape::Flag,
            "--allow-shrink",
            "Save even if most of what the last run saw is gone",
        ),
        key("schedule", Shape::Schedule, "only when it is named", "When it is due"),
        key(
            "jitter",
            Shape::Time,
            "0",
            "Spreads machines: it is due less than this after its time, always by the same",
        ),
        key("retry-after", Shape::Time, "its next time", "How long after a failure it is tried again"),
        key(
            "retention",
            Shape::Table(&RETENTION),
            "everything stays",
            "What to keep of its snapshots; the rest is forgotten",
        ),
        key("hooks", Shape::Table(&HOOKS), "", "Commands around it"),
    ],
};

/// `[jobs.NAME.retention]`.
pub(crate) static RETENTION: Table = Table {
    call: &["forget"],
    required: &[],
    keys: &[
        option(
            "last",
            Shape::Limit,
            "--keep-last",
            "The newest ones: a number, a time such as 30d, or unlimited",
        ),
        option("hourly", Shape::Limit, "--keep-hourly", "The newest of each of the last hours"),
        option("daily", Shape::Limit, "--keep-daily", "The newest of each of the last days"),
        option("weekly", Shape::Limit, "--keep-weekly", "The newest of each of the last weeks"),
        option("monthly", Shape::Limit, "--keep-monthly", "The newest of each of the last months"),
        option("quarterly", Shape::Limit, "--keep-quarterly", "The newest of each of the last quarters"),
        option("yearly", Shape::Limit, "--keep-yearly", "The newest of each of the last years"),
        option("within", Shape::Text, "--keep-within", "All that are younger than this, such as 1y6m"),
        option("tags", Shape::List, "--keep-tag", "Those with all tags of one of these lists: a,b"),
    ],
};

/// `[jobs.NAME.hooks]`.
pub(crate) static HOOKS: Table = Table {
    call: &[],
    required: &[],
    keys: &[
        key(
            "before",
            Shape::Commands,
            "",
            "Before the backup; if one fails, the job is skipped and has failed",
        ),
        key("after", Shape::Commands, "", "When all was done, even if some entries failed"),
        key("failed", Shape::Commands, "", "When it was not"),
        key("always", Shape::Commands, "", "At the end, whatever happened"),
        key("timeout", Shape::Time, "1h", "How long each command may take before it is ended and has failed"),
    ],
};

/// The tables that the file consists of; each holds tables by name.
pub(crate) static SECTIONS: [(&str, &Table); 2] = [("repositories", &REPOSITORY), ("jobs", &JOB)];

/// Keys that people write who would put a secret into the file.
pub(crate) const SECRETS: [&str; 7] =
    ["password", "passphrase", "key", "secret", "token", "words", "recovery-words"];
