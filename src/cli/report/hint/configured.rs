//! The next step after an error of the configuration, of its jobs, or of what starts them.

use super::super::super::error::CliError;

/// What to do next.
pub(super) fn hint(error: &CliError) -> Option<String> {
    Some(match error {
        CliError::Config { .. } => "see all of it: lifeboat config check".to_owned(),
        CliError::UnsafeConfig(refused) => format!("look at what it says; if that is right, run: {}", refused.fix),
        CliError::NoJobs => "write one into the configuration; lifeboat config show tells what it says now".to_owned(),
        CliError::RepositoryOfJobs => "leave it out".to_owned(),
        CliError::HookTime { .. } => "see what it waits for; a longer time: hooks.timeout of the job".to_owned(),
        CliError::NotCarried { .. } => "write it into the configuration, or leave it out".to_owned(),
        CliError::OtherUnit { .. } => {
            "if this one is to take its place: lifeboat schedule remove, and again".to_owned()
        }
        CliError::TokenOfSeveral { .. } => {
            "leave it out, and give each repository its own: options = { \"https.token_file\" = \"FILE\" }".to_owned()
        }
        CliError::ForeignUnit { .. } => "look at it, and move it away if it is not needed".to_owned(),
        CliError::Systemctl { .. } => {
            "see what systemd says; without it: lifeboat schedule install --cron, or --into DIR".to_owned()
        }
        CliError::AtWork { .. } => "wait until it has ended".to_owned(),
        CliError::State { .. } => "name a place for it with --state-dir".to_owned(),
        CliError::NoJob { nearest: Some(name), .. } => format!("perhaps {name} is meant; see all: lifeboat config show"),
        CliError::NoJob { .. } => "see which there are: lifeboat config show".to_owned(),
        CliError::WhichRepository { .. } => "name one of them with --repo".to_owned(),
        CliError::NoCredential { .. } => {
            "run it in a unit with LoadCredential=, as `lifeboat schedule install` writes it, or give --key-file or --password-file"
                .to_owned()
        }
        _ => return None,
    })
}
