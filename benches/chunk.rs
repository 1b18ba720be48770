//! Speed of cutting: the vector scan and the portable one, over more data than the caches hold, and over one hot block.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use lifeboat::chunk::{ChunkParams, Cutter};

const AVERAGES: [u32; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

fn main() {
    divan::main();
}

fn params(average: u32) -> ChunkParams {
    ChunkParams::new(average / 4, average, average * 4).expect("the averages above are valid")
}

fn data(len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    blake3::Hasher::new().update(b"cut me").finalize_xof().fill(&mut data);
    data
}

fn measure(bencher: Bencher<'_, '_>, cutter: &Cutter, len: usize) {
    let data = data(len);
    bencher.counter(BytesCount::of_slice(&data)).bench_local(|| {
        let mut rest = black_box(&data[..]);
        let mut chunks = 0;
        while !rest.is_empty() {
            rest = &rest[cutter.cut(rest)..];
            chunks += 1;
        }
        chunks
    });
}

#[divan::bench(args = AVERAGES, sample_count = 20)]
fn vector(bencher: Bencher<'_, '_>, average: u32) {
    measure(bencher, &Cutter::new(&[7; 32], params(average)), 64 << 20);
}

#[divan::bench(args = AVERAGES, sample_count = 10)]
fn portable(bencher: Bencher<'_, '_>, average: u32) {
    measure(bencher, &Cutter::portable(&[7; 32], params(average)), 64 << 20);
}

#[divan::bench(args = [64 << 10], sample_count = 50)]
fn vector_hot(bencher: Bencher<'_, '_>, average: u32) {
    measure(bencher, &Cutter::new(&[7; 32], params(average)), 512 << 10);
}
