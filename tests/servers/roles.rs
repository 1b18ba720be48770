//! Each role with each command, with its own key and only the rights of its role in force at the server: what is for it works,
//! and the rest ends with exit code 12 before anything is stored.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use lifeboat::format::keyslot::Role;
use lifeboat::format::{layout, rights};
use lifeboat::repo::Task;

use serde_json::Value;

use crate::client::Client;
use crate::rights::permit;
use crate::server::Server;
use crate::skipped;

/// A segment of a real server's log.
const SEGMENT: &str = "000000010000000000000007";

/// A command line, in which names in braces stand for places of the test.
struct Line {
    args: &'static str,
    /// What it stores has to be allowed below this prefix.
    stores: Option<&'static str>,
    end: End,
    /// How it ends for whoever may not.
    refused: i32,
}

/// How it ends for whoever may.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    /// What it asks for is not there: it ends, and not for want of a right.
    Fails,
    /// It waits, or changes what opens the repository: run only by those who may not.
    NotRun,
}

fn line(args: &'static str) -> Line {
    Line { args, stores: None, end: End::Done, refused: 12 }
}

fn ends(end: End, args: &'static str) -> Line {
    Line { end, ..line(args) }
}

fn key(end: End, args: &'static str) -> Line {
    Line { stores: Some(layout::KEYS), end, ..line(args) }
}

/// The commands of each task. A task without one does not compile.
fn lines(task: Task) -> Vec<Line> {
    match task {
        Task::Backup => vec![
            line("backup {source}"),
            line("backup --dry-run {source}"),
            ends(End::Fails, "postgres backup main --pg-host {place}"),
            line("sqlite backup --dry-run {db}"),
        ],
        Task::Snapshots => vec![line("snapshots")],
        Task::Status => vec![line("status"), line("metrics")],
        Task::Look => vec![line("ls {id}"), line("diff {id} {id}"), line("find *")],
        Task::Why => vec![line("why {source}/a")],
        Task::Restore => vec![
            line("restore {id} --target {new}"),
            line("cat {id}:{source}/a"),
            ends(End::NotRun, "mount {place}"),
            line("copy {id} --to {local} --to-key-file {local.key}"),
            ends(End::Fails, "postgres restore main {new} --target immediate"),
            line("sqlite restore {id}:{source}/a {new} --no-check"),
        ],
        Task::Bring => vec![
            line("copy --repo {local} --key-file {local.key} --to {remote} --to-key-file {own.key}"),
            ends(End::Fails, "import restic {place}/nothing"),
        ],
        Task::Forget => vec![line("forget {id}")],
        Task::JudgeSnapshots => vec![line("forget {id} --dry-run")],
        Task::Undelete => vec![line("undelete {id}")],
        Task::Hold => vec![line("hold add {held} --until 1d"), ends(End::Fails, "hold remove ffffffffff")],
        Task::ListHolds => vec![line("hold list")],
        Task::Tag => vec![line("tag {id} --add seen=yes")],
        Task::Verify => vec![line("verify"), line("verify --packs")],
        Task::VerifyData => vec![line("verify --data")],
        Task::Prune => vec![line("prune"), line("prune --dry-run")],
        Task::Stats => vec![line("stats"), line("stats --snapshots")],
        Task::OwnKey => vec![line("key list"), key(End::NotRun, "key passwd --new-key-file {new}")],
        Task::AddReader => vec![key(End::Done, "key add --role reader --new-key-file {new}")],
        Task::AddSigner => vec![key(End::Done, "key add --role writer --new-key-file {new}")],
        Task::ManageKeys => vec![
            line("key words"),
            ends(End::Fails, "key remove ffffffffff"),
            key(End::Done, "key recovery --words-to {new}"),
        ],
        Task::Anchor => vec![line("anchor")],
        Task::ListWriters => vec![line("writer list"), line("anchor --accept-missing")],
        Task::Revoke => vec![ends(End::Fails, "writer revoke ffffffffff")],
        Task::Rekey => vec![line("rekey --dry-run"), ends(End::NotRun, "rekey")],
        Task::Reencrypt => vec![line("rekey --reencrypt")],
        Task::ArchiveLog => vec![line("postgres archive-push {log}")],
        Task::ReadLog => vec![
            Line { refused: 200, ..line("postgres archive-get {segment} {new}") },
            line("postgres verify"),
        ],
        Task::ShowLogs => vec![line("postgres info")],
        Task::AllowWriter => vec![ends(End::Fails, "postgres allow main {writer}")],
        Task::CheckServer => vec![ends(End::Fails, "postgres check main --pg-host {place}")],
    }
}

/// Commands that are for no role: they open no repository, or look only at what is around it.
/// `run` does for each job what the verbs of the table do.
const OUTSIDE: [&str; 18] = [
    "init",
    "config",
    "config check",
    "config show",
    "config schema",
    "run",
    "schedule",
    "schedule install",
    "schedule show",
    "schedule remove",
    "doctor",
    "serve",
    "policy",
    "policy generate",
    "completions",
    "key verify-recovery",
    "help",
    "man",
];

/// The commands that the help of a verb names; of the whole program without one.
fn named(client: &Client<'_>, verb: Option<&str>) -> Vec<String> {
    let line: Vec<&str> = ["help"].into_iter().chain(verb).collect();
    let help = client.exits(0, &line);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|name| !name.starts_with(' ')));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// Each command that the program has is in the matrix, or named as outside of it.
fn nothing_is_forgotten(client: &Client<'_>) {
    let lines: Vec<&str> = Task::ALL.into_iter().flat_map(lines).map(|line| line.args).collect();
    let is_known = |name: &str| {
        OUTSIDE.contains(&name)
            || lines.iter().any(|args| *args == name || args.starts_with(&format!("{name} ")))
    };
    let verbs = named(client, None);
    assert!(verbs.len() > 20, "{verbs:?}");
    for verb in verbs {
        let below = named(client, Some(&verb));
        assert!(is_known(&verb), "{verb} is not in the matrix");
        for name in below.iter().filter(|name| *name != "help") {
            assert!(is_known(&format!("{verb} {name}")), "{verb} {name} is not in the matrix");
        }
    }
}

/// The owner's machine, a local repository beside the one in the bucket, and what names in braces stand for.
struct World<'a> {
    owner: Client<'a>,
    id: String,
    /// Another one, which is held: nobody could forget it.
    held: String,
    /// Who the key of role writer signs as.
    writer: String,
}

impl<'a> World<'a> {
    fn new(server: &'a Server) -> Self {
        Role::ALL.iter().for_each(|role| server.add_user(role.name()));
        let owner = Client::owner(server, "bucket");
        let (source, key, local) = (owner.path("source"), owner.path("key"), owner.path("local"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("a"), "first\n").unwrap();
        // A database in which nothing was made yet.
        fs::write(owner.path("empty.db"), "").unwrap();
        let local_key = owner.path("local.key");
        owner.exits(0, &["init", "--new-key-file", key.to_str().unwrap(), "--recovery-words"]);
        let place = ["--repo", local.to_str().unwrap()];
        owner.exits(0, &[&["init", "--new-key-file", local_key.to_str().unwrap()], &place[..]].concat());
        let mut ids = Vec::new();
        for content in ["second\n", "third\n"] {
            fs::write(source.join("b"), content).unwrap();
            ids.push(owner.json(&["backup", source.to_str().unwrap()])["snapshot"].clone());
        }
        let names = Role::ALL.map(Role::name);
        permit(&owner, "bucket", (&names, &[]));
        for role in names {
            let file = owner.path(&format!("{role}.key"));
            owner.exits(0, &["key", "add", "--role", role, "--new-key-file", file.to_str().unwrap()]);
        }
        let [id, held] = [0, 1].map(|at: usize| ids[at].as_str().unwrap().to_owned());
        let log = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples/wal").join(SEGMENT);
        let log = zstd::decode_all(&fs::read(log.with_extension("zst")).unwrap()[..]).unwrap();
        fs::write(owner.path(SEGMENT), log).unwrap();
        owner.exits(0, &["postgres", "archive-push", owner.path(SEGMENT).to_str().unwrap()]);
        let keys = owner.exits(0, &["key", "list", "--json"]);
        let mut keys = keys.lines().map(|key| serde_json::from_str::<Value>(key).unwrap());
        let writer = keys.find(|key| key["role"] == "writer").unwrap()["writer"].as_str().unwrap().to_owned();
        owner.exits(0, &["postgres", "allow", "main", &writer]);
        Self { owner, id, held, writer }
    }

    fn place(&self, line: &Line, user: &Client<'_>) -> Vec<String> {
        let path = |name: &str| user.path(name).to_str().unwrap().to_owned();
        let of_owner = |name: &str| self.owner.path(name).to_str().unwrap().to_owned();
        let names = [
            ("{source}", of_owner("source")),
            ("{id}", self.id.clone()),
            ("{held}", self.held.clone()),
            ("{writer}", self.writer.clone()),
            ("{segment}", SEGMENT.to_owned()),
            ("{log}", of_owner(SEGMENT)),
            ("{db}", of_owner("empty.db")),
            ("{local}", of_owner("local")),
            ("{local.key}", of_owner("local.key")),
            ("{remote}", "s3://bucket/repository".to_owned()),
            ("{own.key}", path("key")),
            ("{place}", path("")),
            ("{new}", path("new")),
        ];
        let filled =
            |word: &str| names.iter().fold(word.to_owned(), |word, (name, text)| word.replace(name, text));
        line.args.split(' ').map(filled).collect()
    }

    /// Runs a line as a role; whether that was allowed.
    fn tries(&self, (role, user): (Role, &Client<'_>), task: Task, line: &Line) -> bool {
        let stores = line.stores.is_none_or(|prefix| rights::put_by(role).any(|allowed| allowed == prefix));
        let may = task.is_for(role) && stores;
        if may && line.end == End::NotRun {
            return true;
        }
        let args = self.place(line, user);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let new = user.path("new");
        if may {
            let output = user.run(&args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let code = output.status.code();
            match line.end {
                End::Fails => {
                    assert!(!matches!(code, Some(0 | 12)), "{} {args:?}: {code:?} {said}", role.name())
                }
                _ => assert_eq!(code, Some(0), "{} {args:?}: {said}", role.name()),
            }
            let _ = fs::remove_dir_all(&new);
            let _ = fs::remove_file(&new);
            return true;
        }
        let before = self.owner.keys("");
        let said = user.exits(line.refused, &args);
        assert_eq!(self.owner.keys(""), before, "{} {args:?} stored or deleted something", role.name());
        if task.is_for(role) {
            // The key would do, and the store refuses: what might open something is left, and that is said.
            assert!(!new.exists() || said.contains("stays"), "{} {args:?}: {said}", role.name());
            let _ = fs::remove_file(&new);
        } else {
            let opened = format!("a key of role {} opens", role.name());
            assert!(said.contains(&opened), "{} {args:?}: {said}", role.name());
            assert!(!new.exists(), "{} {args:?} left a file", role.name());
        }
        false
    }
}

#[test]
fn each_role_does_what_is_its_own_with_only_its_rights_at_the_server() {
    if skipped() {
        return;
    }
    let server = Server::ceph();
    let world = World::new(&server);
    nothing_is_forgotten(&world.owner);
    let (mut allowed, mut refused) = (0, 0);
    let mut seen = BTreeSet::new();
    for role in Role::ALL {
        let user = world.owner.as_user(role.name());
        fs::copy(world.owner.path(&format!("{}.key", role.name())), user.path("key")).unwrap();
        for task in Task::ALL {
            for line in lines(task) {
                let may = world.tries((role, &user), task, &line);
                *if may { &mut allowed } else { &mut refused } += 1;
                seen.insert((line.args, may));
            }
        }
    }
    println!("{allowed} allowed, {refused} refused");
    // Who is refused everywhere, or nowhere, would show nothing.
    let both = seen.iter().filter(|(args, may)| *may && seen.contains(&(*args, false))).count();
    assert!(both > 20 && allowed > 60 && refused > 60, "{both} {allowed} {refused}");
    // At this server an object belongs to who stored it, so the bucket's owner may not read what others did.
    let admin = world.owner.as_user("admin");
    admin.exits(0, &["verify", "--data"]);
    admin.restores(&world.owner.path("source"), &[]);
}
