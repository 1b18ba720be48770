//! Credentials that a command prints (`credential_process`), renewed before they expire.

use std::io;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::Deserialize;

use super::super::options::StoreEnv;

/// Seconds before the expiry at which new ones are asked for.
const EARLY: i64 = 300;

#[derive(Debug, thiserror::Error)]
enum ProcessError {
    #[error("the credential_process cannot be run")]
    Run(#[source] io::Error),
    #[error("the credential_process failed ({status})")]
    Status { status: std::process::ExitStatus },
    /// The reply itself is a secret and is not shown.
    #[error("the credential_process printed no credentials of version 1")]
    Reply,
    #[error("the thread of the credential_process ended early")]
    Thread,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

struct Known {
    credential: Arc<AwsCredential>,
    /// Seconds since 1970.
    until: Option<i64>,
}

/// Runs a command for credentials and keeps them while they last.
pub(super) struct ProcessCredentials {
    command: String,
    env: StoreEnv,
    known: Mutex<Option<Known>>,
}

impl std::fmt::Debug for ProcessCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessCredentials").finish_non_exhaustive()
    }
}

impl ProcessCredentials {
    pub(super) fn new(command: String, env: StoreEnv) -> Self {
        Self { command, env, known: Mutex::new(None) }
    }

    fn fresh(&self) -> Option<Arc<AwsCredential>> {
        let now = self.env.clock.now().0 / 1_000_000_000;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .as_ref()
            .filter(|known| known.until.is_none_or(|until| now < until.saturating_sub(EARLY)))
            .map(|known| Arc::clone(&known.credential))
    }
}

fn ask(command: &str) -> Result<Known, ProcessError> {
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(ProcessError::Run)?;
    if !output.status.success() {
        return Err(ProcessError::Status { status: output.status });
    }
    let reply: Reply = serde_json::from_slice(&output.stdout).map_err(|_| ProcessError::Reply)?;
    let until = match reply.expiration {
        Some(text) => Some(text.parse::<jiff::Timestamp>().map_err(|_| ProcessError::Reply)?.as_second()),
        None => None,
    };
    if reply.version != 1 {
        return Err(ProcessError::Reply);
    }
    let credential = AwsCredential {
        key_id: reply.access_key_id,
        secret_key: reply.secret_access_key,
        token: reply.session_token,
    };
    Ok(Known { credential: Arc::new(credential), until })
}

#[async_trait::async_trait]
impl CredentialProvider for ProcessCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        if let Some(credential) = self.fresh() {
            return Ok(credential);
        }
        let command = self.command.clone();
        let failed = |error: ProcessError| object_store::Error::Unauthenticated {
            path: String::new(),
            source: Box::new(error),
        };
        let known = tokio::task::spawn_blocking(move || ask(&command))
            .await
            .map_err(|_| failed(ProcessError::Thread))?
            .map_err(failed)?;
        let credential = Arc::clone(&known.credential);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_taken_and_anything_else_refused_without_showing_it() {
        let good = r#"echo '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","Expiration":"2030-01-01T00:00:00Z"}'"#;
        let known = ask(good).unwrap();
        assert_eq!((known.credential.key_id.as_str(), known.until), ("A", Some(1_893_456_000)));
        for bad in [
            "false",
            "echo hunter2",
            r#"echo '{"Version":2,"AccessKeyId":"A","SecretAccessKey":"hunter2"}'"#,
            r#"echo '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"hunter2","Expiration":"soon"}'"#,
            "/nonexistent/command 2>/dev/null",
        ] {
            let error = ask(bad).err().unwrap();
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
