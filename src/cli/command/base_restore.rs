//! `postgres restore`: a cluster as it was at a moment.

use lifeboat::database::conf;
use lifeboat::ops::base::restore::{Action, BaseRestoreOptions, Follow, Target, base_restore};
use lifeboat::repo::Task;

use super::super::args::{ActionArg, BaseRestoreArgs, EndArg, TimelineArg};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::paths;
use super::super::render::{base, sanitize};
use super::super::secret::Secret;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: BaseRestoreArgs) -> Result<Exit, CliError> {
    let restore_command = restore_command(session, &args.cluster)?;
    let options = BaseRestoreOptions {
        restore_command,
        directory: paths::absolute(&args.dir, &session.directory),
        target: target(&args),
        exclusive: args.exclusive,
        action: args.target_action.map(|action| match action {
            ActionArg::Pause => Action::Pause,
            ActionArg::Promote => Action::Promote,
            ActionArg::Shutdown => Action::Shutdown,
        }),
        follow: match args.timeline {
            TimelineArg::Latest => Follow::Latest,
            TimelineArg::Current => Follow::Current,
            TimelineArg::Number(number) => Follow::Number(number),
        },
        cluster: args.cluster,
        spaces: args.tablespace_map,
        snapshot: args.snapshot,
        standby: args.standby,
        dry_run: args.dry_run,
    };
    let repository = session.repository(Task::Restore).await?;
    let done = base_restore(&repository, &options).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&base::restore_json(&done, options.dry_run))?;
    } else if !session.voice().quiet {
        let directory = sanitize::path(&options.directory);
        session.output.text(&base::restore_text(&done, &directory, options.dry_run))?;
    }
    Ok(Exit::Done)
}

fn target(args: &BaseRestoreArgs) -> Target {
    let time = args.target_time.map(|time| Target::Time(time.0));
    let lsn = args.target_lsn.map(Target::Lsn);
    let name = args.target_name.clone().map(Target::Name);
    let xid = args.target_xid.map(Target::Xid);
    let end = args.target.map(|end| match end {
        EndArg::Latest => Target::Latest,
        EndArg::Immediate => Target::Immediate,
    });
    // The parser asks for one of them.
    time.or(lsn).or(name).or(xid).or(end).unwrap_or(Target::Latest)
}

/// What the server runs for each file of its log: this program, with the repository and the key of this run.
fn restore_command(session: &Session, cluster: &str) -> Result<String, CliError> {
    let program = std::env::current_exe().map_err(CliError::Setup)?;
    let settings = &session.settings;
    let mut words = vec![program.to_string_lossy().into_owned()];
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    let file =
        |path: &std::path::Path| paths::absolute(path, &session.directory).to_string_lossy().into_owned();
    // The server runs it in its data directory.
    let url = settings.place.url();
    option("--repo", &url.local_path().map_or_else(|| url.to_string(), file));
    match &settings.secret {
        Secret::KeyFile(path) => option("--key-file", &file(path)),
        Secret::PasswordFile(path) => option("--password-file", &file(path)),
        Secret::WordsFile(path) => option("--words-file", &file(path)),
        Secret::PasswordCommand(command) => option("--password-command", &command.to_string_lossy()),
        // It stands in no command: the server has to have it in its environment.
        Secret::Password(..) | Secret::Ask => {
            session.warn("the server needs the repository's password in LIFEBOAT_PASSWORD, because it stands in no file");
        }
    }
    for (key, value) in &settings.store.options {
        if is_secret(key) {
            // Every user of the database may ask for the command, and every user of the machine sees it run.
            session
                .warn(&format!("the server needs {key} in its environment, because it stands in no command"));
        } else {
            option("--option", &format!("{key}={value}"));
        }
    }
    option("--cluster", cluster);
    let (program, rest) = words.split_at(1);
    let mut command = conf::word(&program[0]);
    command.push_str(" postgres archive-get");
    for word in rest {
        command.push(' ');
        command.push_str(&conf::word(word));
    }
    command.push_str(" %f \"%p\"");
    Ok(command)
}

/// Whether an option of a store holds what nobody may see, and not only its name or where it is.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names = ["secret", "password", "token", "_key"].iter().any(|part| key.contains(part));
    names && !["_id", "_file", "_command"].iter().any(|end| key.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_store_are_told_from_its_other_options() {
        for key in ["secret_access_key", "AWS_SESSION_TOKEN", "token", "azure_client_secret", "sas_key"] {
            assert!(is_secret(key), "{key}");
        }
        for key in
            ["region", "endpoint", "access_key_id", "https.token_file", "https.token_command", "ssh.command"]
        {
            assert!(!is_secret(key), "{key}");
        }
    }
}
