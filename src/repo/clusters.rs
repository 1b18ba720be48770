//! Records of database clusters as they are stored.
//!
//! # Invariants
//! Of a cluster's records the highest valid one counts; two that differ under one number are an error. A record is valid if a
//! maintainer signed it, or a writer whom the one before it names; the first one any registered writer may sign. What a
//! maintainer signed is where the rest is counted from, so an error that a writer made is mended by a maintainer's record
//! with a higher number. A record that is there and cannot be read is an error if it would have counted: what it said of
//! the cluster, nobody knows.

use std::collections::BTreeMap;

use super::create::sign_and_put;
use super::error::RepoError;
use super::open::Repository;
use crate::crypto::{ObjectSealer, cluster_id, context, object_hash, object_salt};
use crate::format::cluster::{CLUSTER, Cluster, ClusterObject};
use crate::format::config::Authority;
use crate::format::layout::{self, ObjectName};
use crate::format::sealed::SealedObject;
use crate::id::{ClusterId, ObjectHash, WriterId};

/// A cluster's record that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCluster {
    /// The cluster.
    pub id: ClusterId,
    /// Its number among the cluster's records.
    pub number: u64,
    /// What it says.
    pub cluster: Cluster,
}

/// A record that was read, and whose signature is right.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    number: u64,
    author: WriterId,
    by_maintainer: bool,
    cluster: Cluster,
}

/// What is under the names of one cluster's records.
#[derive(Default)]
struct Found {
    read: Vec<Candidate>,
    /// What is damaged, with its number: nobody knows what it was.
    hidden: Vec<(u64, RepoError)>,
}

/// Of records of one cluster, in any order, the one that counts; `Err` with the number under which two differ.
fn choose(mut records: Vec<Candidate>) -> Result<Option<Candidate>, u64> {
    records.sort_by_key(|record| record.number);
    let base = records.iter().filter(|record| record.by_maintainer).map(|record| record.number).max();
    let mut current: Option<Candidate> = None;
    for group in records.chunk_by(|one, other| one.number == other.number) {
        let number = group[0].number;
        if base.is_some_and(|base| number < base) {
            continue;
        }
        let counts = |record: &&Candidate| match (&current, base) {
            (_, Some(base)) if number == base => record.by_maintainer,
            (Some(current), _) => current.cluster.writers.binary_search(&record.author).is_ok(),
            (None, _) => number == 0,
        };
        let mut valid = group.iter().filter(counts);
        let Some(first) = valid.next() else { continue };
        // Two runs that met a new cluster at the same time have said the same.
        if valid.any(|other| other.cluster != first.cluster) {
            return Err(number);
        }
        current = Some(first.clone());
    }
    Ok(current)
}

impl Repository {
    /// The id of the cluster that people call so.
    pub fn cluster_id(&self, name: &str) -> Result<ClusterId, RepoError> {
        let index = self.secrets.index.as_ref();
        let index = index.ok_or(RepoError::RoleForbids { action: "read what is known of clusters" })?;
        Ok(cluster_id(&index.derive(context::CLUSTER_ID), name))
    }

    /// The records that count of all clusters, in the order of the clusters' names.
    ///
    /// # Errors
    /// [`RepoError::ClusterConflict`], and whatever hides a record that may count.
    pub async fn clusters(&self) -> Result<Vec<StoredCluster>, RepoError> {
        let mut found = self.clusters_below(layout::CLUSTERS).await?;
        found.sort_by(|one, other| one.cluster.name.cmp(&other.cluster.name));
        Ok(found)
    }

    /// The record that counts of the cluster that people call so; `None` if there is none.
    pub async fn cluster(&self, name: &str) -> Result<Option<StoredCluster>, RepoError> {
        let prefix = format!("{}{}/", layout::CLUSTERS, self.cluster_id(name)?);
        Ok(self.clusters_below(&prefix).await?.pop())
    }

    async fn clusters_below(&self, prefix: &str) -> Result<Vec<StoredCluster>, RepoError> {
        let version = self.registry_version();
        let found = self.read_clusters(prefix).await;
        // A writer may have been registered since.
        self.refresh_registry().await?;
        if self.registry_version() == version { found } else { self.read_clusters(prefix).await }
    }

    async fn read_clusters(&self, prefix: &str) -> Result<Vec<StoredCluster>, RepoError> {
        let mut records: BTreeMap<ClusterId, Found> = BTreeMap::new();
        for object in self.store.list(prefix).await? {
            let Some(name @ ObjectName::Cluster(id, number, _)) = ObjectName::parse(object.key.as_str())
            else {
                continue;
            };
            let found = records.entry(id).or_default();
            match self.read_cluster(name).await {
                Ok(record) => found.read.push(record),
                Err(error) if error.is_invalid() => {}
                Err(error) if error.is_damage() => found.hidden.push((number, error)),
                Err(error) => return Err(error),
            }
        }
        let mut found = Vec::new();
        for (id, Found { read, hidden }) in records {
            let chosen = choose(read).map_err(|number| RepoError::ClusterConflict { cluster: id, number })?;
            let from = chosen.as_ref().map(|chosen| chosen.number);
            if let Some((_, error)) = hidden.into_iter().find(|(number, _)| Some(*number) > from) {
                return Err(error);
            }
            found.extend(chosen.map(|Candidate { number, cluster, .. }| StoredCluster {
                id,
                number,
                cluster,
            }));
        }
        Ok(found)
    }

    /// Reads a record: hash, signature, body.
    async fn read_cluster(&self, name: ObjectName) -> Result<Candidate, RepoError> {
        let key = name.key();
        let bytes = self.get_object(name, CLUSTER.max as u64).await?;
        let object = self.placed_cluster(name, &bytes)?;
        let mut body = object.sealed.body.to_vec();
        let opened = ObjectSealer::new(self.index_key()?, &object.sealed.salt, self.id(), CLUSTER.kind)
            .open_block(0, 1, &mut body);
        // Who signed it sealed it, so nobody else has spoilt it: it never said anything.
        opened.map_err(|_| RepoError::at(&key)(CLUSTER.broken("body of a cluster's record")))?;
        let cluster = Cluster::decode_body(&body).map_err(RepoError::at(&key))?;
        if self.cluster_id(&cluster.name)? != object.cluster {
            return Err(RepoError::at(&key)(CLUSTER.broken("name of a cluster")));
        }
        let by_maintainer = self.is_maintainer(&object.author);
        Ok(Candidate { number: object.number, author: object.author, by_maintainer, cluster })
    }

    /// Checks who signed a record, and that it was meant for its place; a key that does not open it can do so.
    pub async fn check_cluster(&self, name: ObjectName) -> Result<(), RepoError> {
        let bytes = self.get_object(name, CLUSTER.max as u64).await?;
        self.placed_cluster(name, &bytes).map(drop)
    }

    /// Who signed a record.
    pub(super) async fn cluster_author(&self, name: ObjectName) -> Result<WriterId, RepoError> {
        let bytes = self.get_object(name, CLUSTER.max as u64).await?;
        Ok(self.placed_cluster(name, &bytes)?.author)
    }

    fn placed_cluster<'a>(&self, name: ObjectName, bytes: &'a [u8]) -> Result<ClusterObject<'a>, RepoError> {
        let key = name.key();
        let object = ClusterObject::decode(bytes, &self.id()).map_err(RepoError::at(&key))?;
        let ObjectName::Cluster(id, number, _) = name else { return Err(RepoError::BadSignature { key }) };
        if (object.cluster, object.number) != (id, number) {
            return Err(RepoError::BadSignature { key });
        }
        let sealed = &object.sealed;
        self.verify(&key, (object.author, Authority::Writer), sealed.message, &sealed.signature)?;
        Ok(object)
    }

    /// Seals, signs and puts a record, and reads back which one counts: somebody may have put another one at the same time.
    ///
    /// # Errors
    /// [`RepoError::ClusterConflict`] then; [`RepoError::Format`] for what no reader accepts.
    pub async fn put_cluster(&self, number: u64, cluster: &Cluster) -> Result<StoredCluster, RepoError> {
        cluster.check()?;
        let (author, signing) = self.writer()?;
        let id = self.cluster_id(&cluster.name)?;
        let mut body = cluster.encode_body();
        let base = self.index_key()?;
        let salt = object_salt(base, &*self.env.random, &object_hash(&body))?;
        ObjectSealer::new(base, &salt, self.id(), CLUSTER.kind).seal_block(0, 1, &mut body)?;
        let sealed = SealedObject::unsigned(CLUSTER, salt, &[], &body);
        let object = ClusterObject { author, cluster: id, number, sealed };
        let named = |hash: ObjectHash| ObjectName::Cluster(id, number, hash);
        sign_and_put(&self.store, object.encode_unsigned(self.id()), &signing, named).await?;
        let counts = self.cluster(&cluster.name).await?;
        counts
            .filter(|counts| counts.number >= number)
            .ok_or(RepoError::ClusterConflict { cluster: id, number })
    }
}

#[cfg(test)]
mod tests;
