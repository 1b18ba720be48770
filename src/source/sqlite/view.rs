//! How a database is read: its file, what stands elsewhere, and why that is of one moment.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::locks::{self, Live};
use super::{Beside, Hold, Name, SMALL, fill, header_of};
use crate::clock::Clock;
use crate::source::error::SourceError;
use crate::source::sys::file as sys;
use crate::source::sys::stat::{Stat, Time, stat_open};
use crate::sqlite::{
    HEADER_LEN, Header, Index, JOURNAL_HEADER_LEN, JournalHeader, PAGES_MAX, PageMap, Place, SUPER_TAIL_LEN,
    SuperTail, WAL_HEADER_LEN, WalScan, super_name,
};

/// Longer than the tick of any file system's clock.
const SETTLED_NANOS: i64 = 50_000_000;

const BAD_LOG: &str = "its log is damaged, and what was committed last may be in it";
const BAD_JOURNAL: &str = "its journal is damaged, and with it what a transaction changed last";

/// How a database is read.
#[derive(Debug)]
pub(super) struct View {
    /// What the file system said of its file.
    main: Stat,
    beside: Beside,
    /// Whether its last change, and that of what is beside it, is so long ago that another one would show.
    settled: bool,
    size: u64,
    /// Counts transactions of a database with a rollback journal.
    counter: [u8; 4],
    /// Pages that stand elsewhere, and where.
    pages: Option<(OwnedFd, PageMap)>,
    guard: Guard,
    fault: Option<&'static str>,
}

/// Why what is read is of one moment.
#[derive(Debug)]
enum Guard {
    /// Somebody who writes would wait, or write elsewhere. The lock of the index, if there is one, is kept with it.
    Held { _index: Option<Live> },
    /// Nothing prevents a change, but it shows: in the file of the index, which whoever opens the database makes anew.
    Watched,
    /// The lock was given back, and can be had again.
    Free,
    /// Nothing prevents a change, but it shows in the times of the files if it is not of the same moment as the last one.
    Loose,
}

impl View {
    /// Looks at a database that is open as `fd`, and takes the locks that it needs; that of the file itself lasts until it is
    /// given back.
    pub(super) fn open(
        fd: &OwnedFd,
        name: Name<'_>,
        (hold, clock): (Hold, &dyn Clock),
    ) -> Result<Self, SourceError> {
        let shared = locks::share(fd, hold);
        let mut view = Self::look(fd, name, clock)?;
        let in_log = view.beside.wal.is_some_and(|wal| wal.size > 0) || view.is_logged(fd, name)?;
        let found = match (in_log, shared) {
            (false, _) => None,
            (true, false) => Some(locks::Found::Unknown),
            (true, true) => Some(locks::join(name.0, name.1, view.beside.shm.is_some())),
        };
        let index = match &found {
            Some(locks::Found::Live(live)) => Some(live.index),
            _ => None,
        };
        if index.is_some() {
            // Much may have happened until the lock was there; from now on the file and what the index speaks of stay.
            view = Self::look(fd, name, clock)?;
        }
        let hot = !(shared && locks::is_written(fd)) && view.journal(name)?;
        if in_log {
            view.log(name, (index, hot))?;
        }
        view.guard = match found {
            Some(locks::Found::Live(live)) => Guard::Held { _index: Some(live) },
            Some(locks::Found::Nobody) => Guard::Watched,
            Some(locks::Found::Unknown) => Guard::Loose,
            None if !shared => Guard::Loose,
            None if hot || hold == Hold::Reading || view.main.size <= SMALL || !view.settled => {
                Guard::Held { _index: None }
            }
            None => Guard::Free,
        };
        view.check(fd).map_err(|error| failed("read", name, error))?;
        if matches!(view.guard, Guard::Free) {
            locks::release(fd);
        }
        Ok(view)
    }

    /// What the file system says.
    fn look(fd: &OwnedFd, name: Name<'_>, clock: &dyn Clock) -> Result<Self, SourceError> {
        // Before the rest: what changes afterwards is later than this.
        let now = clock.now().0;
        let main = stat_open(fd).map_err(|error| failed("look at", name, error))?;
        let beside = Beside::look(name.0, name.1)?;
        let mut counter = [0; 4];
        fill(fd, &mut counter, 24).map_err(|error| failed("read", name, error))?;
        let nanos = |time: Time| time.secs.saturating_mul(1_000_000_000).saturating_add(time.nanos.into());
        let latest = beside.changed().map_or(main.ctime, |changed| changed.max(main.ctime));
        let settled = now.saturating_sub(nanos(latest)) >= SETTLED_NANOS;
        Ok(Self {
            main,
            beside,
            settled,
            size: main.size,
            counter,
            pages: None,
            guard: Guard::Loose,
            fault: None,
        })
    }

    /// Whether changes go to a log first.
    fn is_logged(&self, fd: &OwnedFd, name: Name<'_>) -> Result<bool, SourceError> {
        let header = header_of(fd).map_err(|error| failed("read", name, error))?;
        Ok(header.is_some_and(|header| header.wal))
    }

    /// Takes a journal that a writer left behind when it was killed: what is in it belongs into the file. True if there is one.
    fn journal(&mut self, (dir, name): Name<'_>) -> Result<bool, SourceError> {
        let Some(journal) = self.beside.journal.filter(|journal| journal.size > 0) else { return Ok(false) };
        if self.main.size == 0 {
            return Ok(false);
        }
        let path = [name, b"-journal"].concat();
        let Some(fd) = self.open_beside((dir, &path)) else { return Ok(false) };
        let failed = |error| failed("read", (dir, &path), error);
        if !is_hot(&fd, journal.size).map_err(failed)? {
            let mut head = [0; JOURNAL_HEADER_LEN];
            let read = fill(&fd, &mut head, 0).map_err(failed)?;
            if JournalHeader::parse(&head[..read]).is_none() && head != [0; JOURNAL_HEADER_LEN] {
                self.fault = Some(BAD_JOURNAL);
            }
            return Ok(false);
        }
        let (map, fault) = read_journal(&fd, journal.size).map_err(failed)?;
        if let Some(map) = map {
            self.take((fd, map));
        }
        self.fault = self.fault.or(fault);
        Ok(true)
    }

    /// Takes what stands in the log and not yet in the file.
    fn log(&mut self, (dir, name): Name<'_>, (index, hot): (Option<Index>, bool)) -> Result<(), SourceError> {
        match index {
            Some(index) if index.copied >= index.frames => return Ok(()),
            // What the index says counts; without one the file is all there is.
            None if self.beside.wal.is_none_or(|wal| wal.size == 0) => return Ok(()),
            _ => {}
        }
        let path = [name, b"-wal"].concat();
        let Some(fd) = self.open_beside((dir, &path)) else { return Ok(()) };
        let scan = read_log(&fd, index.map(|index| index.frames));
        match scan.map_err(|error| failed("read", (dir, &path), error))? {
            (Some(scan), _) if scan.is_full() => self.fault = Some("its log is too long"),
            (Some(scan), fault) => {
                let whole =
                    index.is_none_or(|index| (scan.frames(), scan.salts()) == (index.frames, index.salts));
                match scan.finish() {
                    _ if !whole => self.fault = Some(BAD_LOG),
                    Some(_) if hot => {
                        self.fault = Some("it has both a journal and a log to be recovered from")
                    }
                    Some(map) => self.take((fd, map)),
                    None => {}
                }
                self.fault = self.fault.or(fault);
            }
            (None, fault) => self.fault = self.fault.or(fault).or(index.map(|_| BAD_LOG)),
        }
        Ok(())
    }

    fn open_beside(&mut self, (dir, name): Name<'_>) -> Option<OwnedFd> {
        let opened = dir.handle().map_err(drop).and_then(|handle| sys::open(&*handle, name).map_err(drop));
        if opened.is_err() {
            self.fault = Some("the file beside it, in which a part of it stands, cannot be read");
        }
        opened.ok()
    }

    fn take(&mut self, (fd, map): (OwnedFd, PageMap)) {
        if map.covers(self.main.size) {
            self.size = map.size();
            self.pages = Some((fd, map));
        } else {
            self.fault = Some("the file beside it, in which a part of it stands, is not its own");
        }
    }

    /// Holds the length against what the database says of itself.
    fn check(&mut self, fd: &OwnedFd) -> io::Result<()> {
        let (mut head, mut filled) = ([0; HEADER_LEN], 0);
        while filled < head.len() {
            match self.read_at(fd, &mut head[filled..], filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        match Header::parse(&head[..filled]) {
            Some(Header { pages: Some(pages), page_size, .. })
                if u64::from(pages) * u64::from(page_size) > self.size =>
            {
                self.fault = self.fault.or(Some("it is shorter than it says"));
            }
            Some(_) => {}
            None => self.fault = self.fault.or(Some("its first page is damaged")),
        }
        Ok(())
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn main(&self) -> &Stat {
        &self.main
    }

    pub(super) fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    /// Whether it can turn out that what is read is of one moment.
    pub(super) fn may_stand(&self) -> bool {
        self.settled || matches!(self.guard, Guard::Held { .. })
    }

    pub(super) fn read_at(&self, fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some((other, map)) = &self.pages else { return sys::read_at(fd, buffer, offset) };
        if offset >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        let most = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
        let (read, len) = match map.find(offset) {
            Place::Elsewhere(at, len) => {
                let len = most(len).min(buffer.len());
                (sys::read_at(other, &mut buffer[..len], at)?, len)
            }
            Place::File(len) => {
                let len = most(len.min(self.size - offset)).min(buffer.len());
                (sys::read_at(fd, &mut buffer[..len], offset)?, len)
            }
        };
        match (read, map.locked(offset)) {
            (0, Some(locked)) => {
                let len = most(locked).min(len);
                buffer[..len].fill(0);
                Ok(len)
            }
            // It was there when the pages were counted.
            (0, None) => Err(io::ErrorKind::UnexpectedEof.into()),
            (read, _) => Ok(read),
        }
    }

    /// Whether what was read since it was opened is of one moment.
    pub(super) fn stands(&self, fd: &OwnedFd, name: Name<'_>) -> Result<bool, SourceError> {
        match &self.guard {
            Guard::Held { .. } => return Ok(true),
            Guard::Free if !locks::share(fd, Hold::Moment) => return Ok(false),
            Guard::Free | Guard::Watched | Guard::Loose => {}
        }
        let now = stat_open(fd).map_err(|error| failed("look at", name, error))?;
        let beside = Beside::look(name.0, name.1)?;
        let mut counter = [0; 4];
        fill(fd, &mut counter, 24).map_err(|error| failed("read", name, error))?;
        let same = now.same_content(&self.main) && beside.same(&self.beside) && counter == self.counter;
        let watched = !matches!(self.guard, Guard::Watched) || beside.same_index(&self.beside);
        Ok(self.settled && same && watched)
    }
}

fn failed(action: &'static str, (dir, name): Name<'_>, error: io::Error) -> SourceError {
    SourceError::of_entry(action, dir.path_of(name), error)
}

/// Goes through a log, no further than `most` frames; and says if there is more in it than can be read.
fn read_log(fd: &OwnedFd, most: Option<u32>) -> io::Result<(Option<WalScan>, Option<&'static str>)> {
    let mut head = [0; WAL_HEADER_LEN];
    let read = fill(fd, &mut head, 0)?;
    let Some(mut scan) = WalScan::new(&head[..read]) else {
        // SQLite takes it for none; but nobody else has written what is in it.
        return Ok((None, (head != [0; WAL_HEADER_LEN]).then_some(BAD_LOG)));
    };
    let mut frame = vec![0; scan.frame_len()];
    let mut frames = 0;
    while most.is_none_or(|most| frames < most) {
        let read = fill(fd, &mut frame, WAL_HEADER_LEN as u64 + u64::from(frames) * scan.frame_len() as u64)?;
        if !scan.push(&frame[..read]) {
            let torn = scan.is_own(&frame[..read]);
            return Ok((Some(scan), torn.then_some(BAD_LOG)));
        }
        frames += 1;
    }
    Ok((Some(scan), None))
}

/// Whether a journal that no writer holds is to be rolled back.
pub(super) fn is_hot(fd: &OwnedFd, size: u64) -> io::Result<bool> {
    let mut head = [0; JOURNAL_HEADER_LEN];
    let read = fill(fd, &mut head, 0)?;
    if JournalHeader::parse(&head[..read]).is_none() {
        return Ok(false);
    }
    let mut tail = [0; SUPER_TAIL_LEN];
    let Some(at) = size.checked_sub(SUPER_TAIL_LEN as u64) else { return Ok(false) };
    let read = fill(fd, &mut tail, at)?;
    let Some(tail) = SuperTail::parse(&tail[..read]) else { return Ok(true) };
    let mut name = vec![0; tail.len as usize];
    let Some(at) = at.checked_sub(u64::from(tail.len)) else { return Ok(true) };
    let read = fill(fd, &mut name, at)?;
    let Some(name) = super_name(tail, &name[..read]) else { return Ok(true) };
    // Once it is gone, the transaction of all databases is committed.
    let path = Path::new(std::ffi::OsStr::from_bytes(name));
    Ok(!matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound))
}

/// Goes through a journal as SQLite does when it rolls it back; and says if there should be more in it.
fn read_journal(fd: &OwnedFd, size: u64) -> io::Result<(Option<PageMap>, Option<&'static str>)> {
    let (mut at, mut records, mut first) = (0, Vec::new(), None::<JournalHeader>);
    let (mut head, mut fault) = ([0; JOURNAL_HEADER_LEN], None);
    'headers: while at + JOURNAL_HEADER_LEN as u64 <= size {
        let read = fill(fd, &mut head, at)?;
        let Some(header) = JournalHeader::parse(&head[..read]) else { break };
        let known = *first.get_or_insert(header);
        let header = header.after(&known);
        at += u64::from(known.sector);
        let mut record = vec![0; known.record_len()];
        let room = size.saturating_sub(at) / record.len() as u64;
        let counted = header.records.map(u64::from);
        for done in 0..counted.unwrap_or(room) {
            let read = if done < room { fill(fd, &mut record, at)? } else { 0 };
            let Some(page) = header.page_of(&record[..read]) else {
                fault = counted.map(|_| BAD_JOURNAL);
                break 'headers;
            };
            if records.len() >= PAGES_MAX {
                return Ok((None, Some("its journal is too long")));
            }
            records.push((page, at + 4));
            at += record.len() as u64;
        }
        at = at.next_multiple_of(u64::from(known.sector));
    }
    Ok((first.and_then(|first| first.map(records)), fault))
}
