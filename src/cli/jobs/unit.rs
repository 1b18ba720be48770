//! What `schedule install` writes: a service and a timer of systemd, or a line for cron. Pure text.
//!
//! The timer only asks: every five minutes `lifeboat run` finds out by itself what is due. So a schedule is changed in the
//! configuration alone, and what a machine slept through or a change of clocks means is decided in one place.

use std::path::{Path, PathBuf};

use lifeboat::store::StoreUrl;

use super::super::config::Config;
use super::super::report::quote;

/// The first line of everything that is written, by which it is known again.
pub(crate) const MARK: &str =
    "# Written by `lifeboat schedule install`; `lifeboat schedule remove` takes it away.";
/// The names of the files.
pub(crate) const SERVICE: &str = "lifeboat.service";
pub(crate) const TIMER: &str = "lifeboat.timer";

/// What the units are made of.
pub(crate) struct Install<'a> {
    pub(crate) config: &'a Config,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Where the configuration is looked for, if that is not where the service would by itself.
    pub(crate) base: Option<PathBuf>,
    /// Of the user's own systemd.
    pub(crate) user: bool,
    /// Directories that it writes to: state and cache.
    pub(crate) writes: Vec<PathBuf>,
}

const TIMER_TEXT: &str = "
[Unit]
Description=Lifeboat asks which jobs are due

[Timer]
OnCalendar=*:0/5
Persistent=true
AccuracySec=30s

[Install]
WantedBy=timers.target
";

/// Holds for every service.
const ALWAYS: &str = "\
UMask=0077
RestrictRealtime=yes
KillMode=mixed
TimeoutStartSec=infinity
TimeoutStopSec=5min
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
";

/// Where nothing but this program runs.
const ALONE: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
";

/// What a user's own systemd cannot give. Nothing here hides a file: all of them may be sources.
const OF_MACHINE: &str = "\
StateDirectory=lifeboat
StateDirectoryMode=0700
CacheDirectory=lifeboat
CacheDirectoryMode=0700
ProtectSystem=strict
ProtectHome=read-only
ProtectControlGroups=yes
ProtectKernelTunables=yes
ProtectHostname=yes
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_PTRACE CAP_SYS_BOOT CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_NET_ADMIN CAP_NET_RAW
";

impl Install<'_> {
    /// The service.
    pub(crate) fn service(&self) -> String {
        let mut out = format!("{MARK}\n\n[Unit]\nDescription=Lifeboat runs the jobs that are due\n");
        if !self.user {
            out.push_str("Wants=network-online.target\nAfter=network-online.target\n");
        }
        let command: Vec<String> = self.command.iter().map(|word| escaped(word).replace('$', "$$")).collect();
        out.push_str("\n[Service]\nType=oneshot\n");
        if !self.user {
            // Who is named has a home, where credentials of clouds are looked for.
            out.push_str("User=root\n");
        }
        out.push_str(&format!("{EXEC}{}\n", command.join(" ")));
        if let Some(base) = &self.base {
            let variable = format!("{BASE}={}", base.display());
            out.push_str(&format!("{ENVIRONMENT}{}\n", escaped(&variable)));
        }
        for repository in &self.config.repositories {
            for key in ["key-credential", "password-credential"] {
                if let Some(name) = repository.section.text(key) {
                    out.push_str(&format!("LoadCredential={}\n", name.replace('%', "%%")));
                }
            }
        }
        out.push_str(ALWAYS);
        let all = self.config.repositories.iter().chain(&self.config.jobs);
        if all.into_iter().any(|named| named.section.names_commands()) {
            out.push_str("# The configuration names commands, which may need more than a backup does.\n");
            return out;
        }
        out.push_str(ALONE);
        if !self.user {
            out.push_str(OF_MACHINE);
            for path in self.writes.iter().cloned().chain(self.local()).chain(self.measured()) {
                // A disk may be away when the unit starts.
                out.push_str(&format!("ReadWritePaths=-{}\n", escaped(&path.display().to_string())));
            }
        }
        out
    }

    /// Directories of this machine that repositories lie in.
    fn local(&self) -> impl Iterator<Item = PathBuf> {
        let locations = self.config.repositories.iter().filter_map(|named| named.section.text("location"));
        locations.filter_map(|location| {
            let url: StoreUrl = location.parse().ok()?;
            url.local_path().map(Path::to_path_buf)
        })
    }

    /// Directories that metrics are written into.
    fn measured(&self) -> impl Iterator<Item = PathBuf> {
        let files = self.config.repositories.iter().filter_map(|named| named.section.text("metrics"));
        files.filter_map(|file| Path::new(file).parent().map(Path::to_path_buf))
    }

    /// The timer.
    pub(crate) fn timer(&self) -> String {
        format!("{MARK}\n{TIMER_TEXT}")
    }

    /// A line for a crontab; cron mails what is printed.
    pub(crate) fn cron(&self) -> String {
        let words: Vec<String> = self.command.iter().map(|word| quote(word).replace('%', "\\%")).collect();
        let base = self
            .base
            .as_ref()
            .map(|base| format!("{BASE}={} ", quote(&base.display().to_string()).replace('%', "\\%")));
        format!("*/5 * * * * {}{} --quiet-unless-error\n", base.unwrap_or_default(), words.join(" "))
    }
}

/// Says where the configuration directory is.
const BASE: &str = "XDG_CONFIG_HOME";
const EXEC: &str = "ExecStart=";
const ENVIRONMENT: &str = "Environment=";

/// What a service starts, and with what: two that differ here do different things.
pub(crate) fn started_by(service: &str) -> Vec<&str> {
    service.lines().filter(|line| line.starts_with(EXEC) || line.starts_with(ENVIRONMENT)).collect()
}

/// A word of a unit file: quoted if it has to be, percent signs doubled.
fn escaped(word: &str) -> String {
    let word = word.replace('%', "%%");
    if !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "/._-:@=+,%".contains(c)) {
        return word;
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_one_word_each_whatever_is_in_them() {
        for (word, text) in
            [("/usr/bin/lifeboat", "/usr/bin/lifeboat"), ("/a b", "\"/a b\""), ("50%", "50%%")]
        {
            assert_eq!(escaped(word), text);
        }
        assert_eq!(escaped("a\"\n\\"), "\"a\\\"\\n\\\\\"");
        let config = Config::default();
        let command = vec!["/opt/life boat".to_owned(), "$x".to_owned(), "run".to_owned()];
        let base = Some("/c d".into());
        let install = Install { config: &config, command, base, user: false, writes: vec!["/s t".into()] };
        let service = install.service();
        assert!(service.contains("ExecStart=\"/opt/life boat\" \"$$x\" run\n"), "{service}");
        assert!(service.contains("ReadWritePaths=-\"/s t\"\n"), "{service}");
        assert!(service.contains("Environment=\"XDG_CONFIG_HOME=/c d\"\n"), "{service}");
        assert_eq!(started_by(&service).len(), 2);
        assert_eq!(
            install.cron(),
            "*/5 * * * * XDG_CONFIG_HOME='/c d' '/opt/life boat' '$x' run --quiet-unless-error\n"
        );
    }
}
