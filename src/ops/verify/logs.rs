//! Files of databases' logs: each read in full, its hash, its signature and its place. What they hold is gone through by
//! [`crate::ops::postgres::verify`].

use futures::StreamExt;

use super::finding::{Finding, Problem};
use super::read::twice;
use crate::error::Error;
use crate::format::layout::{self, ObjectName};
use crate::repo::Repository;

/// Objects that are held at the same time; one may be as large as a segment.
const AT_ONCE: usize = 2;

/// What was looked at.
#[derive(Default)]
pub(super) struct Logs {
    pub(super) findings: Vec<Finding>,
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

/// Reads every file of every log.
pub(super) async fn check_logs(repo: &Repository) -> Result<Logs, Error> {
    let mut found = Logs::default();
    let listed = repo.list_logs(layout::STREAMS).await?;
    let mut checks = futures::stream::iter(&listed)
        .map(|listed| async move {
            let key = ObjectName::Log(listed.name).key();
            let checked = match twice(repo, &key, || repo.check_log(listed)).await {
                Ok(Err(Problem::Missing)) if !repo.is_listed(ObjectName::Log(listed.name)).await? => {
                    Ok(Ok(()))
                }
                checked => checked,
            };
            Ok::<_, Error>((key, listed.size, checked?))
        })
        .buffer_unordered(AT_ONCE);
    while let Some(checked) = checks.next().await {
        let (key, size, checked) = checked?;
        found.findings.extend(checked.err().map(|problem| Finding::damage(key, problem)));
        found.objects += 1;
        found.bytes += size;
    }
    Ok(found)
}
