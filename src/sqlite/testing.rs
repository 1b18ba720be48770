//! Databases, logs and journals for tests.

/// The first page of a database with so many pages.
pub(crate) fn header(page_size: u32, pages: u32, wal: bool) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    bytes[..16].copy_from_slice(b"SQLite format 3\0");
    let short = if page_size == 65_536 { 1 } else { page_size as u16 };
    bytes[16..18].copy_from_slice(&short.to_be_bytes());
    (bytes[18], bytes[19]) = if wal { (2, 2) } else { (1, 1) };
    bytes[24..28].copy_from_slice(&5u32.to_be_bytes());
    bytes[28..32].copy_from_slice(&pages.to_be_bytes());
    bytes[92..96].copy_from_slice(&5u32.to_be_bytes());
    bytes.resize(page_size as usize, 0);
    bytes
}

/// A log of frames: number of the page, and pages of the database if it ends a transaction. The n-th frame's page is full of
/// bytes n.
pub(crate) fn wal(page_size: u32, frames: &[(u32, u32)]) -> Vec<u8> {
    let mut log = Vec::new();
    for word in [0x377f_0683, 3_007_000, page_size, 0, 17, 18] {
        log.extend_from_slice(&u32::to_be_bytes(word));
    }
    let mut sums = sum([0, 0], &log);
    log.extend(sums.iter().flat_map(|sum| sum.to_be_bytes()));
    for (at, (page, count)) in frames.iter().enumerate() {
        let mut head = [page.to_be_bytes(), count.to_be_bytes()].concat();
        let body = vec![at as u8 + 1; page_size as usize];
        sums = sum(sum(sums, &head), &body);
        head.extend_from_slice(&log[16..24]);
        head.extend(sums.iter().flat_map(|sum| sum.to_be_bytes()));
        log.extend(head);
        log.extend(body);
    }
    log
}

/// What those who have a database open agree on: frames of the log, how many of them are in the file, and the log's salts.
pub(crate) fn index(frames: u32, copied: u32, salts: &[u8]) -> Vec<u8> {
    let mut index = vec![0; 136];
    index[..4].copy_from_slice(&3_007_000_u32.to_ne_bytes());
    index[12] = 1;
    index[16..20].copy_from_slice(&frames.to_ne_bytes());
    index[32..40].copy_from_slice(salts);
    let (mut a, mut b) = (0_u32, 0_u32);
    for eight in index[..40].chunks_exact(8) {
        let [x, y] = [&eight[..4], &eight[4..]].map(|four| u32::from_ne_bytes(four.try_into().unwrap()));
        a = a.wrapping_add(x).wrapping_add(b);
        b = b.wrapping_add(y).wrapping_add(a);
    }
    index[40..44].copy_from_slice(&a.to_ne_bytes());
    index[44..48].copy_from_slice(&b.to_ne_bytes());
    index.copy_within(..48, 48);
    index[96..100].copy_from_slice(&copied.to_ne_bytes());
    index
}

fn sum([mut a, mut b]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    for pair in bytes.chunks_exact(8) {
        let [x, y] = [&pair[..4], &pair[4..]].map(|four| u32::from_be_bytes(four.try_into().unwrap()));
        a = a.wrapping_add(x).wrapping_add(b);
        b = b.wrapping_add(y).wrapping_add(a);
    }
    [a, b]
}

/// A journal with sectors of a page: its nonce, pages before the transaction, and for each page what it was full of.
pub(crate) fn journal((page_size, nonce, pages): (u32, u32, u32), records: &[(u32, u8)]) -> Vec<u8> {
    let mut out = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    for word in [records.len() as u32, nonce, pages, page_size, page_size] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.resize(page_size as usize, 0);
    for (page, byte) in records {
        out.extend_from_slice(&page.to_be_bytes());
        out.resize(out.len() + page_size as usize, *byte);
        let samples = (page_size - 200).div_ceil(200);
        out.extend_from_slice(&(nonce + samples * u32::from(*byte)).to_be_bytes());
    }
    out
}
