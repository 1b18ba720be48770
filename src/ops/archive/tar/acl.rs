//! POSIX access control lists: from the bytes of the extended attribute to the text in a tar archive.
//!
//! The bytes are those of Linux (`include/uapi/linux/posix_acl_xattr.h`), the text is that of POSIX.1e draft 17 with numbers in
//! place of names, as a list holds numbers.

/// The attribute of the list that counts, and of the one for what is made in a directory.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;

/// The text of a list; `None` if the bytes are none.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() || entries.is_empty() {
        return None;
    }
    let mut lines = Vec::with_capacity(entries.len());
    for entry in entries {
        let [tag, tag_high, perm, perm_high, id @ ..] = *entry;
        let id = u32::from_le_bytes(id);
        let who = match u16::from_le_bytes([tag, tag_high]) {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let perm = u16::from_le_bytes([perm, perm_high]);
        if perm > 7 {
            return None;
        }
        let letter = |bit: u16, letter| if perm & bit == 0 { '-' } else { letter };
        lines.push(format!("{who}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')));
    }
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u16, perm: u16, id: u32) -> Vec<u8> {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    }

    #[test]
    fn a_list_becomes_text() {
        let list = [
            2_u32.to_le_bytes().to_vec(),
            entry(0x01, 7, u32::MAX),
            entry(0x02, 6, 1234),
            entry(0x04, 5, u32::MAX),
            entry(0x08, 4, 5678),
            entry(0x10, 7, u32::MAX),
            entry(0x20, 0, u32::MAX),
        ]
        .concat();
        assert_eq!(
            text(&list).unwrap(),
            "user::rwx\nuser:1234:rw-\ngroup::r-x\ngroup:5678:r--\nmask::rwx\nother::---"
        );
    }

    #[test]
    fn what_is_no_list_has_no_text() {
        let version = 2_u32.to_le_bytes().to_vec();
        for bad in [
            vec![],
            version.clone(),
            vec![2, 0, 0],
            [3_u32.to_le_bytes().to_vec(), entry(1, 7, 0)].concat(),
            [version.clone(), entry(1, 7, 0), vec![0]].concat(),
            [version.clone(), entry(3, 7, 0)].concat(),
            [version, entry(1, 8, 0)].concat(),
        ] {
            assert_eq!(text(&bad), None, "{bad:?}");
        }
    }
}
