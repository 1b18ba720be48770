//! Locks of objects, and what a bucket still holds of what was deleted.
//!
//! # Invariants
//! Nothing is deleted for good that the store says is locked: it decides, and is never asked to bypass a lock.

use std::time::Duration;

use object_store::{PutOptions, PutPayload};

use super::aws::{Retain, Vault, Version};
use super::error::{Operation, StoreError};
use super::{Key, Store};
use crate::clock::{Timestamp, later};
use crate::format::config::Lock;
use crate::format::layout::PROBE;

/// By how much this machine's clock may be ahead of the store's when a lock is said to be over.
const SKEW: Duration = Duration::from_secs(300);

/// What is left of an object that was deleted: a version below the mark that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored.
    pub stored: Timestamp,
    /// When it was deleted.
    pub deleted: Timestamp,
    version: String,
    marks: Vec<String>,
}

/// What became of something hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// It is gone.
    Gone,
    /// The store keeps it until then; `None` where that is not known, as under a legal hold.
    Locked(Option<Timestamp>),
}

impl Store {
    /// From now on everything that is stored is locked for this long, where the store can. Says whether it can.
    pub fn set_lock(&self, lock: Lock) -> bool {
        // A repository has one configuration, so a second call says the same.
        self.0.lock.get_or_init(|| lock);
        self.0.vault.is_some()
    }

    /// How what is stored is locked; `None` in a store that cannot.
    pub fn lock(&self) -> Option<Lock> {
        self.0.vault.as_ref().and(self.0.lock.get().copied())
    }

    /// Whether the bucket locks objects: one that does not may take the headers and forget them.
    pub async fn can_lock(&self) -> Result<bool, StoreError> {
        let Some(vault) = &self.0.vault else { return Ok(false) };
        self.attempts(Operation::Root, "", || async {
            self.sorted(Operation::Root, "", vault.can_lock().await)
        })
        .await
    }

    /// Says of an object that is about to be stored how long it is kept. What a store is tried out with is not locked.
    pub(super) fn mark_locked(&self, key: &Key, payload: &PutPayload, options: &mut PutOptions) {
        if let Some(lock) = self.lock()
            && !key.as_str().starts_with(PROBE)
        {
            let until = later(self.0.env.clock.now(), lock.period());
            options.extensions.insert(Retain { mode: lock.mode, until, payload: payload.clone() });
        }
    }

    /// Until when an object is locked; `None` if it is not, or the store does not know of locks.
    pub async fn locked_until(&self, key: &Key) -> Result<Option<Timestamp>, StoreError> {
        let Some(vault) = &self.0.vault else { return Ok(None) };
        let path = self.path(key.as_str());
        let ask =
            || async { self.sorted(Operation::Get, key.as_str(), vault.locked_until(&path, None).await) };
        self.attempts(Operation::Get, key.as_str(), ask).await
    }

    /// Locks an object until then; one that is locked longer stays so.
    pub async fn retain(&self, key: &Key, until: Timestamp) -> Result<(), StoreError> {
        let (Some(vault), Some(lock)) = (&self.0.vault, self.lock()) else { return Ok(()) };
        let path = self.path(key.as_str());
        let ask = || async {
            self.sorted(Operation::Lock, key.as_str(), vault.retain(&path, lock.mode, until).await)
        };
        match self.attempts(Operation::Lock, key.as_str(), ask).await {
            // To lock it for less than another machine did, whose clock is ahead, is refused.
            Err(StoreError::Denied { .. }) if self.locked_until(key).await.ok().flatten() >= Some(until) => {
                Ok(())
            }
            result => result,
        }
    }

    /// Keeps an object, whatever the time, until the same is called to keep it no more: a legal hold. It may be called again.
    /// Nothing happens in a store without locks.
    pub async fn set_legal_hold(&self, key: &Key, on: bool) -> Result<(), StoreError> {
        let Some(vault) = &self.0.vault else { return Ok(()) };
        let path = self.path(key.as_str());
        let ask = || async {
            self.sorted(Operation::Lock, key.as_str(), vault.set_legal_hold(&path, None, on).await)
        };
        self.attempts(Operation::Lock, key.as_str(), ask).await
    }

    /// Whether a legal hold keeps an object.
    pub async fn has_legal_hold(&self, key: &Key) -> Result<bool, StoreError> {
        let Some(vault) = &self.0.vault else { return Ok(false) };
        let path = self.path(key.as_str());
        let ask =
            || async { self.sorted(Operation::Get, key.as_str(), vault.has_legal_hold(&path, None).await) };
        self.attempts(Operation::Get, key.as_str(), ask).await
    }

    /// Takes the legal hold off what is left of a deleted object, if one keeps it; says whether one did.
    pub async fn release_hidden(&self, hidden: &Hidden) -> Result<bool, StoreError> {
        let Some(vault) = &self.0.vault else { return Ok(false) };
        let (key, version) = (hidden.key.as_str(), Some(hidden.version.as_str()));
        let path = self.path(key);
        let ask = || async {
            let held = self.sorted(Operation::Get, key, vault.has_legal_hold(&path, version).await)?;
            if held {
                self.sorted(Operation::Lock, key, vault.set_legal_hold(&path, version, false).await)?;
            }
            Ok(held)
        };
        self.attempts(Operation::Lock, key, ask).await
    }

    /// Whether the store really keeps what is locked: an object is stored under a lock of a minute, and the store is asked to
    /// delete it for good. What is left of it goes with a later collection.
    pub async fn try_lock(&self, key: &Key) -> Result<bool, StoreError> {
        let (Some(vault), Some(lock)) = (&self.0.vault, self.lock()) else { return Ok(false) };
        self.put(key, vec![bytes::Bytes::from_static(b"lifeboat")]).await?;
        let until = later(self.0.env.clock.now(), Duration::from_secs(60));
        let path = self.path(key.as_str());
        self.sorted(Operation::Lock, key.as_str(), vault.retain(&path, lock.mode, until).await)?;
        let found = self.all_versions(vault, key.as_str()).await?;
        let mut kept = false;
        for version in found.iter().filter(|version| !version.deleted) {
            let deleted = vault.delete_version(&path, &version.id).await;
            if let Err(error) = self.sorted(Operation::Delete, key.as_str(), deleted) {
                // A refusal that no lock explains says nothing of locks.
                self.refused_until(vault, (key, &version.id), error).await?;
                kept = true;
            }
        }
        if kept {
            self.delete(key).await?;
        }
        Ok(kept)
    }

    async fn all_versions(&self, vault: &Vault, prefix: &str) -> Result<Vec<Version>, StoreError> {
        let whole = self.path(prefix.trim_end_matches('/'));
        let slash = if prefix.ends_with('/') { "/" } else { "" };
        let whole = format!("{whole}{slash}");
        let ask = || async {
            let mut found = Vec::new();
            let listed = vault.versions(&whole, |version| found.push(version)).await;
            self.sorted(Operation::List, prefix, listed.map(|()| found))
        };
        self.attempts(Operation::List, prefix, ask).await
    }

    /// What is left of deleted objects below a prefix, which ends with `/`.
    pub async fn hidden(&self, prefix: &str) -> Result<Vec<Hidden>, StoreError> {
        let Some(vault) = &self.0.vault else { return Ok(Vec::new()) };
        Ok(hidden(self.all_versions(vault, prefix).await?, self.0.url.prefix()))
    }

    /// Deletes for good what is left of a deleted object, unless the store keeps it.
    pub async fn sweep(&self, hidden: &Hidden) -> Result<Swept, StoreError> {
        let Some(vault) = &self.0.vault else { return Ok(Swept::Locked(None)) };
        let key = hidden.key.as_str();
        let path = self.path(key);
        let delete = |version: String| {
            let path = path.clone();
            self.attempts(Operation::Delete, key, move || {
                let (path, version) = (path.clone(), version.clone());
                async move { self.sorted(Operation::Delete, key, vault.delete_version(&path, &version).await) }
            })
        };
        match delete(hidden.version.clone()).await {
            Ok(()) => {}
            Err(error) => {
                let until = self.refused_until(vault, (&hidden.key, &hidden.version), error).await?;
                return Ok(Swept::Locked(until));
            }
        }
        // A later version may be kept for longer than this one was. Without the marks it would be there again.
        let is_alone = async {
            let left = self.all_versions(vault, key).await?;
            Ok::<_, StoreError>(!left.iter().any(|version| !version.deleted && version.key == path.as_ref()))
        };
        if hidden.marks.is_empty() || !is_alone.await? {
            return Ok(Swept::Gone);
        }
        for mark in hidden.marks.clone() {
            delete(mark).await?;
        }
        Ok(Swept::Gone)
    }

    /// Until when the lock lasts for which a version was not deleted; `None` if a legal hold keeps it. Stores refuse in
    /// different ways, so the lock is looked at.
    ///
    /// # Errors
    /// The refusal itself, if no lock explains it: a right is missing, or the store does not answer.
    async fn refused_until(
        &self,
        vault: &Vault,
        (key, version): (&Key, &str),
        error: StoreError,
    ) -> Result<Option<Timestamp>, StoreError> {
        if !matches!(error, StoreError::Denied { .. } | StoreError::Failed { .. }) {
            return Err(error);
        }
        let path = self.path(key.as_str());
        let until =
            self.sorted(Operation::Get, key.as_str(), vault.locked_until(&path, Some(version)).await)?;
        match until.filter(|until| later(*until, SKEW) > self.0.env.clock.now()) {
            Some(until) => Ok(Some(until)),
            // Whoever may not ask has learned nothing that explains it.
            None if vault.has_legal_hold(&path, Some(version)).await.unwrap_or(false) => Ok(None),
            None => Err(error),
        }
    }

    fn sorted<T>(
        &self,
        operation: Operation,
        key: &str,
        result: object_store::Result<T>,
    ) -> Result<T, StoreError> {
        result.map_err(|error| self.classify(operation, key, error))
    }
}

/// Of all versions, in the order of a listing, what is hidden. The marks of a name go with the last of its versions.
fn hidden(versions: Vec<Version>, root: &str) -> Vec<Hidden> {
    let mut found: Vec<Hidden> = Vec::new();
    let mut rest = versions.into_iter().peekable();
    while let Some(newest) = rest.next() {
        let mut of_name = vec![newest];
        while let Some(version) = rest.next_if(|version| version.key == of_name[0].key) {
            of_name.push(version);
        }
        let name = of_name[0].key.strip_prefix(root).unwrap_or(&of_name[0].key).trim_start_matches('/');
        let (Ok(key), true) = (Key::new(name), of_name[0].deleted && of_name[0].latest) else { continue };
        let deleted = of_name[0].modified;
        let (marks, versions): (Vec<Version>, Vec<Version>) = of_name.into_iter().partition(|v| v.deleted);
        let mut marks: Vec<String> = marks.into_iter().map(|mark| mark.id).collect();
        let count = versions.len();
        for (number, version) in versions.into_iter().enumerate() {
            let marks = if number + 1 == count { std::mem::take(&mut marks) } else { Vec::new() };
            let (size, stored) = (version.size, version.modified);
            found.push(Hidden { key: key.clone(), size, stored, deleted, version: version.id, marks });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{reply, s3, server};
    use super::*;
    use crate::class::Class;
    use crate::format::config::LockMode;

    const LOCK: Lock = Lock { mode: LockMode::Compliance, seconds: 86_400 };

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[tokio::test]
    async fn what_is_stored_says_how_long_it_is_kept_and_signs_for_it() {
        let (address, requests) = server(reply("200 OK", ""));
        let store = s3(&address, "s3://bucket/pre").await;
        let put = |name| {
            let store = store.clone();
            async move { store.put(&key(name), vec!["x".into(), "y".into()]).await.unwrap() }
        };
        put("packs/before").await;
        assert!(store.set_lock(LOCK));
        put("packs/a").await;
        put("probe/a").await;
        let requests: Vec<String> = requests.lock().unwrap().iter().map(|r| r.to_ascii_lowercase()).collect();
        let locked = |request: &&String| request.contains("x-amz-object-lock-mode: compliance\r");
        assert_eq!(requests.iter().filter(locked).count(), 1);
        assert!(
            locked(&&requests[1]) && requests[1].contains("x-amz-object-lock-retain-until-date: 2"),
            "{}",
            requests[1]
        );
        // A checksum of the whole, as such a request must have; all of it under one signature.
        assert!(requests[1].contains("x-amz-checksum-sha256: "), "{}", requests[1]);
        let signed =
            requests[1].split_once("signedheaders=").unwrap().1.split(',').next().unwrap().to_owned();
        for header in
            ["host", "x-amz-checksum-sha256", "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"]
        {
            assert!(signed.split(';').any(|name| name == header), "{header}: {signed}");
        }
        assert_eq!(requests[1].matches("authorization: ").count(), 1, "{}", requests[1]);
    }

    #[tokio::test]
    async fn only_a_bucket_that_says_so_locks_anything() {
        for (status, text, wanted) in [
            ("200 OK", "<C><ObjectLockEnabled>Enabled</ObjectLockEnabled></C>", true),
            ("200 OK", "<C/>", false),
            ("404 Not Found", "<Error><Code>ObjectLockConfigurationNotFoundError</Code></Error>", false),
            ("501 Not Implemented", "<Error><Code>NotImplemented</Code></Error>", false),
        ] {
            let (address, requests) = server(reply(status, text));
            assert_eq!(
                s3(&address, "s3://bucket/pre").await.can_lock().await.unwrap(),
                wanted,
                "{status} {text}"
            );
            let request = requests.lock().unwrap()[0].clone();
            assert!(
                request.starts_with("GET /bucket/?object-lock= ")
                    || request.starts_with("GET /bucket?object-lock= "),
                "{request}"
            );
        }
        let (address, _) = server(reply("403 Forbidden", ""));
        let error = s3(&address, "s3://bucket").await.can_lock().await.unwrap_err();
        assert_eq!(error.class(), Class::Denied);
        let (address, _) = server(reply("503 Slow Down", ""));
        let error = s3(&address, "s3://bucket").await.can_lock().await.unwrap_err();
        assert_eq!(error.class(), Class::Unreachable);
    }

    #[tokio::test]
    async fn an_answer_that_makes_no_sense_is_an_error_and_never_an_empty_listing() {
        for text in [
            "",
            "<html>busy</html>",
            "<L><Version><Key>packs/a</Key></Version></L>",
            "<L><Version><Key>packs/a</Key><VersionId>v</VersionId><IsLatest>true</IsLatest><LastModified>soon</LastModified>\
             <Size>1</Size></Version></L>",
            "<L><IsTruncated>true</IsTruncated></L>",
            "<L><IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker><NextVersionIdMarker>b</NextVersionIdMarker></L>",
        ] {
            let (address, _) = server(reply("200 OK", text));
            let store = s3(&address, "s3://bucket").await;
            assert!(store.hidden("packs/").await.is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_refusal_that_no_lock_explains_is_a_missing_right() {
        let (address, _) = server(reply("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"));
        let store = s3(&address, "s3://bucket").await;
        store.set_lock(LOCK);
        let versions = vec![version("packs/aa/x", "m", true, true), version("packs/aa/x", "v", false, false)];
        let error = store.sweep(&hidden(versions, "")[0]).await.unwrap_err();
        assert_eq!(error.class(), Class::Denied);
        assert_eq!(store.retain(&key("packs/a"), Timestamp(0)).await.unwrap_err().class(), Class::Denied);
    }

    fn version(key: &str, id: &str, deleted: bool, latest: bool) -> Version {
        let (key, id) = (key.to_owned(), id.to_owned());
        Version { key, id, latest, deleted, modified: Timestamp(1), size: 7 }
    }

    #[test]
    fn only_what_was_deleted_is_hidden_and_its_marks_go_last() {
        let listing = vec![
            version("pre/packs/aa/x", "m2", true, true),
            version("pre/packs/aa/x", "v2", false, false),
            version("pre/packs/aa/x", "m1", true, false),
            version("pre/packs/aa/x", "v1", false, false),
            version("pre/packs/bb/y", "now", false, true),
            version("pre/packs/bb/y", "before", false, false),
            version("pre/packs//odd", "m", true, true),
        ];
        let found = hidden(listing, "pre");
        let ids: Vec<(&str, &[String])> =
            found.iter().map(|h| (h.version.as_str(), h.marks.as_slice())).collect();
        assert_eq!(ids, [("v2", &[][..]), ("v1", &["m2".to_owned(), "m1".to_owned()][..])]);
        assert!(found.iter().all(|hidden| hidden.key.as_str() == "packs/aa/x" && hidden.size == 7));
    }
}
