//! `ls`: the entries of a snapshot.

use lifeboat::format::node::{FileTime, Node, NodeKind, Problem};
use lifeboat::ops::ls::{LsOptions, ls};
use lifeboat::ops::snapshots::resolve;
use lifeboat::repo::Task;
use serde_json::{Map, Value, json};

use super::super::args::LsArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::output::Output;
use super::super::render::json::put_bytes;
use super::super::render::{mode, sanitize, time};
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: LsArgs) -> Result<Exit, CliError> {
    let repository = session.repository(Task::Look).await?;
    let snapshot =
        resolve(&repository, &args.location.selector, &args.select.filter(&session.directory)).await?;
    session.clear();
    let path = args.location.path.unwrap_or_default();
    let options = LsOptions { snapshot, path, recursive: !args.no_recursive };
    let (output, cancel) = (&mut session.output, session.env.cancel.clone());
    let mut failure = None;
    let listed = ls(&repository, options, |path, node| {
        if failure.is_none()
            && let Err(error) = show(output, args.long, path, node)
        {
            failure = Some(error);
            // Nobody reads on, so nothing more need be fetched.
            cancel.raise();
        }
    })
    .await;
    match failure {
        Some(error) => Err(error),
        None => Ok(listed.map(|()| Exit::Done)?),
    }
}

fn show(output: &mut Output, long: bool, path: &[u8], node: &Node) -> Result<(), CliError> {
    if output.voice().json {
        return output.json(&object(path, node));
    }
    let name = sanitize::name(path);
    if long { output.text(&long_line(&name, node)) } else { output.text(&format!("{name}\n")) }
}

fn long_line(name: &str, node: &Node) -> String {
    let size = match node.kind {
        NodeKind::CharDevice | NodeKind::BlockDevice => {
            format!("{}, {}", rustix::fs::major(node.rdev), rustix::fs::minor(node.rdev))
        }
        _ => node.size.to_string(),
    };
    let arrow = match node.kind {
        NodeKind::Symlink => format!(" -> {}", sanitize::name(&node.target)),
        _ => String::new(),
    };
    let problem = node.problem.map_or_else(String::new, |problem| format!("  [{}]", word(problem)));
    format!(
        "{} {:8} {:8} {size:>12} {} {name}{arrow}{problem}\n",
        mode::mode(node.kind, node.mode),
        mode::owner(&node.user, node.uid),
        mode::owner(&node.group, node.gid),
        time::local_seconds(node.mtime.seconds),
    )
}

fn word(problem: Problem) -> &'static str {
    match problem {
        Problem::Unreadable => "unreadable",
        Problem::Changed => "changed",
    }
}

fn object(path: &[u8], node: &Node) -> Value {
    let when = |at: FileTime| time::utc_parts(at.seconds, at.nanos);
    let mut out = Map::new();
    for (key, value) in [
        ("type", json!("entry")),
        ("kind", json!(mode::kind(node.kind))),
        ("mode", json!(node.mode)),
        ("uid", json!(node.uid)),
        ("gid", json!(node.gid)),
        ("size", json!(node.size)),
        ("mtime", json!(when(node.mtime))),
        ("problem", json!(node.problem.map(word))),
    ] {
        out.insert(key.to_owned(), value);
    }
    put_bytes(&mut out, "path", path);
    put_bytes(&mut out, "user", &node.user);
    put_bytes(&mut out, "group", &node.group);
    if node.kind == NodeKind::Symlink {
        put_bytes(&mut out, "target", &node.target);
    }
    Value::Object(out)
}
