//! A backup server of one's own: a real `sshd`, the door behind it, and every command of `docs/serve.md`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use lifeboat::store::StoreOptions;

use crate::server::{directory, port, require, script};
use crate::{conforms_at, fill};

/// A running `sshd`. It watches its stdin, so it also ends when the test is killed.
pub(crate) struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Machines that are directories: a server, the machine that is backed up, and the one its owner sits at.
pub(crate) struct World {
    dir: tempfile::TempDir,
    port: u16,
}

impl World {
    pub(crate) fn new() -> Self {
        require("sshd", "apt-get install --no-install-recommends openssh-server");
        require("rsync", "apt-get install --no-install-recommends rsync");
        let world = Self { dir: directory(), port: port() };
        for home in ["server", "client", "admin"] {
            fs::create_dir_all(world.path(home).join(".ssh")).unwrap();
        }
        fs::create_dir(world.path("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lifeboat"), world.path("bin/lifeboat")).unwrap();
        world.keygen("admin", "admin");
        fs::write(world.path("server/.ssh/authorized_keys"), world.public("admin/.ssh/admin")).unwrap();
        let config = format!("Host server\n  IdentityFile {}\n", world.path("admin/.ssh/admin").display());
        fs::write(world.path("admin/.ssh/config"), config).unwrap();
        fs::write(world.path("client/.ssh/config"), "").unwrap();
        // Hosts of the page are this machine, and nothing of its user's own is looked at.
        let ssh = format!(
            "#!/bin/sh\ncase \" $* \" in *' -l '*) ;; *) set -- -l {} \"$@\" ;; esac\nexec /usr/bin/ssh -F \"$HOME/.ssh/config\" -o HostName=127.0.0.1 -o Port={} \
             -o UserKnownHostsFile={} -o GlobalKnownHostsFile=/dev/null -o HostKeyAlias=server \
             -o StrictHostKeyChecking=yes -o IdentityAgent=none \"$@\"\n",
            user(),
            world.port,
            world.path("known_hosts").display(),
        );
        fs::write(world.path("bin/ssh"), ssh).unwrap();
        fs::set_permissions(world.path("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn public(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap()
    }

    fn keygen(&self, home: &str, name: &str) {
        let file = self.path(home).join(".ssh").join(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(file)
            .status()
            .unwrap();
        assert!(made.success());
    }

    /// Starts the server; the clients know its key from then on.
    pub(crate) fn sshd(&self) -> Sshd {
        let mut command = Command::new(script("sshd.sh"));
        command.arg(self.dir.path()).arg(self.port.to_string()).arg(self.path("bin"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "sshd did not start; what it said is above");
        fs::write(self.path("known_hosts"), format!("server {}", self.public("host"))).unwrap();
        Sshd(child)
    }

    pub(crate) fn environment(&self, home: &str) -> BTreeMap<String, String> {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap_or_default());
        [("HOME", self.path(home).display().to_string()), ("PATH", path)]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// What a shell at one of the machines does.
    fn shell(&self, home: &str, commands: &str) -> Output {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", commands]).env_clear().envs(self.environment(home));
        shell.current_dir(self.path(home)).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn does(&self, home: &str, commands: &str) -> String {
        let output = self.shell(home, commands);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{home}: {commands}\nended with {}:\n{said}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    pub(crate) fn fails(&self, home: &str, commands: &str, code: i32) -> String {
        let output = self.shell(home, commands);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{home}: {commands}\n{said}");
        said
    }

    /// A key of SSH with a forced command, under this name in the client's configuration.
    fn let_in(&self, name: &str, serve: &str) {
        self.keygen("client", name);
        let line = format!(
            "command=\"lifeboat serve --stdio {serve}\",restrict {}",
            self.public(&format!("client/.ssh/{name}"))
        );
        append(&self.path("server/.ssh/authorized_keys"), &line);
        let host = format!(
            "Host {name}\n  IdentitiesOnly yes\n  IdentityFile {}\n",
            self.path("client/.ssh").join(name).display()
        );
        append(&self.path("client/.ssh/config"), &host);
    }
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).unwrap_or_default();
    fs::write(path, before + text).unwrap();
}

pub(crate) fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Nothing differs, down to attributes, links and holes of names.
#[track_caller]
pub(crate) fn assert_equal(left: &Path, right: &Path) {
    let slash = |path: &Path| format!("{}/", path.display());
    let output = Command::new("rsync")
        .args(["-aHAX", "--checksum", "-n", "-i", "--delete", &slash(left), &slash(right)])
        .output()
        .unwrap();
    // The directory itself was there before.
    let said = String::from_utf8_lossy(&output.stdout);
    let differ: Vec<&str> = said.lines().filter(|line| !line.ends_with(" ./")).collect();
    assert!(output.status.success() && differ.is_empty(), "{differ:?}");
}

pub(crate) fn conforms() {
    let world = World::new();
    let _sshd = world.sshd();
    fs::create_dir(world.path("store")).unwrap();
    let ssh = world.path("bin/ssh").display().to_string();
    // The store is opened in this process, whose home is another one.
    let command = format!("env HOME={} {ssh}", world.path("admin").display());
    let options = vec![("ssh.command".to_owned(), command)];
    let url = format!("ssh://server{}", world.path("store").display());
    conforms_at(&url, StoreOptions { options, ..StoreOptions::default() }, "probe/");
}

/// The commands of the page, each with the machine it is for; places of the page are those of this test.
fn page(world: &World) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/serve.md")).unwrap();
    let mut commands = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```sh ")) {
            (None, Some(machine)) => open = Some((machine.to_owned(), String::new())),
            (Some(_), _) if line == "```" => commands.extend(open.take()),
            (Some((_, block)), _) => *block += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    let srv = world.path("srv").display().to_string();
    let place = |(machine, block): (String, String)| {
        let home = world.path(&machine).display().to_string();
        let block = block.replace("/srv", &srv).replace("~/", &format!("{home}/"));
        (
            machine,
            block
                .replace("latest:/etc", &format!("latest:{home}/etc"))
                .replace(" /etc", &format!(" {home}/etc")),
        )
    };
    commands.into_iter().map(place).collect()
}

/// From nothing to a backup, a restore, and what only an admin may, as the page says it.
pub(crate) fn the_page_holds() {
    let world = World::new();
    let _sshd = world.sshd();
    fill(&world.path("client/etc"));
    let commands = page(&world);
    assert_eq!(commands.len(), 6, "{commands:?}");
    for (machine, block) in commands {
        let key = || world.public("client/.ssh/backup");
        let block = if block.contains("AAAA…") {
            block.replace("ssh-ed25519 AAAA… web1\n", &key())
        } else {
            block
        };
        // The key of the repository is carried by hand.
        let carried = world.path("client/web1.key");
        if world.path("admin/web1.key").exists() && !carried.exists() {
            fs::copy(world.path("admin/web1.key"), carried).unwrap();
        }
        world.does(&machine, &block);
    }
    assert_equal(&world.path("client/etc"), &world.path("client/etc.restored"));
    let open = "export LIFEBOAT_REPO=ssh://backup-server LIFEBOAT_KEY_FILE=~/web1.key; ";
    let said = world.fails("client", &format!("{open} lifeboat hold add latest"), 12);
    assert!(said.contains("opened with the role writer"), "{said}");
}

/// What a key must not do, a server that dies in the middle, and what is said then.
pub(crate) fn a_writer_is_held_and_a_dead_server_is_waited_for() {
    let world = World::new();
    let mut sshd = world.sshd();
    let root = world.path("repository").display().to_string();
    world.does("admin", &format!("lifeboat -r ssh://server{root} init --new-key-file ~/key"));
    fs::copy(world.path("admin/key"), world.path("client/key")).unwrap();
    world.let_in("writer", &format!("--root {root}"));
    world.let_in("small", &format!("--root {root} --quota 1M"));
    world.let_in("reader", &format!("--root {root} --role reader"));
    fill(&world.path("client/source"));
    let lifeboat = |host: &str, verb: &str| format!("lifeboat --key-file ~/key -r ssh://{host} {verb}");
    let said = world.fails("client", &lifeboat("small", "backup ~/source"), 14);
    assert!(said.contains("the quota of 1.0 MiB"), "{said}");
    world.fails("client", &lifeboat("reader", "backup ~/source"), 12);
    world.fails("client", &lifeboat("writer/etc", "snapshots"), 12);
    // Whatever is asked of the shell there, the forced command runs.
    world.fails("client", &format!("ssh writer rm -rf {root} </dev/null"), 0);
    assert!(Path::new(&root).join("config").is_dir());

    let backup = lifeboat("writer", "backup --limit-upload 4M ~/source");
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("exec {backup}")]).env_clear().envs(world.environment("client"));
    let running = shell.current_dir(world.path("client")).stderr(Stdio::piped()).spawn().unwrap();
    let packs = Path::new(&root).join("packs");
    while files(&packs) == 0 {
        std::thread::yield_now();
    }
    drop(sshd);
    sshd = world.sshd();
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.does("client", &lifeboat("reader", "verify --data"));
    let restore = format!("restore latest:{} --target ~/target", world.path("client/source").display());
    world.does("client", &lifeboat("writer", &restore));
    assert_equal(&world.path("client/source"), &world.path("client/target"));

    let held = world.fails("client", &lifeboat("writer", "hold add latest"), 12);
    assert!(held.contains("opened with the role writer"), "{held}");
    let before = files(Path::new(&root));
    let prune = world.shell("client", &lifeboat("writer", "prune --grace 0s --undo-window 0s --force --yes"));
    assert_ne!(prune.status.code(), Some(0), "{}", String::from_utf8_lossy(&prune.stderr));
    assert_eq!(files(Path::new(&root)), before, "nothing was deleted and nothing was added");

    // A server with another key is not the one we know.
    fs::write(world.path("known_hosts"), format!("server {}", world.public("client/.ssh/writer"))).unwrap();
    let said = world.fails("client", &lifeboat("writer", "--retry-for 0 snapshots"), 12);
    assert!(said.contains("Host key verification failed"), "{said}");
    drop(sshd);
    let said = world.fails("client", &lifeboat("writer", "--retry-for 0 snapshots"), 13);
    assert!(said.contains("Connection refused"), "{said}");
}

/// How many files are below a directory.
pub(crate) fn files(dir: &Path) -> usize {
    let walk = ignore::WalkBuilder::new(dir).standard_filters(false).build().filter_map(Result::ok);
    walk.filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file())).count()
}
