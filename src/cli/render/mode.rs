//! Kind and permission bits as `ls -l` shows them.

use lifeboat::format::node::NodeKind;

use super::sanitize;

/// Ten letters.
pub(crate) fn mode(kind: NodeKind, bits: u32) -> String {
    let mut out = String::with_capacity(10);
    out.push(match kind {
        NodeKind::File => '-',
        NodeKind::Directory => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
        NodeKind::Unknown => '?',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let rwx = bits >> shift;
        out.push(if rwx & 4 != 0 { 'r' } else { '-' });
        out.push(if rwx & 2 != 0 { 'w' } else { '-' });
        out.push(match (bits & special != 0, rwx & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// A user or a group: its name, or its number if it has none.
pub(crate) fn owner(name: &[u8], id: u32) -> String {
    if name.is_empty() { id.to_string() } else { sanitize::name(name) }
}

/// One word for JSON.
pub(crate) fn kind(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Directory => "directory",
        NodeKind::Symlink => "symlink",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
        NodeKind::CharDevice => "char_device",
        NodeKind::BlockDevice => "block_device",
        NodeKind::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        for (kind, bits, text) in [
            (NodeKind::File, 0o644, "-rw-r--r--"),
            (NodeKind::Directory, 0o1777, "drwxrwxrwt"),
            (NodeKind::File, 0o4755, "-rwsr-xr-x"),
            (NodeKind::File, 0o2644, "-rw-r-Sr--"),
            (NodeKind::Symlink, 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode(kind, bits), text);
        }
    }
}
