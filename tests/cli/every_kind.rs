//! A tree with every type and attribute of an entry comes back as the system's own tools see it: `rsync`, `getfacl`,
//! `getfattr`, `getcap`, `lsattr`, `find`.

use std::path::Path;
use std::process::Command;

use crate::support::Place;

/// Makes the tree in the current directory. What only root may make is made by root only.
pub(crate) const MAKE: &str = r#"
set -eu
mkdir -p dir/empty 'odd names' deep
printf 'plain' > plain; printf '' > nothing
printf 'x' > $'odd names/new\nline'; printf 'x' > $'odd names/\xff\xfe'; printf 'x' > 'odd names/ space '
chmod 7751 plain; chmod 0500 dir/empty; chmod 3775 deep
ln plain hard; ln plain dir/hard-too
ln -s /nowhere/at/all dangling; ln -s plain link
mkfifo fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
truncate -s 3M sparse; printf 'middle' | dd of=sparse bs=1 seek=1500000 conv=notrunc status=none
dd if=/dev/zero of=zeroes bs=64k count=8 status=none
head -c 700000 /dev/urandom > large
setfattr -n user.note -v 'a value' plain; setfattr -n user.dir -v 1 dir; setfattr -n user.empty large
setfacl -m u:1234:rw,g:5678:r large; setfacl -d -m u:1234:rwx dir
at=deep; for n in $(seq 30); do at=$at/$(printf 'd%.0s' $(seq 150)); done
touch -d '1969-07-20 20:17:40.123456789' nothing; touch -d '2040-01-01 00:00:00.5' 'odd names'
touch -h -d '2001-02-03 04:05:06.7' link
if [ "$(id -u)" = 0 ]; then
  mknod char c 1 3; mknod block b 7 99
  chown 1234:5678 large; chown -h 77:88 dangling
  printf 'cap' > capable; setcap cap_net_raw+ep capable
  setfattr -n trusted.secret -v yes large
  chattr +A nothing; chattr +d zeroes
fi
touch -d '2011-11-11 11:11:11.111111111' dir deep .
"#;

/// What the tools say of a tree, by their own words.
const SEE: &str = r#"
set -eu
find . -printf '%p %y %m %U %G %s %n %l %T@\n' | LC_ALL=C sort
getfacl -R -n . 2>/dev/null
getfattr -R -h -d -m - -e hex . 2>/dev/null
[ "$(id -u)" != 0 ] || { getcap -r . ; lsattr -R . 2>/dev/null | grep -v ':$' | sed 's/^\(.\{22\}\)/\1/; s/[eIE]/-/1' | LC_ALL=C sort; }
find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
"#;

pub(crate) fn bash(dir: &Path, script: &str) -> String {
    let done = Command::new("bash").arg("-c").arg(script).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn every_kind_of_entry_comes_back() {
    let place = Place::with_repository();
    let source = place.path("src");
    bash(&source, MAKE);
    place.run(["backup", "-q", "src"]).exits(0);
    let stored = format!("latest:{}", source.display());
    place.run(["restore", "-q", &stored, "--target", "target"]).exits(0);
    let target = place.path("target");

    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXS", "--checksum", "--delete", "--devices", "--specials", "-n", "--itemize-changes"]);
    let from = format!("{}/", source.display());
    let differs = rsync.arg(from).arg(&target).output().unwrap();
    assert!(differs.status.success(), "{}", String::from_utf8_lossy(&differs.stderr));
    assert_eq!(String::from_utf8_lossy(&differs.stdout), "", "rsync would change something");

    assert_eq!(bash(&source, SEE), bash(&target, SEE));
    let blocks = |dir: &Path| bash(dir, "stat -c %b sparse").trim().parse::<u64>().unwrap();
    assert!(blocks(&target) <= blocks(&source) + 8, "the holes came back");
    bash(&source, "rm -rf ./* && [ -z \"$(ls)\" ]");
}
