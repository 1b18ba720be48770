use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::crypto::sign::SigningKey;
use crate::crypto::{SecretKey, WriterSecret};
use crate::ops::snapshots::{SnapshotFilter, SnapshotInfo, list};
use crate::ops::tag::{TagEdit, tag};
use crate::ops::testing::{env, new_repository, put_snapshot};
use crate::random::{Random, RandomError};

/// The same bytes for whoever asks.
#[derive(Debug)]
struct Same;

impl Random for Same {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        out.fill(7);
        Ok(())
    }
}

#[tokio::test]
async fn randomness_that_repeats_gives_no_two_labels_one_key() {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    put_snapshot(&repo, 0, |_| {}).await;
    let listed = repo.list_snapshots().await.unwrap()[0];
    let repo = repo.with_env(crate::repo::Env { random: Arc::new(Same), ..env() });
    let mut salts = Vec::new();
    for tags in [vec!["a".to_owned()], vec!["b".to_owned()]] {
        let stored = repo.put_labels(&listed, (0, tags.clone())).await.unwrap();
        let name = ObjectName::Labels(listed.id, stored.hash);
        assert_eq!(repo.read_labels(name).await.unwrap().labels.tags, tags);
        let bytes = repo.get_object(name, LABELS.max as u64).await.unwrap();
        salts.push(LabelsObject::decode(&bytes, &repo.id()).unwrap().sealed.salt);
    }
    assert_ne!(salts[0], salts[1]);
}

fn set(text: &str) -> TagEdit {
    TagEdit { set: Some(vec![text.to_owned()]), ..TagEdit::default() }
}

async fn found(repo: &Repository) -> SnapshotInfo {
    list(repo, &SnapshotFilter::default()).await.unwrap().snapshots.remove(0)
}

/// A writer that gave its own snapshot the highest number there is does not have the last word.
#[tokio::test]
async fn a_maintainers_labels_count_whatever_number_a_writer_takes() {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    let (id, seed) = (WriterId::new([3; 16]), [4; 32]);
    let key = SigningKey::from_seed(SecretKey::from_bytes(seed)).verifying_key();
    repo.registry.add(id, (key, Authority::Writer));
    let mut writer = repo.clone();
    writer.secrets.writer = Some(WriterSecret { id, seed: SecretKey::from_bytes(seed) });
    put_snapshot(&writer, 0, |_| {}).await;
    let listed = repo.list_snapshots().await.unwrap()[0];
    writer.put_labels(&listed, (u64::MAX, vec!["held".into()])).await.unwrap();
    assert_eq!(found(&repo).await.snapshot.tags, ["held"]);
    for text in ["one", "two", "three", "four"] {
        let done = tag(&repo, &[found(&repo).await], &set(text)).await.unwrap();
        assert!(done[0].changed);
        assert_eq!(found(&repo).await.snapshot.tags, [text]);
    }
    // What a writer says after that counts no more, and it is told so.
    let refused = tag(&writer, &[found(&writer).await], &set("mine")).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(found(&repo).await.snapshot.tags, ["four"]);
}
