//! Permissions of stores, one for each role, made from the table of what a role stores and deletes ([`rights`]).
//!
//! A key decides what its holder can read and say; the store's own permission decides what its holder can destroy. This is
//! the second one, as each provider wants it written.
//!
//! # Invariants
//! A permission allows just the requests that the program makes in that role, below the repository's prefix. Where a provider
//! cannot say something, it is left out and a note says so.
//!
//! # Must not
//! Ask the store or read a key: a permission is made before there is a repository.
//!
//! [`rights`]: crate::format::rights

mod azure;
mod google;
mod s3;

use crate::format::config::Lock;
use crate::format::keyslot::Role;
use crate::format::rights::{deleted_by, put_by};
use crate::store::{Bucket, Cloud, StoreUrl};

/// Who enforces the permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Amazon S3: a policy of an identity, or of a bucket if somebody is named.
    Aws,
    /// MinIO: a policy of an identity.
    Minio,
    /// Ceph's gateway: a policy of a bucket.
    Ceph,
    /// Google Cloud Storage: bindings of roles, as a script for its tool.
    Gcs,
    /// Azure Blob Storage: a role and its assignment, as a script for its tool.
    Azure,
}

impl Provider {
    /// All providers.
    pub const ALL: [Self; 5] = [Self::Aws, Self::Minio, Self::Ceph, Self::Gcs, Self::Azure];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Minio => "minio",
            Self::Ceph => "ceph",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
        }
    }

    const fn cloud(self) -> Cloud {
        match self {
            Self::Aws | Self::Minio | Self::Ceph => Cloud::S3,
            Self::Gcs => Cloud::Google,
            Self::Azure => Cloud::Azure,
        }
    }
}

/// Why no permission can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The place is not one of this provider.
    #[error("{url} is no bucket of {provider}")]
    Place {
        /// Where.
        url: String,
        /// The provider's name.
        provider: &'static str,
    },
    /// The prefix has characters that mean something in permissions.
    #[error("the prefix {prefix:?} cannot be written in a permission: use letters, digits and -._=+@,")]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// This provider's permissions name who gets them.
    #[error("a permission of {provider} names who gets it")]
    NobodyNamed {
        /// The provider's name.
        provider: &'static str,
    },
    /// Nobody is called this.
    #[error("{principal:?} does not name anybody")]
    Principal {
        /// What was given.
        principal: String,
    },
    /// The store's objects are not locked by this program.
    #[error("objects are locked in S3 and its relatives only, not at {provider}")]
    Lock {
        /// The provider's name.
        provider: &'static str,
    },
}

/// What is to be permitted.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// What its holder does.
    pub role: Role,
    /// Who holds it, as the provider names people and services.
    pub principals: &'a [String],
    /// How the repository locks its objects.
    pub lock: Option<Lock>,
}

/// A permission, ready to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A JSON document, or a script for `sh`.
    pub text: String,
    /// How it is applied, and what it cannot say, a sentence each.
    pub notes: Vec<String>,
}

/// Writes the permission of a role for the repository at `url`.
///
/// # Errors
/// [`PolicyError`], if the place or a name does not fit.
pub fn generate(provider: Provider, url: &StoreUrl, grant: &Grant<'_>) -> Result<Policy, PolicyError> {
    let name = provider.name();
    let bucket = url.bucket().filter(|bucket| bucket.cloud == provider.cloud());
    let bucket = bucket.ok_or_else(|| PolicyError::Place { url: url.to_string(), provider: name })?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._=+@,/".contains(&b);
    if !bucket.prefix.bytes().all(plain) {
        return Err(PolicyError::Prefix { prefix: bucket.prefix.to_owned() });
    }
    let is_name = |c: char| c.is_ascii_graphic() && !"\"'\\`".contains(c);
    if let Some(principal) = grant.principals.iter().find(|p| p.is_empty() || !p.chars().all(is_name)) {
        return Err(PolicyError::Principal { principal: principal.clone() });
    }
    if grant.principals.is_empty() && matches!(provider, Provider::Ceph | Provider::Gcs | Provider::Azure) {
        return Err(PolicyError::NobodyNamed { provider: name });
    }
    if grant.lock.is_some() && provider.cloud() != Cloud::S3 {
        return Err(PolicyError::Lock { provider: name });
    }
    let mut policy = match provider {
        Provider::Aws => s3::policy(s3::Dialect::Aws, bucket, grant),
        Provider::Minio => s3::policy(s3::Dialect::Minio, bucket, grant),
        Provider::Ceph => s3::policy(s3::Dialect::Ceph, bucket, grant),
        Provider::Gcs => google::policy(bucket, grant),
        Provider::Azure => azure::policy(bucket, grant),
    };
    if !bucket.prefix.is_empty() && provider != Provider::Azure {
        policy.notes.push(
            "whoever holds it can see the names of everything in the bucket, or the store would not say that an object is \
             missing; a bucket of its own keeps them apart"
                .to_owned(),
        );
    }
    Ok(policy)
}

/// Where keys of this bucket begin: empty, or with a slash at its end.
fn root(bucket: Bucket<'_>) -> String {
    if bucket.prefix.is_empty() { String::new() } else { format!("{}/", bucket.prefix) }
}

/// Whether the role reads what a versioned bucket held before (`--as-of`).
fn reads_versions(role: Role) -> bool {
    role != Role::Writer
}

/// Whether the role stores something and deletes nothing.
fn only_adds(role: Role) -> bool {
    put_by(role).next().is_some() && deleted_by(role).next().is_none()
}

/// What a writer has to say, so that the store takes what it stores.
const CREATE_ONLY: &str =
    "give the option -o create_only=true to whoever uses it: it stores under new names only";
