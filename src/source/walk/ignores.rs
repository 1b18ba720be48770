//! Rule files inside the source: each holds for the directory it stands in and all below, the innermost first.

use std::io;
use std::sync::Arc;

use super::dir::Dir;
use crate::filter::{RuleSet, RuleText, directory_rules};
use crate::source::error::SourceError;
use crate::source::sys;

/// A rule file may be this long; it is meant to be written by hand.
const MAX: usize = 1024 * 1024;

/// The rule files that hold in a directory.
#[derive(Debug)]
pub(super) struct Ignores {
    rules: RuleSet,
    /// Length of the path of the directory they stand in, with a slash at its end.
    base: usize,
    outer: Option<Arc<Ignores>>,
}

impl Ignores {
    /// Reads the rule file of a directory whose path has `base` bytes. A rule that is wrong is an error beside the others.
    pub(super) fn read(
        dir: &Arc<Dir>,
        name: &[u8],
        base: usize,
        outer: Option<Arc<Ignores>>,
    ) -> (Option<Arc<Ignores>>, Vec<SourceError>) {
        let path = dir.path_of(name);
        let text = match read(dir, name, &path) {
            Ok(text) => text,
            Err(error) => return (outer, vec![error]),
        };
        let (rules, errors) = directory_rules(&path, &text);
        let wrong = |source| SourceError::Rules { path: path.clone(), source };
        let errors = errors.into_iter().map(wrong).collect();
        (Some(Arc::new(Self { rules, base, outer })), errors)
    }

    /// The innermost rule that decides about a path, given by its absolute form.
    pub(super) fn decide(&self, path: &[u8], is_dir: bool) -> Option<Decided<'_>> {
        let mut level = Some(self);
        while let Some(here) = level {
            if let Some(rule) = path.get(here.base..).and_then(|path| here.rules.find(path, is_dir)) {
                return Some(Decided { rules: &here.rules, rule });
            }
            level = here.outer.as_deref();
        }
        None
    }
}

/// A rule that decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decided<'a> {
    rules: &'a RuleSet,
    rule: usize,
}

impl<'a> Decided<'a> {
    /// Whether it leaves the entry out.
    pub(super) fn excludes(self) -> bool {
        !self.rules.keeps(self.rule)
    }

    /// The rule as written.
    pub(super) fn text(self) -> Option<&'a RuleText> {
        self.rules.text(self.rule)
    }
}

impl Drop for Ignores {
    /// As for directories: a long chain must not be dropped by recursion.
    fn drop(&mut self) {
        let mut outer = self.outer.take();
        while let Some(mut level) = outer.and_then(Arc::into_inner) {
            outer = level.outer.take();
        }
    }
}

fn read(dir: &Arc<Dir>, name: &[u8], path: &std::path::Path) -> Result<Vec<u8>, SourceError> {
    let failed = |error| SourceError::of_entry("read", path.to_owned(), error);
    let fd = sys::file::open(&*dir.handle()?, name).map_err(failed)?;
    if !sys::stat::stat_open(&fd).map_err(failed)?.is_file() {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let mut text = Vec::new();
    let mut buffer = vec![0; 8192];
    loop {
        let len = sys::file::read_at(&fd, &mut buffer, text.len() as u64).map_err(failed)?;
        if len == 0 {
            return Ok(text);
        }
        text.extend_from_slice(&buffer[..len]);
        if text.len() > MAX {
            return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
    }
}

/// The first bytes of a valid `CACHEDIR.TAG`.
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Whether the file named is a tag that marks its directory as a cache. What cannot be read marks nothing: the directory
/// is then kept in full.
pub(super) fn is_cache_tag(dir: &Arc<Dir>, name: &[u8]) -> bool {
    let Ok(parent) = dir.handle() else { return false };
    let Ok(fd) = sys::file::open(&*parent, name) else { return false };
    let mut start = [0; TAG.len()];
    sys::stat::stat_open(&fd).is_ok_and(|stat| stat.is_file())
        && sys::file::read_at(&fd, &mut start, 0).is_ok_and(|len| start[..len] == *TAG)
}
