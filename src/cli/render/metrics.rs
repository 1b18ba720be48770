//! How a repository and the jobs of this machine stand, in the text format of Prometheus.

use std::fmt::Write;

use lifeboat::clock::Timestamp;
use lifeboat::id::RepositoryId;
use lifeboat::ops::status::{JobStatus, Protected, Status};
use lifeboat::schedule::Standing;

use super::super::jobs::{Known, Stand};
use super::sanitize;

/// Samples of one name.
struct Family {
    name: &'static str,
    help: &'static str,
    samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Family {
    fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, samples: Vec::new() }
    }

    fn add(&mut self, labels: &[(&'static str, &str)], value: Option<f64>) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.extend(value.map(|value| (labels, value)));
    }

    /// Every value is one that goes up and down: counters would begin anew with each file.
    fn write(&self, out: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        let name = self.name;
        // A string takes everything.
        let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} gauge", self.help);
        for (labels, value) in &self.samples {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let _ = writeln!(out, "{name}{{{}}} {value}", labels.join(","));
        }
    }
}

/// A value of a label.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

fn seconds(time: Timestamp) -> f64 {
    // Milliseconds are kept; a float of nanoseconds has no room for more.
    (time.0 / 1_000_000) as f64 / 1000.0
}

/// All that there is to say of a repository, and of the runs on this machine that concern it.
pub(crate) fn text(repository: RepositoryId, status: &Status, stands: &[Stand]) -> String {
    let id = repository.to_string();
    let mut out = String::new();
    let families = jobs(&id, &status.jobs).into_iter().chain(runs(&id, stands)).chain(whole(&id, status));
    families.for_each(|family| family.write(&mut out));
    out
}

/// Jobs, by what is confirmed of them in the repository, whichever machine they run on.
fn jobs(id: &str, jobs: &[JobStatus]) -> [Family; 6] {
    let mut families = [
        Family::new(
            "lifeboat_job_last_success_timestamp_seconds",
            "When the store got the last confirmed snapshot of a job.",
        ),
        Family::new("lifeboat_job_last_bytes", "Bytes of the content of that snapshot."),
        Family::new("lifeboat_job_last_new_bytes", "Bytes of it that no earlier snapshot had."),
        Family::new("lifeboat_job_snapshots", "Confirmed snapshots of a job that nobody forgot."),
        Family::new("lifeboat_job_held", "Those of them on which a hold stands."),
        Family::new("lifeboat_job_unconfirmed", "Snapshots newer than that which were not confirmed."),
    ];
    for job in jobs {
        let (host, name) = (sanitize::name(&job.host), sanitize::name(&job.job));
        let labels = [("repository", id), ("host", &host), ("job", &name)];
        let last = job.last.as_ref();
        let values = [
            last.map(|info| seconds(info.counted())),
            last.map(|info| info.snapshot.totals.bytes as f64),
            last.map(|info| info.snapshot.new_bytes as f64),
            Some(job.snapshots as f64),
            Some(job.held as f64),
            Some(job.open as f64),
        ];
        families.iter_mut().zip(values).for_each(|(family, value)| family.add(&labels, value));
    }
    families
}

/// Runs of the configuration, by what this machine remembers of them.
fn runs(id: &str, stands: &[Stand]) -> [Family; 7] {
    let mut families = [
        Family::new("lifeboat_run_last_begin_timestamp_seconds", "When the last run began."),
        Family::new(
            "lifeboat_run_last_duration_seconds",
            "How long it took; absent while it is at work or if it was interrupted.",
        ),
        Family::new("lifeboat_run_last_exit_code", "Its exit code."),
        Family::new("lifeboat_run_last_success_timestamp_seconds", "When the last good run ended."),
        Family::new("lifeboat_run_consecutive_failures", "Runs that were not good since then."),
        Family::new(
            "lifeboat_run_missed",
            "1 if no run ended well when one was due, or the last one failed.",
        ),
        Family::new("lifeboat_run_next_timestamp_seconds", "When the next run is due."),
    ];
    for stand in stands {
        let labels = [("repository", id), ("kind", stand.kind.name()), ("name", stand.name.as_str())];
        let record = match &stand.known {
            Known::Run(record) => Some(record),
            Known::Never | Known::Unknown => None,
        };
        let ended = record.and_then(|record| Some((record, record.ended?)));
        let missed = !matches!(stand.standing, Standing::Good);
        let values = [
            record.map(|record| seconds(Timestamp(record.began))),
            ended.map(|(record, ended)| seconds(Timestamp(ended.saturating_sub(record.began)))),
            ended.and_then(|(record, _)| record.code).map(f64::from),
            record.and_then(|record| record.last_good).map(|at| seconds(Timestamp(at))),
            record
                .map(|record| if record.good() || stand.at_work { 0.0 } else { f64::from(record.attempts) }),
            Some(f64::from(u8::from(missed))),
            stand.next.map(seconds),
        ];
        families.iter_mut().zip(values).for_each(|(family, value)| family.add(&labels, value));
    }
    families
}

/// The repository itself.
fn whole(id: &str, status: &Status) -> [Family; 10] {
    let mut families = [
        Family::new("lifeboat_repository_bytes", "Bytes of packs and of files of databases' logs."),
        Family::new("lifeboat_repository_objects", "How many these are."),
        Family::new("lifeboat_repository_unreadable_snapshots", "Snapshots that cannot be read."),
        Family::new(
            "lifeboat_repository_locked_until_timestamp_seconds",
            "When the first of what confirmed snapshots need can be deleted.",
        ),
        Family::new(
            "lifeboat_verify_last_end_timestamp_seconds",
            "When the last verification of content ended.",
        ),
        Family::new("lifeboat_verify_damages", "Damages that it knew of."),
        Family::new("lifeboat_verified_bytes", "Bytes that were opened and checked."),
        Family::new(
            "lifeboat_verify_oldest_timestamp_seconds",
            "When what waits for longest was opened and checked, or stored.",
        ),
        Family::new("lifeboat_verify_damaged_objects", "Objects that are known to be damaged."),
        Family::new("lifeboat_collected_timestamp_seconds", "When these figures were collected."),
    ];
    let locked = match status.protected {
        Protected::Until(protection) => protection.first.map(seconds),
        Protected::Unlocked | Protected::Unknown => None,
    };
    let coverage = status.coverage.as_ref();
    let values = [
        coverage.map(|coverage| coverage.bytes as f64),
        coverage.map(|coverage| coverage.objects as f64),
        Some(status.unreadable.len() as f64),
        locked,
        status.verified.map(|end| seconds(end.at)),
        status.verified.map(|end| end.damages as f64),
        coverage.map(|coverage| coverage.verified as f64),
        coverage.and_then(|coverage| coverage.oldest).map(seconds),
        coverage.map(|coverage| coverage.damaged as f64),
        Some(seconds(status.now)),
    ];
    families.iter_mut().zip(values).for_each(|(family, value)| family.add(&[("repository", id)], value));
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_within_their_quotes() {
        let mut family = Family::new("x", "Something.");
        family.add(&[("job", "a\"} 1\n# \\ ü")], Some(2.5));
        family.add(&[("job", "none")], None);
        let mut out = String::new();
        family.write(&mut out);
        assert_eq!(out, "# HELP x Something.\n# TYPE x gauge\nx{job=\"a\\\"} 1\\n# \\\\  ü\"} 2.5\n");
        let mut out = String::new();
        Family::new("y", "Nothing.").write(&mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_time_is_in_seconds() {
        assert_eq!(format!("{}", seconds(Timestamp(1_795_919_228_096_052_479))), "1795919228.096");
    }
}
