//! What sealing and opening segments costs, with their parts. Throughput is of plaintext, on one thread.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may stop at any error")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use lifeboat::compress::{Compressor, Decompressor, looks_incompressible};
use lifeboat::crypto::aead::AeadKey;
use lifeboat::crypto::{DataKey, SecretKey, chunk_id};
use lifeboat::format::envelope::ChunkKind;
use lifeboat::id::{ChunkId, RepositoryId, RunId};
use lifeboat::random::{Random, SystemRandom};
use lifeboat::seal::{SegmentOpener, SegmentSealer};

const MIB: usize = 1 << 20;
const REPOSITORY: RepositoryId = RepositoryId::new([1; 16]);
const KIND: ChunkKind = ChunkKind::Data;

fn main() {
    divan::main();
}

fn key() -> DataKey {
    DataKey::new(SecretKey::from_bytes([2; 32]), RunId::new([3; 16]), KIND)
}

fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    SystemRandom.fill(&mut out).unwrap();
    out
}

/// One MiB of source code that is the same everywhere: runs of words of a file, in an order from a fixed generator. It
/// compresses worse and slower than real sources.
fn text() -> Vec<u8> {
    let words: Vec<&str> = include_str!("../src/format/envelope.rs").split_inclusive(' ').collect();
    let mut out = Vec::with_capacity(MIB + 64);
    let mut state = 1u64;
    while out.len() < MIB {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 33) as usize % (words.len() - 8);
        out.extend(words[at..at + 1 + (state >> 61) as usize].iter().flat_map(|word| word.bytes()));
    }
    out.truncate(MIB);
    out
}

fn ids() -> [ChunkId; 4] {
    [4, 5, 6, 7].map(|byte| ChunkId::new([byte; 32]))
}

fn seal(bencher: Bencher<'_, '_>, plain: &[u8], level: i32) {
    let mut sealer = SegmentSealer::new(&key(), REPOSITORY, level).unwrap();
    let (ids, mut out) = (ids(), Vec::with_capacity(2 * MIB));
    bencher.counter(BytesCount::of_slice(plain)).bench_local(|| {
        out.clear();
        sealer.seal(black_box(plain), &ids, &SystemRandom, &mut out).unwrap()
    });
}

fn open(bencher: Bencher<'_, '_>, plain: &[u8], level: i32) {
    let (key, mut stored, mut out) = (key(), Vec::new(), Vec::new());
    let mut sealer = SegmentSealer::new(&key, REPOSITORY, level).unwrap();
    let entry = sealer.seal(plain, &ids(), &SystemRandom, &mut stored).unwrap();
    let mut opener = SegmentOpener::new(REPOSITORY).unwrap();
    bencher.counter(BytesCount::of_slice(plain)).bench_local(|| {
        opener.open(&key, &entry, black_box(&stored), &mut out).unwrap();
    });
}

#[divan::bench]
fn seal_noise(bencher: Bencher<'_, '_>) {
    seal(bencher, &noise(MIB), 1);
}

#[divan::bench(args = [-1, 1, 3])]
fn seal_text(bencher: Bencher<'_, '_>, level: i32) {
    seal(bencher, &text(), level);
}

#[divan::bench]
fn open_noise(bencher: Bencher<'_, '_>) {
    open(bencher, &noise(MIB), 1);
}

#[divan::bench]
fn open_text(bencher: Bencher<'_, '_>) {
    open(bencher, &text(), 1);
}

#[divan::bench(args = [-1, 1, 3])]
fn part_compress(bencher: Bencher<'_, '_>, level: i32) {
    let (plain, mut out) = (text(), Vec::new());
    let mut compressor = Compressor::new(level).unwrap();
    bencher
        .counter(BytesCount::of_slice(&plain))
        .bench_local(|| compressor.compress(black_box(&plain), &mut out).unwrap());
}

#[divan::bench]
fn part_decompress(bencher: Bencher<'_, '_>) {
    let (plain, mut frame, mut out) = (text(), Vec::new(), Vec::new());
    Compressor::new(1).unwrap().compress(&plain, &mut frame).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    bencher
        .counter(BytesCount::of_slice(&plain))
        .bench_local(|| decompressor.decompress(black_box(&frame), MIB, &mut out).unwrap());
}

#[divan::bench]
fn part_encrypt(bencher: Bencher<'_, '_>) {
    let mut buf = noise(MIB);
    bencher.counter(BytesCount::of_slice(&buf.clone())).bench_local(|| {
        let key = AeadKey::new(black_box(&SecretKey::from_bytes([9; 32])));
        key.seal_in_place([0; 12], b"", &mut buf).unwrap()
    });
}

#[divan::bench]
fn part_incompressible(bencher: Bencher<'_, '_>) {
    let plain = noise(MIB);
    bencher.counter(BytesCount::of_slice(&plain)).bench_local(|| looks_incompressible(black_box(&plain)));
}

#[divan::bench(args = [512, 4 << 10, 64 << 10, MIB])]
fn chunk_ids(bencher: Bencher<'_, '_>, len: usize) {
    let (key, plain) = (SecretKey::from_bytes([1; 32]), noise(len));
    bencher.counter(BytesCount::of_slice(&plain)).bench_local(|| chunk_id(&key, KIND, black_box(&plain)));
}
