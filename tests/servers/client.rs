//! The program against a server, as one of its users; and single requests, as someone who is up to no good would make them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::server::{Server, script};

/// A machine with a key file and the credentials of one user of the server.
pub(crate) struct Client<'a> {
    server: &'a Server,
    /// Home, caches and keys.
    place: tempfile::TempDir,
    user: &'a str,
    repository: String,
    /// Where the program finds the server, if not where it is.
    way: Option<String>,
}

impl<'a> Client<'a> {
    /// The owner of the buckets.
    pub(crate) fn owner(server: &'a Server, bucket: &str) -> Self {
        let repository = format!("s3://{bucket}/repository");
        Self { server, place: tempfile::tempdir().unwrap(), user: "test", repository, way: None }
    }

    /// The same repository and key with the credentials of another user, on a machine that has seen nothing.
    pub(crate) fn as_user(&self, user: &'a str) -> Self {
        let (place, repository) = (tempfile::tempdir().unwrap(), self.repository.clone());
        let other = Self { server: self.server, place, user, repository, way: self.way.clone() };
        std::fs::copy(self.path("key"), other.path("key")).unwrap();
        other
    }

    /// The same user on another machine, whose requests go through somebody at this port.
    pub(crate) fn through(&self, port: u16) -> Self {
        let way = Some(format!("http://127.0.0.1:{port}"));
        Self { way, ..self.as_user(self.user) }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    /// Runs the program.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(arguments);
        command.env_clear().env("HOME", self.place.path()).envs(&self.server.environment);
        command.envs(self.way.iter().map(|way| ("AWS_ENDPOINT_URL", way)));
        command.env("LIFEBOAT_REPO", &self.repository);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("AWS_ACCESS_KEY_ID", self.user).env("AWS_SECRET_ACCESS_KEY", secret(self.user));
        if self.path("key").exists() {
            command.env("LIFEBOAT_KEY_FILE", self.path("key"));
        }
        command.output().unwrap()
    }

    /// Runs the program and expects this exit code; gives standard output, or what it said if it wrote nothing there.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let user = self.user;
        assert_eq!(output.status.code(), Some(code), "{user}: {arguments:?} said:\n{out}{err}");
        if out.is_empty() { err.into_owned() } else { out.into_owned() }
    }

    /// Runs the program and gives its last line of standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut line = arguments.to_vec();
        line.push("--json");
        serde_json::from_str(self.exits(0, &line).lines().last().unwrap()).unwrap()
    }

    /// One request: the status, and the body of the answer.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        self.request_with(method, path, &[], body)
    }

    /// One request with headers, `NAME:VALUE` each.
    pub(crate) fn request_with(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> (u16, String) {
        let mut command = Command::new("python3");
        command.arg(script("s3.py")).arg(&self.server.environment["AWS_ENDPOINT_URL"]);
        command.args([self.user, &secret(self.user), method, path]).args(headers);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), body).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, body) = text.split_once('\n').unwrap_or((&text, ""));
        (status.parse().unwrap(), body.to_owned())
    }

    /// The keys of the bucket that begin so, below the repository's root.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let bucket = self.repository.split('/').nth(2).unwrap();
        let (status, body) =
            self.request("GET", &format!("/{bucket}?list-type=2&prefix=repository/{prefix}"), b"");
        assert_eq!(status, 200, "{body}");
        let keys = body.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned());
        keys.collect()
    }

    /// Whether what was restored is what was saved.
    pub(crate) fn restores(&self, source: &Path, more: &[&str]) {
        let target = tempfile::tempdir().unwrap();
        let from = format!("latest:{}", source.display());
        let line = ["restore", &from, "--target", target.path().to_str().unwrap()];
        self.exits(0, &line.into_iter().chain(more.iter().copied()).collect::<Vec<_>>());
        let difference = Command::new("diff")
            .args(["-r", "--no-dereference"])
            .args([source, target.path()])
            .output()
            .unwrap();
        assert!(difference.status.success(), "{}", String::from_utf8_lossy(&difference.stdout));
    }
}

/// The secret key that belongs to a user's access key.
pub(crate) fn secret(user: &str) -> String {
    format!("{user}secret")
}
