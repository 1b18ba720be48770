//! A server that a test starts, and that ends with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The key of the emulator's account, the same in every installation.
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running server. It watches its stdin, so it also ends when the test is killed.
pub(crate) struct Server {
    child: Child,
    /// What a client needs to know: where, and as whom.
    pub(crate) environment: BTreeMap<String, String>,
    /// The bucket.
    pub(crate) url: &'static str,
    directory: tempfile::TempDir,
}

impl Server {
    /// Ceph's S3 gateway on a real OSD.
    pub(crate) fn ceph() -> Self {
        require(
            "ceph-osd",
            "apt-get install --no-install-recommends ceph-mon ceph-osd radosgw ceph-common curl openssl",
        );
        require("radosgw", "apt-get install --no-install-recommends radosgw");
        let (directory, port) = (directory(), port());
        let mut command = Command::new(script("ceph.sh"));
        command.arg(directory.path()).arg(port.to_string()).arg(self::port().to_string());
        let environment = [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "testsecret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        Self::start(command, environment.into(), "s3://bucket", directory)
    }

    /// The Azure Blob emulator.
    pub(crate) fn azurite() -> Self {
        let azurite = target().join("servers/node_modules/.bin/azurite");
        assert!(
            azurite.exists(),
            "{} is missing: run tests/setup, or npm install --prefix {} azurite",
            azurite.display(),
            target().join("servers").display()
        );
        let (directory, port) = (directory(), port());
        let mut command = Command::new("python3");
        command.arg(script("azurite.py")).arg(directory.path()).arg(port.to_string()).arg(azurite);
        let environment = [
            ("AZURE_STORAGE_ACCOUNT", "devstoreaccount1".to_owned()),
            ("AZURE_STORAGE_KEY", AZURITE_KEY.to_owned()),
            ("AZURE_STORAGE_ENDPOINT", format!("http://127.0.0.1:{port}/devstoreaccount1")),
        ];
        Self::start(command, environment.into(), "az://bucket", directory)
    }

    /// Our stand-in for Google's interface.
    pub(crate) fn gcs() -> Self {
        let (directory, port) = (directory(), port());
        let mut command = Command::new("python3");
        command.arg(script("gcs.py")).arg(port.to_string());
        let account = directory.path().join("account.json");
        let nobody = format!(
            r#"{{"gcs_base_url": "http://127.0.0.1:{port}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#
        );
        std::fs::write(&account, nobody).unwrap();
        // The base address is named twice: plain HTTP is accepted only where the option says so.
        let environment = [
            ("GOOGLE_SERVICE_ACCOUNT", account.to_str().unwrap().to_owned()),
            ("GOOGLE_BASE_URL", format!("http://127.0.0.1:{port}")),
        ];
        Self::start(command, environment.into(), "gs://bucket", directory)
    }

    /// Makes a user of Ceph's gateway, who may do nothing yet. Its secret key is its name and `secret`.
    pub(crate) fn add_user(&self, name: &str) {
        let made = Command::new("radosgw-admin")
            .arg("-c")
            .arg(self.directory.path().join("ceph.conf"))
            .args(["user", "create", "--uid", name, "--display-name", name, "--access-key", name])
            .args(["--secret-key", &crate::client::secret(name)])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn start(
        mut command: Command,
        environment: BTreeMap<&str, String>,
        url: &'static str,
        directory: tempfile::TempDir,
    ) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap().by_ref()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "{command:?} did not start; what it said is above");
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { child, environment, url, directory }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Where cargo builds, which is where tests keep what they install.
pub(crate) fn target() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_lifeboat"));
    binary.ancestors().nth(2).unwrap().to_owned()
}

pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name)
}

pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("lifeboat-server-").tempdir().unwrap()
}

/// A port that nobody listens on.
pub(crate) fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn require(program: &str, install: &str) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = Path::new("/usr/sbin").join(program).exists();
    let found = system || std::env::split_paths(&path).any(|place| place.join(program).exists());
    assert!(
        found,
        "{program} is missing: run tests/setup, or {install}; LIFEBOAT_SKIP_SERVERS=1 leaves these tests out"
    );
}
