//! Streams and files whose content is put together from the work of several threads.

use std::time::Duration;

use super::hostile::{PanicsInWorkers, node};
use super::*;
use crate::crypto::{chunk_id, context};
use crate::format::content::{ChunkRow, Content};
use crate::repo::Limits;

fn command(script: &str) -> BackupOptions {
    let source = BackupSource::Command(["sh", "-c", script].map(Into::into).to_vec());
    BackupOptions { stored_as: Some("/stream".into()), ..BackupOptions::new(source) }
}

fn with_workers(repo: &Repository, world: &World, workers: usize) -> Repository {
    repo.with_env(Env { limits: Limits { workers, ..world.env().limits }, ..world.env() })
}

/// The rows of bytes that are cut as a whole.
fn rows_of(repo: &Repository, mut bytes: &[u8]) -> Vec<ChunkRow> {
    let (cutter, key) = (repo.cutter().unwrap(), repo.dedup_key(context::CHUNK_ID).unwrap());
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let (chunk, rest) = bytes.split_at(cutter.cut(bytes));
        rows.push(ChunkRow { id: chunk_id(&key, ChunkKind::Data, chunk), len: chunk.len() as u32 });
        bytes = rest;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_cut_as_a_whole_whoever_stores_its_chunks() {
    let world = World::new();
    let repo = world.repository().await;
    for (len, inline) in [(0, true), (1, true), (9_000_000, true), (40_000_000, false)] {
        // Half of it noise, half of it text that is found again and again.
        let mut bytes = noise(9, len);
        bytes.chunks_mut(1 << 20).skip(1).step_by(2).for_each(|part| part.fill(b'x'));
        world.write("bytes", &bytes);
        let script = format!("cat {}", world.source().join("bytes").display());
        let expected = rows_of(&repo, &bytes);
        let mut contents = Vec::new();
        for workers in [1, 2, 7] {
            let saved = backup(&with_workers(&repo, &world, workers), command(&script)).await.unwrap();
            assert_eq!((saved.bytes, saved.files), (len as u64, 1));
            let node = node(&repo, saved.snapshot.unwrap(), Path::new("/stream")).await;
            assert_eq!(node.size, len as u64);
            contents.push(node.content);
        }
        match &contents[0] {
            Content::Inline(rows) => assert!(inline && *rows == expected),
            Content::Paged(list) => assert!(!inline && list.rows == expected.len() as u64),
        }
        assert!(contents.iter().all(|content| *content == contents[0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_panics_ends_a_stream_and_a_stopped_one_keeps_what_it_read() {
    let world = World::new();
    let repo = world.repository().await;
    let endless = || command("exec cat /dev/urandom");
    let panics = repo.with_env(Env { random: Arc::new(PanicsInWorkers), ..world.env() });
    let run = tokio::time::timeout(Duration::from_secs(20), backup(&panics, endless())).await;
    assert!(run.expect("the run hangs").is_err());

    let env = world.env();
    let (cancel, observer) = (env.cancel.clone(), Arc::clone(&env.observer));
    let stopping = repo.with_env(env);
    let stop = async {
        while observer.counters().bytes_read.load(Ordering::Relaxed) < 30_000_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.raise();
    };
    let run = tokio::time::timeout(Duration::from_secs(20), backup(&stopping, endless()));
    let (run, ()) = tokio::join!(run, stop);
    assert_eq!(run.expect("the run hangs").unwrap_err().class(), Class::Cancelled);
    let kept: u64 = repo.store().list("packs/").await.unwrap().iter().map(|pack| pack.size).sum();
    assert!(kept > 20_000_000, "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_file_in_many_spans_are_taken_over_and_made_again_when_a_pack_is_gone() {
    let world = World::new();
    let repo = world.repository().await;
    let bytes = noise(4, (64 << 20) + 5_000_000);
    world.write("large", &bytes);
    let mut expected = rows_of(&repo, &bytes[..64 << 20]);
    expected.extend(rows_of(&repo, &bytes[64 << 20..]));
    let path = world.source().join("large");
    let first = world.save(&repo).await;
    let content = node(&repo, first.snapshot.unwrap(), &path).await.content;
    assert!(matches!(content, Content::Paged(list) if list.rows == expected.len() as u64));
    let again = world.save(&repo).await;
    assert_eq!((again.unchanged_files, again.bytes_read), (1, 0));
    assert_eq!(node(&repo, again.snapshot.unwrap(), &path).await.content, content);

    // Only packs of pages are small here.
    for object in repo.store().list("packs/").await.unwrap().iter().filter(|pack| pack.size < 1 << 20) {
        repo.store().delete(&object.key).await.unwrap();
    }
    let healed = world.save(&repo).await;
    assert_eq!((healed.unchanged_files, healed.bytes_read), (1, 0), "the rows are remembered");
    assert!(healed.new_bytes > 30 * expected.len() as u64, "{} bytes of pages", healed.new_bytes);
    assert_eq!(node(&repo, healed.snapshot.unwrap(), &path).await.content, content);
}

/// Renames a new file over each file between the walk and the read.
struct Replaces {
    counters: Counters,
    new: Vec<u8>,
}

impl Observer for Replaces {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Entry { path, .. } = event {
            let temporary = path.with_extension("new");
            fs::write(&temporary, &self.new).unwrap();
            fs::rename(temporary, path).unwrap();
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn wants_entries(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_is_renamed_over_before_it_is_read_is_saved_as_the_other() {
    let world = World::new();
    let first = world.repository().await;
    let new = noise(2, 700_000);
    let observer = Replaces { counters: Counters::default(), new: new.clone() };
    let repo = first.with_env(Env { observer: Arc::new(observer), ..world.env() });
    // Read whole, read in pieces, and read in spans: three ways, and the new one goes another.
    for (n, len) in [20, 600_000, (64 << 20) + 1].into_iter().enumerate() {
        world.write(&format!("f{n}"), &noise(1, len));
    }
    let saved = world.save(&repo).await;
    assert_eq!((saved.files, saved.failed), (3, 0));
    let expected = Content::Inline(rows_of(&repo, &new));
    for n in 0..3 {
        let node = node(&repo, saved.snapshot.unwrap(), &world.source().join(format!("f{n}"))).await;
        assert!(node.content == expected && node.size == 700_000 && node.problem.is_none(), "f{n}");
    }
}
