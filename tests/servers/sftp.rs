//! A server that lets in nothing but SFTP: a real `sshd`, with and without a chroot.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lifeboat::store::StoreOptions;

use crate::ssh::{World, assert_equal, files, user};
use crate::{conforms_at, fill};

/// Settings with which nothing else is let in.
const ONLY_SFTP: &str = "Subsystem sftp internal-sftp\nForceCommand internal-sftp\n";

fn world() -> World {
    let world = World::new();
    fs::write(world.path("sshd_more"), ONLY_SFTP).unwrap();
    world
}

pub(crate) fn conforms() {
    let world = world();
    let _sshd = world.sshd();
    fs::create_dir(world.path("store")).unwrap();
    let ssh = world.path("bin/ssh").display().to_string();
    // The store is opened in this process, whose home is another one.
    let command = format!("env HOME={} {ssh}", world.path("admin").display());
    let options = vec![("ssh.command".to_owned(), command)];
    let url = format!("sftp://server{}", world.path("store").display());
    conforms_at(&url, StoreOptions { options, ..StoreOptions::default() }, "");
    assert_eq!(files(&world.path("store")), 0, "half-written files are removed at once");
}

/// A directory that only the system's administrator writes to, with one in it for the user `nobody`; and the settings that
/// lock the user in there. `None` where only the administrator could make that.
struct Jail {
    dir: tempfile::TempDir,
}

impl Jail {
    fn new(world: &World) -> Option<Self> {
        if user() != "root" {
            return None;
        }
        // Nobody else may write to what is above it, as everybody may to the system's directory for what is temporary.
        let dir = tempfile::Builder::new().prefix("lifeboat-jail-").tempdir_in("/var/lib").unwrap();
        let id = |what: &str| -> u32 {
            let output = Command::new("id").args([what, "nobody"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
        };
        let jail = Self { dir };
        fs::set_permissions(jail.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(jail.path("upload")).unwrap();
        chown(jail.path("upload"), Some(id("-u")), Some(id("-g"))).unwrap();
        fs::write(jail.path("keys"), world.public("admin/.ssh/admin")).unwrap();
        let settings = format!(
            "Subsystem sftp internal-sftp\nMatch User nobody\n  ChrootDirectory {0}\n  ForceCommand internal-sftp\n  \
             AuthorizedKeysFile {0}/keys\n  AllowTcpForwarding no\n",
            jail.path("").display()
        );
        fs::write(world.path("sshd_more"), settings).unwrap();
        Some(jail)
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.path().to_owned() } else { self.dir.path().join(name) }
    }
}

pub(crate) fn lives_in_a_chroot() {
    let world = world();
    let jail = Jail::new(&world);
    let _sshd = world.sshd();
    let (url, place) = match &jail {
        Some(jail) => ("sftp://nobody@server/upload/a/b".to_owned(), jail.path("upload/a/b")),
        None => (format!("sftp://server{}", world.path("upload/a/b").display()), world.path("upload/a/b")),
    };
    fill(&world.path("admin/source"));
    let lifeboat = |verb: &str| format!("lifeboat --key-file ~/key -r {url} {verb}");
    world.fails("admin", &lifeboat("snapshots"), 10);
    world.does("admin", &format!("lifeboat -r {url} init --new-key-file ~/key"));
    world.does("admin", &lifeboat("backup ~/source"));
    let large = world.path("admin/source/large");
    fs::rename(&large, world.path("admin/large")).unwrap();
    world.does("admin", &lifeboat("backup --allow-shrink ~/source"));
    world.does("admin", &lifeboat("verify --data"));
    world.does("admin", &lifeboat("doctor"));
    let before = files(&place);
    world.does("admin", &lifeboat("forget --keep-last 1"));
    world.does("admin", &lifeboat("prune --grace 0s --undo-window 0s --force --yes"));
    assert!(files(&place) < before, "the packs of what was forgotten are gone");
    world.does("admin", &lifeboat("verify --data"));
    let source = world.path("admin/source");
    world.does("admin", &lifeboat(&format!("restore latest:{} --target ~/target", source.display())));
    assert_equal(&source, &world.path("admin/target"));
    assert_eq!(files(&place.join("tmp")), 0);
    // What is locked in cannot make anything at the top.
    if jail.is_some() {
        let said =
            world.fails("admin", "lifeboat -r sftp://nobody@server/repo init --new-key-file ~/other", 12);
        assert!(said.contains("Permission denied"), "{said}");
    }
}

pub(crate) fn says_what_is_wrong() {
    let world = world();
    let mut sshd = world.sshd();
    let root = world.path("repository");
    let lifeboat =
        |verb: &str| format!("lifeboat --key-file ~/key -r sftp://server{} {verb}", root.display());
    world.does("admin", &format!("lifeboat -r sftp://server{} init --new-key-file ~/key", root.display()));
    fill(&world.path("admin/source"));

    // A server that dies in the middle.
    let backup = lifeboat("backup --limit-upload 4M ~/source");
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("exec {backup}")]).env_clear().envs(world.environment("admin"));
    let running = shell.current_dir(world.path("admin")).stderr(Stdio::piped()).spawn().unwrap();
    while files(&root.join("packs")) == 0 {
        std::thread::yield_now();
    }
    drop(sshd);
    sshd = world.sshd();
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.does("admin", &lifeboat("verify --data"));

    // A client whose key is not let in, and a host that is not known.
    let said =
        world.fails("client", &lifeboat("--retry-for 0 snapshots").replace("~/key", "../admin/key"), 12);
    assert!(said.contains("Permission denied"), "{said}");
    fs::rename(world.path("known_hosts"), world.path("hosts")).unwrap();
    let said = world.fails("admin", &lifeboat("--retry-for 0 snapshots"), 12);
    assert!(said.contains("Host key verification failed"), "{said}");
    fs::rename(world.path("hosts"), world.path("known_hosts")).unwrap();
    drop(sshd);
    let said = world.fails("admin", &lifeboat("--retry-for 0 snapshots"), 13);
    assert!(said.contains("Connection refused"), "{said}");

    // A server that offers no SFTP.
    fs::remove_file(world.path("sshd_more")).unwrap();
    let _sshd = world.sshd();
    let said = world.fails("admin", &lifeboat("snapshots"), 1);
    assert!(said.contains("offers no SFTP"), "{said}");
}
