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
        let bytes = repo.get_object(name, LABELS_MAX as u64).await.unwrap();
        salts.push(LabelsObject::decode(&bytes, &repo.id()).unwrap().salt);
    }
    assert_ne!(salts[0], salts[1]);
}
