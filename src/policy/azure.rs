//! A role of Azure, and its assignment to the container with a condition on names, as commands of its tool.
//!
//! The action `blobs/add` makes blobs and cannot replace any; `blobs/write` does both.

use serde_json::json;

use super::{Grant, Policy, only_adds, root};
use crate::format::rights::{deleted_by, put_by};
use crate::store::Bucket;

const BLOBS: &str = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs";

pub(super) fn policy(bucket: Bucket<'_>, grant: &Grant<'_>) -> Policy {
    let role = grant.role;
    let (put, delete): (Vec<&str>, Vec<&str>) = (put_by(role).collect(), deleted_by(role).collect());
    let mut actions = vec![format!("{BLOBS}/read")];
    if !put.is_empty() {
        actions.push(format!("{BLOBS}/add/action"));
    }
    if !delete.is_empty() {
        actions.extend([format!("{BLOBS}/write"), format!("{BLOBS}/delete")]);
    }
    let title = format!("Lifeboat {role} of {}/{}", bucket.name, root(bucket));
    let account = bucket.account.map_or_else(|| "${AZURE_STORAGE_ACCOUNT:?}".to_owned(), str::to_owned);
    let container = bucket.name;
    let definition = json!({
        "Name": title,
        "Description": format!("What `lifeboat` asks of the store in the role {role}"),
        "Actions": [],
        "DataActions": actions,
        "AssignableScopes": ["<account>"],
    });
    let condition = condition(bucket, &put, &delete);
    let mut text = format!(
        "set -e\naccount=$(az storage account show --name \"{account}\" --query id --output tsv)\n\
         scope=\"$account/blobServices/default/containers/{container}\"\n\
         az role definition create --role-definition \"$(echo '{definition}' | sed \"s|<account>|$account|\")\"\n"
    );
    for principal in grant.principals {
        text += &format!(
            "az role assignment create --assignee '{principal}' --role '{title}' --scope \"$scope\""
        );
        if let Some(condition) = &condition {
            text += &format!(" \\\n  --condition-version 2.0 --condition \"{condition}\"");
        }
        text += "\n";
    }
    let mut notes =
        vec!["apply it with: sh FILE; a new role takes minutes until it can be assigned".to_owned()];
    if bucket.account.is_none() {
        notes.push("the script reads the account's name from AZURE_STORAGE_ACCOUNT".to_owned());
    }
    if only_adds(role) {
        notes.push("without the right to write nothing can be overwritten; ".to_owned() + super::CREATE_ONLY);
    }
    Policy { text, notes }
}

/// What each action is limited to, all of which must hold. A clause that is not about the action at hand holds.
fn condition(bucket: Bucket<'_>, put: &[&str], delete: &[&str]) -> Option<String> {
    let root = root(bucket);
    let path = |prefix: &&str| format!("@Resource[{BLOBS}:path] StringStartsWith '{root}{prefix}'");
    let any = |prefixes: &[&str]| prefixes.iter().map(path).collect::<Vec<_>>().join(" OR ");
    let mut clauses = Vec::new();
    if !root.is_empty() {
        let read = format!("ActionMatches{{'{BLOBS}/read'}}");
        clauses.push(format!("(!({read} AND NOT SubOperationMatches{{'Blob.List'}})) OR ({})", path(&"")));
        clauses.push(format!(
            "(!({read} AND SubOperationMatches{{'Blob.List'}})) OR (@Request[{BLOBS}:prefix] StringStartsWith '{root}')"
        ));
    }
    let other = |action: &str| format!("!(ActionMatches{{'{BLOBS}/{action}'}})");
    if !put.is_empty() {
        clauses.push(format!("({} AND {}) OR ({})", other("add/action"), other("write"), any(put)));
    }
    if !delete.is_empty() {
        clauses.push(format!("({}) OR ({})", other("delete"), any(delete)));
    }
    let joined: Vec<String> = clauses.into_iter().map(|clause| format!("({clause})")).collect();
    (!joined.is_empty()).then(|| joined.join(" AND "))
}
