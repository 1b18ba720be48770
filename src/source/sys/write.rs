//! Closing a descriptor and hearing about it: on network file systems `close` is where a write may fail.

#![expect(unsafe_code, reason = "no safe wrapper reports the result of close")]

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};

/// Closes a descriptor; an error means that earlier writes may be lost.
pub(crate) fn close(fd: OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor was owned, and ownership is given up here, so it is closed exactly once.
    if unsafe { libc::close(fd.into_raw_fd()) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Linux has released the descriptor even then, and a second try could close somebody else's.
        error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_releases_the_descriptor() {
        let (reader, writer) = io::pipe().unwrap();
        close(OwnedFd::from(writer)).unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "", "the writing end is really gone");
    }
}
