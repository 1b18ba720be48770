//! Writing: to a file in `tmp/`, synced, and named only if nothing has the name.
//!
//! The name is given by a hard link, which no server gives twice. One that cannot link renames: version 3 of the protocol
//! forbids that to replace a file, and what would be replaced there is the same content, because a name is made from it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures::stream::{self, FuturesUnordered};
use futures::{StreamExt, TryStreamExt};
use object_store::PutPayload;

use super::super::door::{FarKind, detached};
use super::super::key::RESERVED;
use super::client::SftpStore;
use super::error::{At, SftpError};
use super::line::{Handle, Line, ahead};
use super::walk::plain;
use super::wire::{Ask, Kind, Mode};
use crate::store::local::Step;

/// Directories that are synced at the same time.
const SYNCS: usize = 16;
/// Room without which a failure to write is taken for a full disk, beside that for the content.
const SPARE: u64 = 1024 * 1024;

/// A file in `tmp/`. Dropped, it is removed.
struct Temporary {
    line: Arc<Line>,
    path: String,
    file: Option<Handle>,
    there: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(self.file.take());
        if self.there {
            // What stays behind is swept later.
            self.line.tell(&Ask::Remove { path: &self.path });
        }
    }
}

impl Temporary {
    /// Removes it. What stays behind is swept later.
    async fn remove(mut self) {
        if std::mem::take(&mut self.there) {
            let (line, path) = (Arc::clone(&self.line), self.path.as_str());
            let _ = line.done(&Ask::Remove { path }, At { step: Step::Remove, path }).await;
        }
    }
}

/// The directory above a path of the server.
fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((parent, _)) => parent,
        None => ".",
    }
}

/// The content cut to pieces that one request may have, each with its place in the file.
fn pieces(body: &PutPayload, most: u32) -> impl Iterator<Item = (u64, Bytes)> {
    let most = most.max(1) as usize;
    let parts = body.iter().flat_map(move |part| {
        (0..part.len()).step_by(most).map(move |start| part.slice(start..part.len().min(start + most)))
    });
    parts.scan(0, |at, part| {
        let start = *at;
        *at += part.len() as u64;
        Some((start, part))
    })
}

impl SftpStore {
    pub(super) async fn put(&self, key: &str, body: &PutPayload) -> Result<(), SftpError> {
        let line = self.line().await?;
        if self.0.options.fsync && !line.features.sync {
            let said = "it does not offer fsync@openssh.com".to_owned();
            return Err(SftpError::NoSync { path: self.0.root.clone(), said });
        }
        self.settle(&line).await?;
        let target = self.path_of(key);
        let stored = match self.put_once(&line, &target, body).await {
            // A directory that was known is gone: learn them anew.
            Err(error) if error.is_missing() => {
                self.learn_anew();
                self.put_once(&line, &target, body).await
            }
            result => result,
        };
        match stored {
            Ok(()) => Ok(()),
            Err(error) => Err(self.explain_failure(&line, error, body.content_length() as u64 + SPARE).await),
        }
    }

    async fn put_once(&self, line: &Arc<Line>, target: &str, body: &PutPayload) -> Result<(), SftpError> {
        let above = parent(target);
        self.ensure_directory(line, above).await?;
        let mut temporary = self.temporary(line).await?;
        let named = match self.write(&mut temporary, body).await {
            Ok(()) => self.name(&mut temporary, target).await,
            Err(error) => {
                // Looked at while the file is there: with it the room for it would be back.
                Err(self.explain_failure(line, error, SPARE).await)
            }
        };
        if let Ok(()) | Err(SftpError::Exists { .. }) = named {
            // The file has its other name, or is not needed.
            let (synced, ()) = tokio::join!(self.sync_directory(line, above), temporary.remove());
            synced?;
        }
        named
    }

    async fn temporary(&self, line: &Arc<Line>) -> Result<Temporary, SftpError> {
        let directory = self.path_of(RESERVED);
        self.ensure_directory(line, &directory).await?;
        let number = self.0.counter.fetch_add(1, Ordering::Relaxed);
        let path = format!("{directory}/{:016x}-{number:x}", self.0.nonce);
        let file = line.open_file(&path, Mode::WriteNew).await?;
        Ok(Temporary { line: Arc::clone(line), path, file: Some(file), there: true })
    }

    /// Writes all, and makes it durable.
    async fn write(&self, temporary: &mut Temporary, body: &PutPayload) -> Result<(), SftpError> {
        let Some(file) = temporary.file.take() else { return Ok(()) };
        let (path, most) = (temporary.path.as_str(), temporary.line.write_max);
        let written = stream::iter(pieces(body, most))
            .map(|(at, piece)| file.write(at, piece, path))
            .buffer_unordered(ahead(most));
        written.try_for_each(|()| async { Ok(()) }).await?;
        let synced = async {
            if !self.0.options.fsync {
                return Ok(());
            }
            match file.sync(At { step: Step::SyncFile, path }).await {
                // A disk may find out late that it is full.
                Err(error) => Err(unsynced(self.explain_failure(&temporary.line, error, SPARE).await, path)),
                Ok(()) => Ok(()),
            }
        };
        let (synced, found) = tokio::join!(synced, file.stat(path));
        synced?;
        let size = body.content_length() as u64;
        if found?.size.is_some_and(|found| found != size) {
            return Err(SftpError::Shrunk { path: path.to_owned(), size });
        }
        file.close(path).await
    }

    /// Gives the file its name; it has no other then. [`SftpError::Exists`] if something has the name.
    async fn name(&self, temporary: &mut Temporary, target: &str) -> Result<(), SftpError> {
        let line = Arc::clone(&temporary.line);
        let at = At { step: Step::Rename, path: target };
        let (from, to) = (temporary.path.as_str(), target);
        let mut refused = None;
        if line.features.link {
            match line.done(&Ask::Link { from, to }, at).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_answer() => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match line.link_stat(target).await {
            Ok(_) => return Err(SftpError::Exists { path: target.to_owned() }),
            Err(error) if error.is_missing() => {}
            // Not every server keeps to the protocol: what may be there must not be renamed over.
            Err(error) => return Err(error),
        }
        // Its directory is gone, or it may not be written to: renaming is no better.
        if let Some(error) = refused.filter(|error| error.is_missing()) {
            return Err(error);
        }
        line.done(&Ask::Rename { from, to }, at).await?;
        temporary.there = false;
        Ok(())
    }

    /// Makes what was listed durable, present and absent. Nobody writes meanwhile. Reading alone never syncs.
    async fn settle(&self, line: &Arc<Line>) -> Result<(), SftpError> {
        if !self.0.options.fsync {
            return Ok(());
        }
        let (store, line) = (self.clone(), Arc::clone(line));
        detached(async move { store.settle_alone(&line).await }).await
    }

    async fn settle_alone(&self, line: &Arc<Line>) -> Result<(), SftpError> {
        let _settling = self.0.settling.lock().await;
        let listed = std::mem::take(&mut *self.listed());
        let synced = stream::iter(listed.clone())
            .map(|directory| async move {
                match self.sync_directory(line, &directory).await {
                    Err(error) if error.is_missing() => Ok(()),
                    result => result,
                }
            })
            .buffer_unordered(SYNCS);
        let synced = synced.try_for_each(|()| async { Ok(()) }).await;
        if synced.is_err() {
            self.listed().extend(listed);
        }
        synced
    }

    /// A server opens a directory as it does a file, where its system does.
    async fn sync_directory(&self, line: &Arc<Line>, path: &str) -> Result<(), SftpError> {
        if !self.0.options.fsync {
            return Ok(());
        }
        let synced = async {
            let directory = line.open_file(path, Mode::Read).await?;
            directory.sync(At { step: Step::SyncDirectory, path }).await
        };
        synced.await.map_err(|error| unsynced(error, path))
    }

    /// Makes a directory and those above it, up to the root, which must be there. Each is made durable once a process, also
    /// one that was there: whoever made it may have been cut off before its name was.
    async fn ensure_directory(&self, line: &Arc<Line>, path: &str) -> Result<(), SftpError> {
        let is_known =
            |path: &str| self.0.known.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
        let know =
            |path: &str| self.0.known.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        let root = self.0.root.as_str();
        let mut unknown = Vec::new();
        let mut next = path;
        while next != root && !is_known(next) {
            unknown.push(next);
            next = parent(next);
        }
        if next == root && !is_known(root) {
            self.check_root(line).await?;
            know(root);
        }
        for directory in unknown.into_iter().rev() {
            self.make_directory(line, directory).await?;
            self.sync_directory(line, parent(directory)).await?;
            know(directory);
        }
        Ok(())
    }

    /// One that is there is left as it is; anything else in its place is an error.
    async fn make_directory(&self, line: &Line, path: &str) -> Result<(), SftpError> {
        let at = At { step: Step::MakeDirectory, path };
        let error = match line.done(&Ask::MakeDirectory { path }, at).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_answer() && !error.is_missing() => error,
            Err(error) => return Err(error),
        };
        // The code for a name that is taken is that for everything.
        match line.link_stat(path).await.map(|found| found.kind()) {
            Ok(Some(Kind::Directory) | None) => Ok(()),
            Ok(_) => Err(SftpError::Foreign { path: path.to_owned() }),
            Err(missing) if missing.is_missing() => Err(self.explain_failure(line, error, SPARE).await),
            Err(error) => Err(error),
        }
    }

    /// Makes the root and what is missing above it, durably as far as this user may sync what is above.
    pub(in crate::store) async fn create_root(&self) -> object_store::Result<()> {
        self.make_root().await.map_err(|error| error.into_store(""))
    }

    async fn make_root(&self) -> Result<(), SftpError> {
        let line = self.line().await?;
        let mut missing = Vec::new();
        let mut path = self.0.root.as_str();
        while let Err(error) = line.look(&Ask::Stat { path }, path).await {
            let above = parent(path);
            if !error.is_missing() || above == path {
                return Err(error);
            }
            missing.push(path);
            path = above;
        }
        for path in missing.into_iter().rev() {
            self.make_directory(&line, path).await?;
            match self.sync_directory(&line, parent(path)).await {
                Err(error) if error.is_denied() => {}
                result => result?,
            }
        }
        self.check_root(&line).await
    }

    /// Removes a file, durably. Its absence before is as good, but must be made durable too.
    pub(super) async fn remove(&self, key: &str) -> Result<(), SftpError> {
        let line = self.line().await?;
        self.settle(&line).await?;
        let path = self.path_of(key);
        match line.done(&Ask::Remove { path: &path }, At { step: Step::Remove, path: &path }).await {
            Ok(()) => {}
            Err(error) if error.is_missing() => self.check_root(&line).await?,
            Err(error) => return Err(self.explain_failure(&line, error, 0).await),
        }
        match self.sync_directory(&line, parent(&path)).await {
            Err(error) if error.is_missing() => Ok(()),
            result => result,
        }
    }

    /// Removes temporary files that were last written before `before` seconds of 1970; says how many.
    pub(in crate::store) async fn sweep(&self, before: i64) -> object_store::Result<u64> {
        let swept = async {
            let line = self.line().await?;
            let directory = self.path_of(RESERVED);
            let rows = match self.rows(&line, &directory).await {
                Err(error) if error.is_missing() => return self.check_root(&line).await.map(|()| 0),
                rows => rows?,
            };
            let old = rows.iter().filter(|(_, found)| {
                found.kind() == Some(Kind::File) && found.modified.is_some_and(|at| i64::from(at) < before)
            });
            let removals: FuturesUnordered<_> = old
                .filter_map(|(name, _)| Some(format!("{directory}/{}", plain(name)?)))
                .map(|path| {
                    let line = &line;
                    async move {
                        let at = At { step: Step::Remove, path: &path };
                        match line.done(&Ask::Remove { path: &path }, at).await {
                            Ok(()) => Ok(1),
                            // Somebody else was quicker.
                            Err(error) if error.is_missing() => Ok(0),
                            Err(error) => Err(error),
                        }
                    }
                })
                .collect();
            removals.try_fold(0, |sum, one| async move { Ok(sum + one) }).await
        };
        swept.await.map_err(|error: SftpError| error.into_store(RESERVED))
    }
}

/// What a server says that cannot sync; a file that is gone, a right that is missing and a full disk are what they are.
fn unsynced(error: SftpError, path: &str) -> SftpError {
    match &error {
        SftpError::Answer { message, .. } if error.kind() == FarKind::Other && !error.is_missing() => {
            SftpError::NoSync { path: path.to_owned(), said: message.clone() }
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_a_path_is_found() {
        for (path, above) in
            [("/a/b", "/a"), ("/a", "/"), ("/", "/"), ("a/b", "a"), ("a", "."), (".", "."), ("./a", ".")]
        {
            assert_eq!(parent(path), above, "{path}");
        }
    }

    #[test]
    fn content_is_cut_to_pieces_without_a_gap() {
        let body: PutPayload =
            ["abc", "", "defgh", "i"].into_iter().map(|s| Bytes::from_static(s.as_bytes())).collect();
        let found: Vec<(u64, Bytes)> = pieces(&body, 2).collect();
        let wanted: [(u64, &[u8]); 6] = [(0, b"ab"), (2, b"c"), (3, b"de"), (5, b"fg"), (7, b"h"), (8, b"i")];
        assert_eq!(found.iter().map(|(at, part)| (*at, part.as_ref())).collect::<Vec<_>>(), wanted);
    }
}
