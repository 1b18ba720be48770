//! Who may do what: the one table of tasks and the secrets that they need.
//!
//! # Invariants
//! A task is allowed by what a key holds, not by what it is called: a verifier without the index key may not do what one
//! with it may. Where a task removes something, the registry decides in the end, and this table comes before it.
//!
//! # Must not
//! Touch the store: who asks has done nothing yet, so nothing is half done when the answer is no.

use super::error::RepoError;
use super::open::Repository;
use crate::crypto::Part;
use crate::format::keyslot::Role;

/// Something that a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// `backup`.
    Backup,
    /// `snapshots`: a key that cannot open them sees those of its own runs, from local state.
    Snapshots,
    /// `status`: as `snapshots`.
    Status,
    /// `ls`, `diff`, `find`.
    Look,
    /// `why`.
    Why,
    /// `cat`, `restore`, `mount`, and what `copy` reads from.
    Restore,
    /// What `copy` and `import` write to.
    Bring,
    /// `forget`, with or without `--prune`.
    Forget,
    /// `forget --dry-run`.
    JudgeSnapshots,
    /// `undelete`.
    Undelete,
    /// `hold add`, `hold remove`.
    Hold,
    /// `hold list`.
    ListHolds,
    /// `tag`.
    Tag,
    /// `verify`, and `verify --packs` with a key.
    Verify,
    /// `verify --data`.
    VerifyData,
    /// `prune`.
    Prune,
    /// `stats`.
    Stats,
    /// `key list`, `key passwd`, `key verify-recovery`.
    OwnKey,
    /// `key add --role reader`.
    AddReader,
    /// `key add` of a role that signs.
    AddSigner,
    /// `key remove`, `key recovery`, `key words`.
    ManageKeys,
    /// `rekey`.
    Rekey,
    /// `rekey --reencrypt`.
    Reencrypt,
    /// `anchor`.
    Anchor,
    /// `writer list`, and `anchor --accept-missing`, which stores nothing.
    ListWriters,
    /// `writer revoke`.
    Revoke,
    /// `postgres archive-push`.
    ArchiveLog,
    /// `postgres archive-get`, `postgres verify`.
    ReadLog,
    /// `postgres info`.
    ShowLogs,
    /// `postgres allow`.
    AllowWriter,
    /// `postgres check`: a key that cannot open snapshots tells nothing of base backups.
    CheckServer,
}

/// What a task needs.
struct Needs {
    /// What it is, after "cannot".
    name: &'static str,
    /// All of these.
    parts: &'static [Part],
    /// The authority to remove, which the registry gives to maintainers and admins.
    removes: bool,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::Backup,
        Self::Snapshots,
        Self::Status,
        Self::Look,
        Self::Why,
        Self::Restore,
        Self::Bring,
        Self::Forget,
        Self::JudgeSnapshots,
        Self::Undelete,
        Self::Hold,
        Self::ListHolds,
        Self::Tag,
        Self::Verify,
        Self::VerifyData,
        Self::Prune,
        Self::Stats,
        Self::OwnKey,
        Self::AddReader,
        Self::AddSigner,
        Self::ManageKeys,
        Self::Rekey,
        Self::Reencrypt,
        Self::Anchor,
        Self::ListWriters,
        Self::Revoke,
        Self::ArchiveLog,
        Self::ReadLog,
        Self::ShowLogs,
        Self::AllowWriter,
        Self::CheckServer,
    ];

    /// The table.
    const fn needs(self) -> Needs {
        use Part::{Data, Dedup, Index, Metadata, Root, Writer};
        let (name, parts, removes): (_, &[Part], _) = match self {
            Self::Backup => ("back up", &[Dedup, Index, Writer], false),
            Self::Snapshots => ("list snapshots", &[], false),
            Self::Status => ("tell how jobs stand", &[], false),
            Self::Look => ("look into snapshots", &[Dedup, Index, Metadata], false),
            Self::Why => ("look into snapshots", &[Dedup, Index, Metadata], false),
            Self::Restore => ("read files", &[Dedup, Index, Metadata, Data], false),
            Self::Bring => ("take in snapshots from elsewhere", &[Dedup, Index, Metadata, Writer], true),
            Self::Forget => ("forget snapshots", &[Index, Metadata, Writer], true),
            Self::JudgeSnapshots => ("judge snapshots", &[Index, Metadata], false),
            Self::Undelete => ("undelete snapshots", &[Metadata, Writer], true),
            Self::Hold => ("hold snapshots", &[Metadata, Writer], true),
            Self::ListHolds => ("list holds", &[], false),
            Self::Tag => ("tag snapshots", &[Metadata, Writer], true),
            Self::Verify => ("verify the structure", &[Index], false),
            Self::VerifyData => ("verify content", &[Dedup, Index, Metadata, Data], false),
            Self::Prune => ("prune", &[Index, Metadata, Writer], true),
            Self::Stats => ("measure snapshots", &[Index, Metadata], false),
            Self::OwnKey => ("list keys", &[], false),
            Self::AddReader => ("give a key to a reader", &[Dedup, Index, Metadata, Data], false),
            Self::AddSigner => ("give a key to who signs", &[Dedup, Index, Metadata, Data, Root], false),
            Self::ManageKeys => ("manage keys", &[Root], false),
            Self::Rekey => ("replace the keys", &[Dedup, Index, Metadata, Data, Root], false),
            Self::Reencrypt => ("seal old packs again", &[Dedup, Index, Metadata, Data, Writer], true),
            Self::Anchor => ("put an anchor", &[Writer], false),
            Self::ListWriters => ("list writers", &[], false),
            Self::Revoke => ("revoke writers", &[Root], false),
            Self::ArchiveLog => ("archive a database's log", &[Dedup, Index, Writer], false),
            Self::ReadLog => ("read a database's log", &[Dedup, Index, Metadata, Data], false),
            Self::ShowLogs => ("show the logs of databases", &[Index, Metadata], false),
            Self::CheckServer => ("check a server's archive", &[Index], false),
            Self::AllowWriter => ("let a writer archive a database's log", &[Index, Writer], true),
        };
        Needs { name, parts, removes }
    }

    /// Whether a key may do it that was made before the keys were replaced: what only reads shows what it opens, a backup and
    /// the archive of a log ask for no private key, and that a stolen machine is revoked must not wait. Everything else would judge
    /// by less than there is, or give the old keys on.
    const fn takes_stale(self) -> bool {
        matches!(
            self,
            Self::Backup
                | Self::Snapshots
                | Self::Look
                | Self::Why
                | Self::Restore
                | Self::ListHolds
                | Self::OwnKey
                | Self::Anchor
                | Self::ListWriters
                | Self::Revoke
                | Self::ArchiveLog
        )
    }

    /// Whether a key of this role may do it, if it holds all that its role may hold.
    pub fn is_for(self, role: Role) -> bool {
        let needs = self.needs();
        let removes = matches!(role, Role::Maintainer | Role::Admin);
        needs.parts.iter().all(|part| part.may_be_of(role)) && (removes || !needs.removes)
    }
}

impl Repository {
    /// Whether the key that opened this repository may do that.
    ///
    /// # Errors
    /// [`RepoError::WrongRole`], which names the role at hand and those that may; [`RepoError::StaleKey`] if the key was made
    /// before the keys were replaced.
    pub fn allow(&self, task: Task) -> Result<(), RepoError> {
        let (role, needs) = (self.role(), task.needs());
        if task.is_for(role) && needs.parts.iter().all(|part| self.secrets.holds(*part)) {
            let stale = !task.takes_stale() && !self.is_current();
            return if stale { Err(RepoError::StaleKey) } else { Ok(()) };
        }
        let may: Vec<Role> = Role::ALL.into_iter().filter(|role| task.is_for(*role)).collect();
        let one = may.first().copied().unwrap_or(Role::Admin);
        let names: Vec<&str> = may.iter().map(|role| role.name()).collect();
        Err(RepoError::WrongRole { role, task: needs.name, needed: names.join(" or "), one })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_each_role_what_it_is_for_and_no_more() {
        let of = |role| Task::ALL.into_iter().filter(|task| task.is_for(role)).collect::<Vec<_>>();
        use Task::{
            AddReader, AllowWriter, Anchor, ArchiveLog, Backup, CheckServer, Forget, Hold, JudgeSnapshots,
            ListHolds, ListWriters, Look, OwnKey, Prune, ReadLog, Restore, ShowLogs, Snapshots, Stats,
            Status, Tag, Undelete, Verify, VerifyData, Why,
        };
        assert_eq!(
            of(Role::Writer),
            [
                Backup,
                Snapshots,
                Status,
                ListHolds,
                Verify,
                OwnKey,
                Anchor,
                ListWriters,
                ArchiveLog,
                CheckServer
            ]
        );
        assert_eq!(
            of(Role::Verifier),
            [Snapshots, Status, ListHolds, Verify, OwnKey, Anchor, ListWriters, CheckServer]
        );
        assert_eq!(
            of(Role::Maintainer),
            [
                Snapshots,
                Status,
                Forget,
                JudgeSnapshots,
                Undelete,
                Hold,
                ListHolds,
                Tag,
                Verify,
                Prune,
                Stats,
                OwnKey,
                Anchor,
                ListWriters,
                ShowLogs,
                AllowWriter,
                CheckServer
            ]
        );
        assert_eq!(
            of(Role::Reader),
            [
                Snapshots,
                Status,
                Look,
                Why,
                Restore,
                JudgeSnapshots,
                ListHolds,
                Verify,
                VerifyData,
                Stats,
                OwnKey,
                AddReader,
                ListWriters,
                ReadLog,
                ShowLogs,
                CheckServer
            ]
        );
        assert_eq!(of(Role::Admin), Task::ALL);
    }
}
