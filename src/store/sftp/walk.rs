//! Listing: every plain file below a prefix, links not followed, several directories at a time.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;

use super::super::Key;
use super::super::key::RESERVED;
use super::super::local::meta;
use super::client::{SftpStore, modified};
use super::error::SftpError;
use super::line::Line;
use super::wire::{Attributes, Kind};
use crate::event::Event;
use crate::format::layout::PACKS;

/// Directories that are read at the same time.
const DIRECTORIES: usize = 16;
/// Requests for names of one directory that are under way at once, at most; each is answered by a hundred or so.
const AHEAD: usize = 16;
/// Names in one directory; a server that has more makes them up.
const NAMES_MAX: usize = 1 << 24;

/// What a name in a directory is to a walk.
enum Entry {
    Object(ObjectMeta),
    /// With its key.
    Directory(String),
    /// A link, a device, a name that no object has.
    Foreign,
    Nothing,
}

impl SftpStore {
    /// Everything below `prefix`, a directory relative to the root, in any order. A missing directory is empty, a missing root
    /// is an error.
    pub(super) async fn walk(&self, prefix: &str) -> Result<Vec<ObjectMeta>, SftpError> {
        let line = self.line().await?;
        let mut found = Vec::new();
        if !self.is_directory(&line, prefix).await? {
            return Ok(found);
        }
        // A pack is relied on when an index object names it, which was put after the pack was durable; or when it was
        // looked for by its own name.
        let all_packs = prefix == PACKS.trim_end_matches('/');
        let (mut waiting, mut reading) = (vec![prefix.to_owned()], FuturesUnordered::new());
        let (mut foreign, mut seen) = (None, HashSet::new());
        loop {
            while reading.len() < DIRECTORIES
                && let Some(key) = waiting.pop()
            {
                let (path, line) = (self.path_of(&key), Arc::clone(&line));
                reading.push(async move { (self.rows(&line, &path).await, key) });
            }
            let Some((rows, key)) = reading.next().await else { break };
            let rows = rows?;
            // Now, and not before it was read: what is synced in between may have got another name since.
            if !all_packs || key == prefix {
                self.listed().insert(self.path_of(&key));
            }
            for (name, attributes) in rows {
                match look(&name, &attributes, &key) {
                    Entry::Object(meta) => found.push(meta),
                    // A name that comes twice is not gone through twice.
                    Entry::Directory(key) if seen.insert(key.clone()) => waiting.push(key),
                    Entry::Directory(_) | Entry::Nothing => {}
                    Entry::Foreign => foreign = foreign.or_else(|| Some(self.shown(&key, &name))),
                }
            }
        }
        if let Some(name) = foreign {
            let message = format!("ignored what is no object of the repository, such as {name}");
            self.0.observer.observe(&Event::Warning { message: &message });
        }
        Ok(found)
    }

    fn shown(&self, key: &str, name: &Bytes) -> String {
        format!("{}/{}", self.path_of(key), name.escape_ascii())
    }

    /// Whether a directory stands there that is reached through no link; missing is `false` only below a root that is there.
    async fn is_directory(&self, line: &Line, prefix: &str) -> Result<bool, SftpError> {
        self.check_root(line).await?;
        let ends =
            prefix.match_indices('/').map(|(at, _)| at).chain((!prefix.is_empty()).then_some(prefix.len()));
        for end in ends {
            let path = self.path_of(prefix.get(..end).unwrap_or(prefix));
            match line.link_stat(&path).await.map(|found| found.kind()) {
                Ok(Some(Kind::Directory) | None) => {}
                Ok(Some(_)) => return Err(SftpError::Foreign { path }),
                Err(error) if error.is_missing() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The names in a directory, with what the server says of each.
    pub(super) async fn rows(
        &self,
        line: &Arc<Line>,
        path: &str,
    ) -> Result<Vec<(Bytes, Attributes)>, SftpError> {
        let directory = line.open_directory(path).await?;
        let (mut rows, mut ahead, mut ended) = (Vec::new(), 2, false);
        while !ended {
            for page in join_all((0..ahead).map(|_| directory.names(path))).await {
                match page? {
                    Some(page) => rows.extend(page.into_iter().map(|row| (row.name, row.attributes))),
                    None => ended = true,
                }
            }
            if rows.len() > NAMES_MAX {
                return Err(SftpError::Broken { what: format!("`{path}` has more than {NAMES_MAX} names") });
            }
            ahead = (ahead * 2).min(AHEAD);
        }
        rows.retain(|(name, _)| !matches!(name.as_ref(), b"." | b".."));
        // Names are slices of whole frames, which they would keep.
        for (name, attributes) in &mut rows {
            *name = Bytes::copy_from_slice(name);
            if attributes.size.is_none() || attributes.mode.is_none() {
                *attributes = self.ask_for(line, (path, name), *attributes).await?;
            }
        }
        Ok(rows)
    }

    /// A server that says too little of an entry in a listing is asked for it; one that is gone stays as it was.
    async fn ask_for(
        &self,
        line: &Line,
        (directory, name): (&str, &Bytes),
        known: Attributes,
    ) -> Result<Attributes, SftpError> {
        // Others are foreign whatever they are.
        let Some(name) = plain(name) else { return Ok(known) };
        match line.link_stat(&format!("{directory}/{name}")).await {
            Ok(found) if found.kind().is_some() && found.size.is_some() => Ok(found),
            Ok(_) => Err(SftpError::Broken { what: format!("it does not say what `{directory}/{name}` is") }),
            Err(error) if error.is_missing() => Ok(Attributes::default()),
            Err(error) => Err(error),
        }
    }
}

/// A name that can be a part of a path, and stays in its directory.
pub(super) fn plain(name: &Bytes) -> Option<&str> {
    let plain = |name: &&str| !matches!(*name, "" | "." | "..") && !name.contains(['/', '\0']);
    std::str::from_utf8(name).ok().filter(plain)
}

/// What an entry of the directory `parent` is.
fn look(name: &Bytes, attributes: &Attributes, parent: &str) -> Entry {
    let Some(name) = plain(name) else { return Entry::Foreign };
    let key = if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
    // `lost+found` is there when the root is the top of a file system; often it may not be read.
    if parent.is_empty() && (key == RESERVED || key == "lost+found") {
        return Entry::Nothing;
    }
    match (attributes.kind(), attributes.size) {
        // Deeper than any key: nothing in it can be an object.
        (Some(Kind::Directory), _) if key.len() > Key::MAX_LEN => Entry::Foreign,
        (Some(Kind::Directory), _) => Entry::Directory(key),
        (Some(Kind::File), Some(size)) => match ObjectPath::parse(&key) {
            Ok(location) => Entry::Object(meta(location, size, modified(attributes))),
            Err(_) => Entry::Foreign,
        },
        (Some(Kind::Other), _) => Entry::Foreign,
        // It was deleted while it was listed.
        _ => Entry::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(mode: u32) -> Attributes {
        Attributes { size: Some(5), mode: Some(mode), modified: Some(1) }
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_its_directory(name in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..8)) {
            let name = Bytes::from(name);
            match look(&name, &file(0o040_755), "packs") {
                Entry::Directory(key) => {
                    let rest = key.strip_prefix("packs/").unwrap();
                    prop_assert!(!matches!(rest, "" | "." | "..") && !rest.contains('/'));
                }
                Entry::Object(_) => prop_assert!(false, "it is a directory"),
                Entry::Foreign | Entry::Nothing => {}
            }
            if let Entry::Object(meta) = look(&name, &file(0o100_644), "packs") {
                prop_assert!(meta.location.as_ref().starts_with("packs/") && meta.location.parts().count() == 2);
            }
        }
    }

    #[test]
    fn what_is_no_object_is_told_apart() {
        let of = |name: &'static str, mode, parent| {
            look(&Bytes::from_static(name.as_bytes()), &file(mode), parent)
        };
        assert!(matches!(of("tmp", 0o040_755, ""), Entry::Nothing));
        assert!(matches!(of("tmp", 0o040_755, "a"), Entry::Directory(_)));
        assert!(matches!(of("link", 0o120_777, ""), Entry::Foreign));
        assert!(matches!(of("x", 0o100_644, ""), Entry::Object(_)));
        let deep = "d/".repeat(500);
        assert!(matches!(look(&Bytes::from_static(b"x"), &file(0o040_755), &deep), Entry::Foreign));
        assert!(matches!(look(&Bytes::from_static(b"x"), &Attributes::default(), ""), Entry::Nothing));
    }
}
