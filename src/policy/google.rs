//! Bindings of Google's own roles, each for some prefixes, as commands of its tool.
//!
//! `storage.objectCreator` makes objects and cannot replace any: replacing one takes the right to delete it.

use super::{Grant, Policy, only_adds, root};
use crate::format::rights::{deleted_by, put_by};
use crate::store::Bucket;

/// Terms of a condition: it may have twelve operators between them.
const TERMS: usize = 12;

pub(super) fn policy(bucket: Bucket<'_>, grant: &Grant<'_>) -> Policy {
    let name = bucket.name;
    let objects = format!("projects/_/buckets/{name}/objects/{}", root(bucket));
    let below = |prefix: &str| format!(r#"resource.name.startsWith("{objects}{prefix}")"#);
    let mut text = String::new();
    let mut bind = |what: &str, role: &str, terms: Vec<String>| {
        for principal in grant.principals {
            for (number, terms) in terms.chunks(TERMS).enumerate() {
                let title = format!("lifeboat-{}-{what}-{}", grant.role, number + 1);
                text += &format!(
                    "gcloud storage buckets add-iam-policy-binding 'gs://{name}' --member='{principal}' \\\n  \
                     --role=roles/storage.{role} --condition='title={title},expression={}'\n",
                    terms.join(" || ")
                );
            }
        }
    };
    let bucket_itself = format!(r#"resource.name == "projects/_/buckets/{name}""#);
    bind("read", "objectViewer", vec![below(""), bucket_itself]);
    let deleted: Vec<&str> = deleted_by(grant.role).collect();
    let created: Vec<&str> = put_by(grant.role).filter(|prefix| !deleted.contains(prefix)).collect();
    bind("create", "objectCreator", created.into_iter().map(below).collect());
    bind("change", "objectUser", deleted.into_iter().map(below).collect());
    let mut notes = vec![
        "apply it with: sh FILE; it adds to what the bucket permits, which must have uniform bucket-level access".to_owned(),
    ];
    if only_adds(grant.role) {
        notes
            .push("without the right to delete nothing can be overwritten; ".to_owned() + super::CREATE_ONLY);
    }
    Policy { text, notes }
}
