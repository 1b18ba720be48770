//! Policies in Amazon's language, which MinIO and Ceph speak as well, each a part of it.

use serde::Serialize;
use serde_json::{Value, json};

use super::{CREATE_ONLY, Grant, Policy, only_adds, reads_versions, root};
use crate::format::keyslot::Role;
use crate::format::layout;
use crate::format::rights::{LOCKED_ANEW, deleted_by, locked_by, put_by};
use crate::store::Bucket;

/// Whose language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Aws,
    Minio,
    Ceph,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: String,
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<Value>,
    action: Vec<&'static str>,
    resource: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Value>,
}

/// What no role but an admin's may ever do, whatever else it is permitted elsewhere.
const NEVER: [&str; 7] = [
    "s3:BypassGovernanceRetention",
    "s3:DeleteBucket",
    "s3:DeleteBucketPolicy",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketPolicy",
    "s3:PutBucketVersioning",
    "s3:PutLifecycleConfiguration",
];

struct Author<'a> {
    dialect: Dialect,
    bucket: Bucket<'a>,
    grant: &'a Grant<'a>,
    statements: Vec<Statement>,
}

pub(super) fn policy(dialect: Dialect, bucket: Bucket<'_>, grant: &Grant<'_>) -> Policy {
    let mut author = Author { dialect, bucket, grant, statements: Vec::new() };
    author.look();
    author.put();
    author.lock();
    author.delete();
    author.deny();
    let document = Document { version: "2012-10-17", statement: author.statements };
    // Of strings and lists only: there is nothing in it that could not be written.
    let text = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
    Policy { text, notes: notes(dialect, bucket, grant) }
}

impl Author<'_> {
    fn bucket_arn(&self) -> String {
        format!("arn:aws:s3:::{}", self.bucket.name)
    }

    /// Everything below one prefix of the repository; all of it with an empty one.
    fn below(&self, prefix: &str) -> String {
        format!("{}/{}{prefix}*", self.bucket_arn(), root(self.bucket))
    }

    fn add(
        &mut self,
        what: &str,
        effect: &'static str,
        (action, resource): (Vec<&'static str>, Vec<String>),
        condition: Option<Value>,
    ) {
        let role = self.grant.role.name();
        let (first, rest) = role.split_at(1);
        let sid = format!("Lifeboat{}{rest}{what}", first.to_ascii_uppercase());
        self.statements.push(Statement {
            sid,
            effect,
            principal: self.principal(),
            action,
            resource,
            condition,
        });
    }

    /// Who it goes for: only a bucket's policy says that.
    fn principal(&self) -> Option<Value> {
        let named = |principal: &String| match (self.dialect, principal.split_once('$')) {
            (Dialect::Ceph, Some((tenant, user))) => format!("arn:aws:iam::{tenant}:user/{user}"),
            (Dialect::Ceph, None) if !principal.starts_with("arn:") => {
                format!("arn:aws:iam:::user/{principal}")
            }
            _ => principal.clone(),
        };
        let is_named = self.dialect != Dialect::Minio && !self.grant.principals.is_empty();
        is_named.then(|| json!({ "AWS": self.grant.principals.iter().map(named).collect::<Vec<_>>() }))
    }

    /// Listing and reading, which every role does everywhere.
    fn look(&mut self) {
        let versions = reads_versions(self.grant.role);
        let also = |first, second| if versions { vec![first, second] } else { vec![first] };
        // A read of what is missing is answered as such only to those who may list, and such a read names no prefix.
        let root = root(self.bucket);
        let condition = (!root.is_empty() && self.dialect != Dialect::Minio)
            .then(|| json!({ "StringLikeIfExists": { "s3:prefix": format!("{root}*") } }));
        let bucket = vec![self.bucket_arn()];
        self.add(
            "List",
            "Allow",
            (also("s3:ListBucket", "s3:ListBucketVersions"), bucket.clone()),
            condition,
        );
        let settings = vec!["s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning"];
        self.add("Settings", "Allow", (settings, bucket), None);
        let read = (also("s3:GetObject", "s3:GetObjectVersion"), vec![self.below("")]);
        self.add("Read", "Allow", read, None);
    }

    fn put(&mut self) {
        let places: Vec<String> = put_by(self.grant.role).map(|prefix| self.below(prefix)).collect();
        if places.is_empty() {
            return;
        }
        // Whoever may delete may as well overwrite; whoever may not must not.
        let create_only = only_adds(self.grant.role) && self.dialect == Dialect::Aws;
        let condition = create_only.then(|| json!({ "Null": { "s3:if-none-match": "false" } }));
        self.add("Put", "Allow", (vec!["s3:PutObject"], places), condition);
        if self.dialect != Dialect::Ceph {
            let keys = json!({ "Null": { "s3:x-amz-server-side-encryption-customer-algorithm": "false" } });
            self.add("NoForeignKeys", "Deny", (vec!["s3:PutObject"], vec![self.below("")]), Some(keys));
        }
    }

    /// Locking what is stored, and longer what is needed longer. Without the right to bypass it this only ever lengthens.
    fn lock(&mut self) {
        let Some(lock) = self.grant.lock else { return };
        self.add("LockState", "Allow", (vec!["s3:GetObjectRetention"], vec![self.below("")]), None);
        let places: Vec<String> = locked_by(self.grant.role).map(|prefix| self.below(prefix)).collect();
        if places.is_empty() {
            return;
        }
        let days = json!({ "s3:object-lock-remaining-retention-days": lock.days().to_string() });
        let condition = (self.dialect != Dialect::Ceph).then(|| json!({ "NumericLessThanEquals": days }));
        self.add("Lock", "Allow", (vec!["s3:PutObjectRetention"], places), condition);
        if deleted_by(self.grant.role).next().is_some() {
            // Who holds a snapshot may have the store keep what it needs, and the hold itself.
            let places =
                LOCKED_ANEW.into_iter().chain([layout::HOLDS]).map(|prefix| self.below(prefix)).collect();
            let hold = vec!["s3:GetObjectLegalHold", "s3:PutObjectLegalHold"];
            self.add("LegalHold", "Allow", (hold, places), None);
        }
    }

    fn delete(&mut self) {
        let places: Vec<String> = deleted_by(self.grant.role).map(|prefix| self.below(prefix)).collect();
        if places.is_empty() {
            return;
        }
        let mut action = vec!["s3:DeleteObject"];
        if self.grant.lock.is_some() {
            // What was deleted is given back when its lock is over; until then the store refuses it.
            action.push("s3:DeleteObjectVersion");
        }
        self.add("Delete", "Allow", (action, places), None);
    }

    /// What stays forbidden whatever else its holder is given.
    fn deny(&mut self) {
        let role = self.grant.role;
        if role == Role::Admin {
            return;
        }
        let mut action = NEVER.to_vec();
        if put_by(role).next().is_none() {
            action.push("s3:PutObject");
        }
        if deleted_by(role).next().is_none() {
            action.extend(["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectLegalHold"]);
        } else if self.grant.lock.is_none() {
            action.push("s3:DeleteObjectVersion");
        }
        if put_by(role).next().is_none() || self.grant.lock.is_none() {
            action.push("s3:PutObjectRetention");
        }
        action.sort_unstable();
        let places = vec![self.bucket_arn(), self.below("")];
        self.add("Never", "Deny", (action, places), None);
    }
}

fn notes(dialect: Dialect, bucket: Bucket<'_>, grant: &Grant<'_>) -> Vec<String> {
    let (role, name) = (grant.role, bucket.name);
    let mut notes = Vec::new();
    let one_policy = "a bucket has one policy: put the statements of several roles into one list";
    match dialect {
        Dialect::Aws if grant.principals.is_empty() => notes.push(format!(
            "apply it with: aws iam create-policy --policy-name lifeboat-{role} --policy-document file://FILE, and attach it \
             to the user or role"
        )),
        Dialect::Aws => notes.push(format!(
            "apply it with: aws s3api put-bucket-policy --bucket {name} --policy file://FILE; {one_policy}"
        )),
        Dialect::Ceph => notes.push(format!(
            "apply it as the bucket's owner, with: aws --endpoint-url URL s3api put-bucket-policy --bucket {name} --policy \
             file://FILE; {one_policy}"
        )),
        Dialect::Minio => {
            let user = grant.principals.first().map_or("USER", String::as_str);
            notes.push(format!(
                "apply it with: mc admin policy create ALIAS lifeboat-{role} FILE && mc admin policy attach ALIAS \
                 lifeboat-{role} --user {user}"
            ));
        }
    }
    if only_adds(grant.role) {
        notes.push(match dialect {
            Dialect::Aws => CREATE_ONLY.to_owned(),
            Dialect::Minio | Dialect::Ceph => {
                "this kind of store cannot forbid to overwrite: in a bucket with versions what was there stays, and \
                 --as-of reads it; with Object Lock it cannot be deleted either"
                    .to_owned()
            }
        });
    }
    if dialect == Dialect::Ceph && put_by(role).next().is_some() {
        notes.push(
            "this kind of store cannot forbid keys of its clients' own (SSE-C), nor limit how long something is locked".to_owned(),
        );
    }
    notes
}
