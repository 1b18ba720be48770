//! What a walk would do with one path, and why: by the steps of the walk itself, taken for one name of each directory.
//!
//! # Must not
//! Decide anything: the walk does, and says what it went by.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::Entry;
use super::list::{self, Job, Output, Scratch, Sub};
use super::roots::parts;
use super::run;
use super::{Context, WalkOptions};
use crate::filter::RuleText;
use crate::source::error::SourceError;
use crate::source::sys::stat::Stat;

/// Why a walk leaves something out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Omission {
    /// A rule that was given, as an argument or in a file of rules.
    Rule(RuleText),
    /// A rule of a file in the source.
    IgnoreFile(RuleText),
    /// There are include rules, and none matches.
    NotIncluded,
    /// It is in a directory that is tagged as a cache.
    Cache,
    /// A file above the limit.
    TooLarge {
        /// Its bytes.
        size: u64,
        /// The most bytes a file may have.
        limit: u64,
    },
    /// The repository itself, or what this program keeps on this machine.
    OwnFiles,
    /// Another file system is mounted there, so what is in it is left out.
    OtherFileSystem,
    /// A file system that shows the state of the kernel is mounted there, so what is in it is left out.
    KernelState,
}

/// What a walk does with a path.
#[derive(Debug)]
pub enum Fate {
    /// It delivers it.
    Saved {
        /// Only because something below is asked for or included: what else is in the directory is left out.
        way: bool,
        /// Why a directory is delivered without what is in it.
        empty: Option<Omission>,
    },
    /// It leaves it out.
    LeftOut {
        /// Where that was decided: the path or a directory above it.
        at: PathBuf,
        /// Why.
        omission: Omission,
    },
    /// No source is the path or above it.
    NoSource,
    /// It does not exist.
    Missing {
        /// The first part of the path that does not.
        at: PathBuf,
    },
    /// A part of the path is no directory; a symbolic link is not followed.
    Behind {
        /// That part.
        at: PathBuf,
    },
    /// It cannot be looked at, or what is above it cannot.
    Unreadable(SourceError),
}

/// What is known of a path.
#[derive(Debug)]
pub struct Explanation {
    /// What a walk does with it.
    pub fate: Fate,
    /// What the file system says about it.
    pub stat: Result<Stat, SourceError>,
}

/// Says what a walk with these options does with an absolute path, every source being stored under its own path.
///
/// # Errors
/// A mistake in the options, as [`Walk::new`](super::Walk::new) finds it; that the walk was stopped.
pub fn explain(options: WalkOptions, path: &Path) -> Result<Explanation, SourceError> {
    let cancel = options.cancel.clone();
    let (context, failed) = run::context(options)?;
    let stat = context.roots.look(path);
    let fate = match go(&context, path) {
        Outcome::Fate(Fate::NoSource) => unseen(failed, path),
        Outcome::Fate(fate) => fate,
        // It is delivered if anything in it is.
        Outcome::Leads(job) => match run::delivers(context, *job, cancel)? {
            true => Fate::Saved { way: true, empty: None },
            false => Fate::LeftOut { at: path.to_owned(), omission: Omission::NotIncluded },
        },
    };
    Ok(Explanation { fate, stat })
}

enum Outcome {
    Fate(Fate),
    /// A directory that is delivered if something in it is included.
    Leads(Box<Job>),
}

/// What became of one name of a directory.
struct Picked {
    is_there: bool,
    sub: Option<Sub>,
    omission: Option<Omission>,
    failure: Option<SourceError>,
}

/// Goes from the root of the snapshot's tree to the path, as a walk would that has eyes for nothing else.
fn go(context: &Context, path: &Path) -> Outcome {
    if context.roots.is_empty() {
        return Outcome::Fate(Fate::NoSource);
    }
    let mut scratch = Scratch::new();
    let mut above = PathBuf::from("/");
    let mut inherited = None;
    let mut picked = pick(list::first(context), b"");
    for name in parts(path) {
        let at = above.join(OsStr::from_bytes(name));
        let job = match picked.sub {
            Some(Sub::Walk { job, .. }) => job,
            Some(Sub::Failed(error)) => return Outcome::Fate(Fate::Unreadable(error)),
            Some(Sub::Empty) => {
                let left_out = picked.omission.map(|omission| Fate::LeftOut { at: above.clone(), omission });
                return Outcome::Fate(left_out.unwrap_or(Fate::Behind { at: above }));
            }
            None => return Outcome::Fate(Fate::Behind { at: above }),
        };
        let selected = job.scope.selected;
        match picked.omission {
            Some(omission) if !selected => inherited = Some(Fate::LeftOut { at: above, omission }),
            _ if selected => inherited = None,
            _ => {}
        }
        scratch.asked = Some(name.to_vec());
        picked = pick(list::run(context, job, &mut scratch), name);
        if !picked.is_there {
            // An ignore file that cannot be read fails under its own name, also where a rule leaves it out.
            return Outcome::Fate(match (picked.omission, picked.failure) {
                (Some(omission), _) => Fate::LeftOut { at, omission },
                (None, Some(failure)) => Fate::Unreadable(failure),
                (None, None) if selected => Fate::Missing { at },
                (None, None) => inherited.unwrap_or(Fate::NoSource),
            });
        }
        above = at;
    }
    match picked.sub {
        Some(Sub::Walk { job, leads: true }) => Outcome::Leads(Box::new(job)),
        Some(Sub::Walk { job, .. }) => Outcome::Fate(Fate::Saved { way: !job.scope.selected, empty: None }),
        Some(Sub::Empty) => Outcome::Fate(Fate::Saved { way: false, empty: picked.omission }),
        Some(Sub::Failed(error)) => Outcome::Fate(Fate::Unreadable(error)),
        None => Outcome::Fate(Fate::Saved { way: false, empty: None }),
    }
}

fn pick(output: Output, name: &[u8]) -> Picked {
    let Output { omission, block, failures, subs, error, .. } = output;
    let entry = |index| Entry { block: Arc::clone(&block), index };
    let count = u32::try_from(block.entries.len()).unwrap_or(u32::MAX);
    let index = (0..count).find(|index| entry(*index).name() == name);
    let sub = index.and_then(|index| subs.into_iter().find(|(at, _)| *at == index)).map(|(_, sub)| sub);
    let failure = failures.into_iter().map(|(_, failure)| failure).find(|failure| *failure.name == *name);
    let failure = failure.map(|failure| failure.error).or(error);
    Picked { is_there: index.is_some(), sub, omission, failure }
}

/// What a path is that lies below no source that could be looked at.
fn unseen(failed: Vec<SourceError>, path: &Path) -> Fate {
    let above = |error: &SourceError| error.path().is_some_and(|source| path.starts_with(source));
    match failed.into_iter().find(above) {
        Some(SourceError::Missing { path }) => Fate::Missing { at: path },
        Some(other) => Fate::Unreadable(other),
        None => Fate::NoSource,
    }
}
