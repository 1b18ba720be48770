//! Locks on ranges of a file, as databases take them. They belong to the open file, not to the process: closing another
//! descriptor of the same file does not lose them.

#![expect(unsafe_code, reason = "no safe wrapper locks a range")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of a file: where they begin, how many.
pub(crate) type Bytes = (u64, u64);

fn call(fd: impl AsFd, command: libc::c_int, (kind, range): (libc::c_int, Bytes)) -> io::Result<libc::flock> {
    // SAFETY: a structure of integers, for which zeroes are a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = range.0 as libc::off_t;
    lock.l_len = range.1 as libc::off_t;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the structure lives until the call returns.
    match unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, &raw mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(lock),
    }
}

fn set(fd: impl AsFd, kind: libc::c_int, range: Bytes) -> io::Result<bool> {
    match call(fd, libc::F_OFD_SETLK, (kind, range)) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes a lock that others may take too, without waiting; false if somebody has it alone.
pub(crate) fn share(fd: impl AsFd, range: Bytes) -> io::Result<bool> {
    set(fd, libc::F_RDLCK, range)
}

/// Takes a lock alone, without waiting; false if somebody has it. The file must be open for writing.
pub(crate) fn seize(fd: impl AsFd, range: Bytes) -> io::Result<bool> {
    set(fd, libc::F_WRLCK, range)
}

/// Gives back what was taken.
pub(crate) fn release(fd: impl AsFd, range: Bytes) -> io::Result<()> {
    set(fd, libc::F_UNLCK, range).map(|_| ())
}

/// Whether somebody else has a lock there, alone or with others.
pub(crate) fn is_taken(fd: impl AsFd, range: Bytes) -> io::Result<bool> {
    let found = call(fd, libc::F_OFD_GETLK, (libc::F_WRLCK, range))?;
    Ok(libc::c_int::from(found.l_type) != libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn who_opens_a_file_twice_meets_its_own_locks() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("f");
        let open =
            || File::options().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
        let (one, two) = (open(), open());
        assert!(share(&one, (10, 5)).unwrap() && share(&two, (10, 1)).unwrap());
        assert!(!seize(&two, (12, 1)).unwrap() && seize(&two, (15, 1)).unwrap());
        assert!(is_taken(&two, (10, 5)).unwrap() && !is_taken(&two, (0, 10)).unwrap());
        drop(open());
        assert!(!seize(&two, (12, 1)).unwrap(), "closing another descriptor loses nothing");
        release(&one, (10, 5)).unwrap();
        assert!(seize(&two, (12, 1)).unwrap());
    }
}
