use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use object_store::memory::InMemory;

use super::encode::HELD_MAX;
use super::*;
use crate::filter::FilterBuilder;
use crate::format::content::Content;
use crate::format::envelope::ChunkKind;
use crate::format::node::{Node, Problem};
use crate::format::tree::TreeRef;
use crate::ops::testing::{contents, env, new_repository, noise};
use crate::ops::tree::testing::{Forge, copies, flip};

const TAR: ArchiveKind = ArchiveKind::Tar { numeric_owner: false };

async fn repository() -> (Arc<InMemory>, Repository) {
    let objects = Arc::new(InMemory::new());
    let repo = new_repository(Arc::<InMemory>::clone(&objects), env()).await;
    (objects, repo)
}

fn options(snapshot: SnapshotInfo, kind: ArchiveKind) -> ArchiveOptions {
    ArchiveOptions { snapshot, path: Vec::new(), kind, filter: Filter::default() }
}

/// A place with an archive `a`, and `x` to unpack it into.
struct Unpacked {
    dir: tempfile::TempDir,
    done: RestoreSummary,
}

impl Unpacked {
    async fn make(repo: &Repository, options: ArchiveOptions) -> Self {
        let usual = pace(repo);
        Self::make_at(repo, options, usual).await
    }

    async fn make_at(repo: &Repository, options: ArchiveOptions, pace: (Pace, usize)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("x")).unwrap();
        let output = ArchiveOutput::File(dir.path().join("a"));
        let done = archive_at(repo, options, output, pace).await.unwrap();
        Self { dir, done }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("x")
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path()).env("LC_ALL", "C.UTF-8");
        command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Unpacks with GNU tar; what it says, and its exit code.
    fn tar(&self) -> (i32, String) {
        let done = self.run("tar", &["-xpf", "../a"]);
        (done.status.code().unwrap(), String::from_utf8_lossy(&done.stderr).into_owned())
    }

    /// Tests and unpacks with Info-ZIP; its exit code.
    fn unzip(&self) -> i32 {
        let test = self.run("unzip", &["-qq", "-t", "../a"]);
        let done = self.run("unzip", &["-qq", "../a"]);
        assert_eq!(test.status.code(), done.status.code());
        done.status.code().unwrap()
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let files = contents(&self.path()).into_iter();
        files.map(|(path, bytes)| (path.into_os_string().into_string().unwrap(), bytes)).collect()
    }
}

/// A file of chunks of 1 MiB, larger than what is held back.
fn large(forge: &mut Forge<'_>, name: &str, seed: u64) -> Node {
    let chunks: Vec<_> = (0..(HELD_MAX >> 20) as u64 + 6).map(|n| noise(seed + n, 1 << 20)).collect();
    forge.file(name, &chunks.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Spoils all copies of the chunk with this number of a file.
async fn damage(objects: &InMemory, repo: &Repository, file: &Node, number: usize) {
    let Content::Inline(rows) = &file.content else { panic!() };
    for copy in copies(repo, &rows[number].id).await {
        flip(objects, copy.pack_id, copy.segment.offset + 5).await;
    }
}

async fn stored(forge: Forge<'_>, root: TreeRef) -> SnapshotInfo {
    forge.store(root, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_entries_are_left_out() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let mut nodes: Vec<Node> = ["../escape", "..", ".", "a\0b", "dir/file", "/etc/passwd"]
        .iter()
        .map(|name| forge.file(name, &[b"evil"]))
        .collect();
    let inside = forge.file("in", &[b"evil"]);
    nodes.push(forge.dir("../up", &[inside]));
    let mut long = forge.file("x", &[b"12345"]);
    long.size = 4;
    nodes.push(long);
    let mut short = forge.file("y", &[b"12345"]);
    short.size = 1 << 60;
    nodes.push(short);
    let mut hole = forge.file("z", &[b"12345"]);
    hole.holes = vec![(3, 1 << 40)];
    nodes.push(hole);
    let mut device = Node::new(b"z1".to_vec(), NodeKind::CharDevice);
    device.rdev = u64::MAX;
    nodes.push(device);
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes.push(forge.file("zz", &[b"good"]));
    let mut unsaved = forge.file("zzz", &[b"x"]);
    unsaved.problem = Some(Problem::Unreadable);
    nodes.push(unsaved);
    let root = forge.page(&nodes);
    let snapshot = stored(forge, root).await;
    for kind in [TAR, ArchiveKind::Zip] {
        let made = Unpacked::make(&repo, options(snapshot.clone(), kind)).await;
        // Seven names, three sizes; a device and what was not read.
        assert_eq!((made.done.damaged_count, made.done.failed, made.done.files), (10, 2, 1), "{kind:?}");
        let (program, args) = match kind {
            TAR => ("tar", ["-P", "-tf", "../a"]),
            _ => ("unzip", ["-Z", "-1", "../a"]),
        };
        let list = made.run(program, &args);
        assert_eq!(String::from_utf8_lossy(&list.stdout), "zz\n");
        assert_eq!(list.status.code(), Some(0), "{list:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_other_systems_follow_are_not_in_a_zip() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let names = ["..\\..\\x", "C:x", "\\x", "x\\y"];
    let mut nodes: Vec<_> = names.iter().map(|name| forge.file(name, &[b"1"])).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let root = forge.page(&nodes);
    let snapshot = stored(forge, root).await;
    let made = Unpacked::make(&repo, options(snapshot.clone(), ArchiveKind::Zip)).await;
    assert_eq!((made.done.failed, made.done.files), (3, 1));
    let made = Unpacked::make(&repo, options(snapshot, TAR)).await;
    assert_eq!((made.done.failed, made.done.files), (0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_only_the_files_that_need_it() {
    let (objects, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 1;
    let file =
        |forge: &mut Forge<'_>, n: u64| forge.file(&n.to_string(), &[&noise(n, 3000), &noise(100 + n, 2000)]);
    let mut nodes: Vec<_> = (0..9).map(|n| file(&mut forge, n)).collect();
    for (first, second) in [(3, 4), (6, 7)] {
        let (content, size) = (nodes[first].content.clone(), nodes[first].size);
        nodes[first].hard_link = Some([first as u8; 16]);
        nodes[second].hard_link = Some([first as u8; 16]);
        (nodes[second].content, nodes[second].size) = (content, size);
    }
    // A large one whose damage is met before anything of it is written.
    nodes.push(large(&mut forge, "early", 1000));
    let root = forge.page(&nodes);
    let snapshot = stored(forge, root).await;
    damage(&objects, &repo, &nodes[3], 1).await;
    damage(&objects, &repo, &nodes[9], 5).await;
    let made = Unpacked::make(&repo, options(snapshot.clone(), TAR)).await;
    assert_eq!(made.done.damaged, [b"/3".to_vec(), b"/4".to_vec(), b"/early".to_vec()]);
    assert_eq!(made.tar(), (0, String::new()));
    let files = made.files();
    assert_eq!(files.keys().map(String::as_str).collect::<String>(), "0125678");
    for n in [0, 1, 2, 5, 6, 8] {
        assert_eq!(files[&n.to_string()], [noise(n, 3000), noise(100 + n, 2000)].concat());
    }
    let inode = |name: &str| fs::metadata(made.path().join(name)).unwrap().ino();
    assert_eq!(inode("6"), inode("7"));

    let zip = Unpacked::make(&repo, options(snapshot, ArchiveKind::Zip)).await;
    assert_eq!(zip.done.damaged, made.done.damaged);
    assert_eq!(zip.unzip(), 0);
    assert_eq!(zip.files(), files);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_lost_midway_is_never_taken_for_good() {
    let (objects, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 1;
    let before = forge.file("before", &[b"b"]);
    let mut bad = large(&mut forge, "late", 1000);
    bad.hard_link = Some([7; 16]);
    let mut link = bad.clone();
    link.name = b"link".to_vec();
    // The holes of this one come after what is lost.
    let mut holes = large(&mut forge, "sparse", 2000);
    holes.size += 8192;
    holes.holes = vec![(4096, 4096), (holes.size - 4096, 4096)];
    let after = forge.file("z", &[b"after"]);
    let root = forge.page(&[before, bad.clone(), link, holes.clone(), after]);
    let snapshot = stored(forge, root).await;
    damage(&objects, &repo, &bad, 11).await;
    damage(&objects, &repo, &holes, 12).await;
    let damaged = [&b"/late"[..], b"/link", b"/sparse"];

    let made = Unpacked::make(&repo, options(snapshot.clone(), TAR)).await;
    assert_eq!(made.done.damaged, damaged);
    assert_eq!((made.done.files, made.done.failed), (2, 0));
    let (code, said) = made.tar();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("Unexpected EOF"), "{said}");
    for name in ["late", "sparse"] {
        let target = fs::read_link(made.path().join(name)).unwrap();
        assert_eq!(target, Path::new("lifeboat: the content is damaged and was left out"));
        assert!(fs::read(made.path().join(name)).is_err());
    }
    let files = made.files();
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), ["LIFEBOAT-DAMAGED.txt", "before", "z"]);
    assert_eq!(files["z"], b"after");
    let list = String::from_utf8_lossy(&files["LIFEBOAT-DAMAGED.txt"]);
    assert!(list.contains("\nlate\nsparse\n"), "{list}");

    let made = Unpacked::make(&repo, options(snapshot, ArchiveKind::Zip)).await;
    assert_eq!(made.done.damaged, damaged);
    assert_eq!(made.unzip(), 0);
    assert_eq!(made.files().keys().map(String::as_str).collect::<Vec<_>>(), ["before", "z"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_copy_is_as_good() {
    let (objects, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 1;
    let file = large(&mut forge, "f", 1);
    let root = forge.page(std::slice::from_ref(&file));
    let snapshot = forge.store(root, 3).await;
    let Content::Inline(rows) = &file.content else { panic!() };
    for (number, row) in rows.iter().enumerate() {
        let copies = copies(&repo, &row.id).await;
        for copy in copies.iter().enumerate().filter(|(at, _)| *at != number % 3).map(|(_, copy)| copy) {
            flip(&objects, copy.pack_id, copy.segment.offset).await;
        }
    }
    let made = Unpacked::make(&repo, options(snapshot, TAR)).await;
    assert_eq!((made.done.damaged_count, made.done.files), (0, 1));
    assert_eq!(made.tar(), (0, String::new()));
    let expected: Vec<u8> = (1..=rows.len() as u64).flat_map(|n| noise(n, 1 << 20)).collect();
    assert!(made.files()["f"] == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_a_chunk_is_not_believed() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let mut lied = forge.file("lied", &[b"honest"]);
    let row = {
        let key = repo.dedup_key(context::CHUNK_ID).unwrap();
        let id = crate::crypto::chunk_id(&key, ChunkKind::Data, b"wanted");
        forge.lie(ChunkKind::Data, id, b"served");
        crate::format::content::ChunkRow { id, len: 6 }
    };
    lied.content = Content::Inline(vec![row]);
    let root = forge.page(&[lied]);
    let snapshot = stored(forge, root).await;
    let made = Unpacked::make(&repo, options(snapshot, TAR)).await;
    assert_eq!((made.done.damaged_count, made.done.files), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn little_room_is_enough() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    // Each file takes a chunk from each of many segments.
    let chunks: Vec<_> = (0..64).map(|n| noise(n, 40_000)).collect();
    for chunk in &chunks {
        let _ = forge.row(chunk);
    }
    let content = |file: usize| -> Vec<&[u8]> {
        (0..64).map(|n| chunks[(n * 29 + file * 7) % 64].as_slice()).collect()
    };
    let nodes: Vec<_> = (0..10).map(|n| forge.file(&n.to_string(), &content(n))).collect();
    let root = forge.page(&nodes);
    let snapshot = stored(forge, root).await;
    for room in [1, 200 << 10, 700 << 10] {
        let shape = Shape { request_max: 1 << 20, gap_max: 1 << 10 };
        let pace = (Pace { shape, requests: 2, room }, 1);
        let made = Unpacked::make_at(&repo, options(snapshot.clone(), TAR), pace).await;
        assert_eq!((made.done.damaged_count, made.done.files), (0, 10));
        assert_eq!(made.tar(), (0, String::new()));
        for (name, bytes) in made.files() {
            assert!(bytes == content(name.parse().unwrap()).concat(), "{name}");
        }
    }
    let made = Unpacked::make(&repo, options(snapshot, TAR)).await;
    let all: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    assert!(made.done.fetched < all + all / 10, "{} for {all}: each segment once", made.done.fetched);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_paths_select() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let (a, b) = (forge.file("a", &[b"1"]), forge.file("b.tmp", &[b"2"]));
    let inner = forge.dir("inner", &[a.clone(), b.clone()]);
    let none = forge.dir("none", std::slice::from_ref(&b));
    let outer = forge.dir("outer", &[inner, none]);
    let root = forge.page(&[a, outer]);
    let snapshot = stored(forge, root).await;
    let list = |path: &str, includes: &[&str], excludes: &[&str]| {
        let mut rules = FilterBuilder::new();
        for rule in includes {
            rules.include(rule.as_bytes(), false).unwrap();
        }
        for rule in excludes {
            rules.exclude(rule.as_bytes(), false).unwrap();
        }
        let filter = rules.build().unwrap();
        let path = path.as_bytes().to_vec();
        let options = ArchiveOptions { path, filter, ..options(snapshot.clone(), TAR) };
        let repo = &repo;
        async move {
            let made = Unpacked::make(repo, options).await;
            String::from_utf8(made.run("tar", &["-tf", "../a"]).stdout).unwrap()
        }
    };
    assert_eq!(
        list("", &[], &[]).await,
        "a\nouter/\nouter/inner/\nouter/inner/a\nouter/inner/b.tmp\nouter/none/\nouter/none/b.tmp\n"
    );
    assert_eq!(list("", &["/outer/inner/a"], &[]).await, "outer/\nouter/inner/\nouter/inner/a\n");
    assert_eq!(list("/outer/", &[], &["*.tmp"]).await, "./\ninner/\ninner/a\nnone/\n");
    assert_eq!(list("outer//inner/./a", &[], &[]).await, "a\n");
    assert_eq!(list("/outer", &["/outer/none/b.tmp"], &[]).await, "./\nnone/\nnone/b.tmp\n");
    assert_eq!(list("/outer", &["/other"], &[]).await, "");
    let mut missing = options(snapshot.clone(), TAR);
    missing.path = b"/no/such".to_vec();
    let made = archive(&repo, missing, ArchiveOutput::Stream(Box::new(io::sink()))).await;
    assert!(matches!(made, Err(Error::NoSuchPath { .. })));
}

/// A reader that goes away, or one that stands still, after some bytes.
struct Reader {
    bytes: usize,
    then: io::ErrorKind,
    cancel: crate::cancel::Cancel,
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes == 0 {
            if self.then == io::ErrorKind::BrokenPipe {
                return Err(self.then.into());
            }
            self.cancel.raise();
            loop {
                std::thread::park();
            }
        }
        let len = bytes.len().min(self.bytes);
        self.bytes -= len;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_or_stands_still_ends_the_run() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let nodes: Vec<_> = (1..5).map(|n| large(&mut forge, &n.to_string(), n * 100)).collect();
    let root = forge.page(&nodes);
    let snapshot = stored(forge, root).await;
    for kind in [TAR, ArchiveKind::Zip] {
        let reader = |then| {
            let cancel = repo.env().cancel.clone();
            ArchiveOutput::Stream(Box::new(Reader { bytes: 100_000, then, cancel }))
        };
        let gone = archive(&repo, options(snapshot.clone(), kind), reader(io::ErrorKind::BrokenPipe)).await;
        assert!(matches!(gone, Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe));
    }
    let cancel = repo.env().cancel.clone();
    let stuck = Reader { bytes: 100_000, then: io::ErrorKind::Other, cancel };
    let still = archive(&repo, options(snapshot, TAR), ArchiveOutput::Stream(Box::new(stuck))).await;
    assert!(matches!(still, Err(Error::Cancelled)));
}
