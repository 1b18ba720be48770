//! Where things lie on this machine.
//!
//! | | user | root |
//! |---|---|---|
//! | default repository | `$XDG_DATA_HOME/lifeboat/repo` | `/var/lib/lifeboat/repo` |
//! | its key file | `$XDG_CONFIG_HOME/lifeboat/default.key` | `/etc/lifeboat/default.key` |
//! | configuration | `$XDG_CONFIG_HOME/lifeboat` | `/etc/lifeboat` |
//! | state | `$XDG_STATE_HOME/lifeboat` | `/var/lib/lifeboat/state` |
//! | cache | `$XDG_CACHE_HOME/lifeboat` | `/var/cache/lifeboat` |
//!
//! An XDG variable that is set counts for root, too; one that is not means its usual place below `$HOME`.

use std::path::PathBuf;

use super::environment::Surroundings;
use super::error::CliError;

/// Where the default repository and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultRepository {
    pub(crate) directory: PathBuf,
    pub(crate) key_file: PathBuf,
}

struct Kind {
    variable: &'static str,
    below_home: &'static str,
    leaf: &'static str,
    of_root: &'static str,
}

impl Kind {
    fn find(&self, around: &Surroundings) -> Option<PathBuf> {
        if let Some(base) = around.absolute(self.variable) {
            return Some(base.join(self.leaf));
        }
        if around.is_root {
            return Some(PathBuf::from(self.of_root));
        }
        Some(around.absolute("HOME")?.join(self.below_home).join(self.leaf))
    }
}

const REPOSITORY: Kind = Kind {
    variable: "XDG_DATA_HOME",
    below_home: ".local/share",
    leaf: "lifeboat/repo",
    of_root: "/var/lib/lifeboat/repo",
};
const KEY: Kind = Kind {
    variable: "XDG_CONFIG_HOME",
    below_home: ".config",
    leaf: "lifeboat/default.key",
    of_root: "/etc/lifeboat/default.key",
};
const CONFIGURATION: Kind =
    Kind { variable: "XDG_CONFIG_HOME", below_home: ".config", leaf: "lifeboat", of_root: "/etc/lifeboat" };
const STATE: Kind = Kind {
    variable: "XDG_STATE_HOME",
    below_home: ".local/state",
    leaf: "lifeboat",
    of_root: "/var/lib/lifeboat/state",
};
const CACHE: Kind = Kind {
    variable: "XDG_CACHE_HOME",
    below_home: ".cache",
    leaf: "lifeboat",
    of_root: "/var/cache/lifeboat",
};

/// The default repository.
pub(crate) fn default_repository(around: &Surroundings) -> Result<DefaultRepository, CliError> {
    match (REPOSITORY.find(around), KEY.find(around)) {
        (Some(directory), Some(key_file)) => Ok(DefaultRepository { directory, key_file }),
        _ => Err(CliError::NoHome { what: "default repository", option: "--repo" }),
    }
}

/// Where the configuration is looked for; `None` if there is no home.
pub(crate) fn configuration(around: &Surroundings) -> Option<PathBuf> {
    CONFIGURATION.find(around)
}

/// Where units of the user's own systemd lie; `None` if there is no home.
pub(crate) fn user_units(around: &Surroundings) -> Option<PathBuf> {
    let base =
        around.absolute("XDG_CONFIG_HOME").or_else(|| Some(around.absolute("HOME")?.join(".config")))?;
    Some(base.join("systemd/user"))
}

/// Where state is kept.
pub(crate) fn state(around: &Surroundings, given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    given
        .or_else(|| around.get("LIFEBOAT_STATE_DIR").map(PathBuf::from))
        .or_else(|| STATE.find(around))
        .map(|path| around.directory.join(path))
        .ok_or(CliError::NoHome { what: "state directory", option: "--state-dir" })
}

/// Where is cached.
pub(crate) fn cache(around: &Surroundings, given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    given
        .or_else(|| around.get("LIFEBOAT_CACHE_DIR").map(PathBuf::from))
        .or_else(|| CACHE.find(around))
        .map(|path| around.directory.join(path))
        .ok_or(CliError::NoHome { what: "cache", option: "--cache-dir or --no-cache" })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn xdg_variables_count_before_home_and_only_if_absolute() {
        let around =
            Surroundings::of(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s"), ("XDG_CACHE_HOME", "c")]);
        assert_eq!(state(&around, None).unwrap(), Path::new("/s/lifeboat"));
        assert_eq!(cache(&around, None).unwrap(), Path::new("/home/a/.cache/lifeboat"));
        let default = default_repository(&around).unwrap();
        assert_eq!(default.directory, Path::new("/home/a/.local/share/lifeboat/repo"));
        assert_eq!(default.key_file, Path::new("/home/a/.config/lifeboat/default.key"));
    }

    #[test]
    fn an_option_counts_before_all_and_relative_paths_start_here() {
        let around = Surroundings::of(&[("LIFEBOAT_STATE_DIR", "/v"), ("HOME", "/home/a")]);
        assert_eq!(state(&around, None).unwrap(), Path::new("/v"));
        assert_eq!(state(&around, Some("x".into())).unwrap(), Path::new("/somewhere/x"));
    }

    #[test]
    fn without_a_home_the_error_names_the_option() {
        let around = Surroundings::of(&[]);
        assert!(state(&around, None).unwrap_err().to_string().contains("state directory"));
        assert!(matches!(
            cache(&around, None),
            Err(CliError::NoHome { option: "--cache-dir or --no-cache", .. })
        ));
        let mut root = Surroundings::of(&[]);
        root.is_root = true;
        assert_eq!(cache(&root, None).unwrap(), Path::new("/var/cache/lifeboat"));
        assert_eq!(default_repository(&root).unwrap().key_file, Path::new("/etc/lifeboat/default.key"));
    }
}
