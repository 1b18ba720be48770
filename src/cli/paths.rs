//! Paths as typed to absolute ones.

use std::path::{Component, Path, PathBuf};

/// The absolute form. A symbolic link stays a link; only what stands before a `..` is resolved, because the parent of a
/// link's target is not the link's parent. If that does not exist, the text alone counts, and whoever uses the path says so.
pub(crate) fn absolute(path: &Path, directory: &Path) -> PathBuf {
    let joined = directory.join(path);
    let mut out = PathBuf::from("/");
    for part in joined.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                if let Ok(real) = out.canonicalize() {
                    out = real;
                }
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_without_dots() {
        let here = Path::new("/no such place/b");
        for (path, expected) in [
            ("x", "/no such place/b/x"),
            (".", "/no such place/b"),
            ("./x//y/.", "/no such place/b/x/y"),
            ("../x", "/no such place/x"),
            ("../../../..", "/"),
            ("/etc/", "/etc"),
        ] {
            assert_eq!(absolute(Path::new(path), here), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn the_parent_of_a_link_is_that_of_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        std::os::unix::fs::symlink(base.join("a/b"), base.join("link")).unwrap();
        assert_eq!(absolute(Path::new("link/../x"), &base), base.join("a/x"));
        assert_eq!(absolute(Path::new("link"), &base), base.join("link"));
    }
}
