//! What stands beside a database of SQLite that was restored: the log or the journal of the one that stood there before would be
//! played into it.

use super::entries::File;
use super::output::Output;
use super::run::Run;
use crate::event::Event;
use crate::source::sqlite::{HEADER_LEN, mode_of};
use crate::source::target::Metadata;

impl Run {
    /// Whether something of another database may stand beside this file: it is a database, in a directory that stood before, and
    /// not one that is kept as it stands, with a log that is its own.
    pub(super) fn may_be_stale(&self, file: &File, (handle, meta): (&Output, &Metadata<'_>)) -> bool {
        let Output::File(output) = handle else { return false };
        let stood = file.dir.made.get().is_some_and(|dir| dir.as_ref().is_some_and(|dir| !dir.is_fresh()));
        let mut head = [0; HEADER_LEN];
        let mut begins = || handle.read_at(&mut head, 0).is_ok() && mode_of(&head).is_some();
        let kept = || output.stood().is_some() && output.is_untouched(meta).unwrap_or(false);
        stood && file.size >= 512 && begins() && !kept()
    }

    /// Warns of what stands there. It is not removed: who restores files has not said that it may go.
    pub(super) fn warn_of_stale(&self, file: &File) {
        let (Some(Some(dir)), Some(target)) = (file.dir.made.get(), self.directory()) else { return };
        for suffix in [&b"-wal"[..], b"-journal"] {
            let name = [&file.name[..], suffix].concat();
            if let Ok(Some(stands)) = target.look(dir, &name)
                && !stands.is_dir()
            {
                let path = super::as_path(file.dir.path_of(&name));
                let message = format!(
                    "{} stands beside a database that was restored: unless it was restored too, remove it before the database is opened, or it is damaged",
                    path.display()
                );
                self.observer.observe(&Event::Warning { message: &message });
            }
        }
    }
}
