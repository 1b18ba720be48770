//! One run of one thing: is it due, may it run, what does it do, how did it end.

use std::path::Path;

use jiff::tz::TimeZone;
use lifeboat::class::Class;
use lifeboat::clock::Timestamp;
use lifeboat::ops::backup::BackupSummary;
use lifeboat::ops::gc::PruneReport;
use lifeboat::ops::verify::{Depth, VerifyOptions, VerifyReport, verify_with};
use lifeboat::repo::Task;
use lifeboat::schedule::{Due, Plan};

use super::super::command::{backup, forget, prune, verify};
use super::super::config::{Named, Section};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::observe::words;
use super::super::session::Session;
use super::super::settings::Settings;
use super::hook::{self, Hook};
use super::lock::Lock;
use super::record::{Kind, Known, Place, Record, Subject};
use super::standing::next;

/// What is to be run.
pub(crate) struct Work<'a> {
    pub(crate) kind: Kind,
    /// The job, or the repository that is pruned.
    pub(crate) what: &'a Named,
    pub(crate) repository: &'a Named,
    pub(crate) plan: Option<Plan>,
    /// It was named, so it runs without a schedule, and says so if another run is at work.
    pub(crate) named: bool,
    pub(crate) force: bool,
    pub(crate) dry_run: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ran, and ended so.
    Ran(Exit),
    /// It was left alone, for this reason.
    Skipped(String),
    /// It would run.
    Due,
}

/// What there is to say of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) repository: String,
    pub(crate) outcome: Outcome,
    pub(crate) began: Option<Timestamp>,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) next: Option<Timestamp>,
    pub(crate) backup: Option<BackupSummary>,
    /// Kept and forgotten.
    pub(crate) retention: Option<(usize, usize)>,
    pub(crate) prune: Option<PruneReport>,
    pub(crate) verify: Option<VerifyReport>,
    pub(crate) message: Option<String>,
    /// It ran, and its end says nothing of it: it was stopped, or found somebody else at work.
    pub(crate) open: bool,
}

impl Report {
    /// How it counts in the exit code of all.
    pub(crate) fn exit(&self) -> Exit {
        match self.outcome {
            Outcome::Ran(exit) => exit,
            Outcome::Skipped(_) | Outcome::Due => Exit::Done,
        }
    }

    /// Keeps the first message, and the worse end.
    fn add(&mut self, exit: Exit, message: Option<String>) {
        let before = self.exit();
        self.open |= matches!(exit, Exit::Signal(_) | Exit::Class(Class::Cancelled | Class::Busy));
        self.outcome = Outcome::Ran(worst([before, exit]));
        self.message = self.message.take().or(message);
    }
}

/// The worst of these ends.
pub(crate) fn worst(exits: impl IntoIterator<Item = Exit>) -> Exit {
    // From the worst to the best. A signal is worse than all of them.
    const ORDER: [u8; 13] = [15, 4, 14, 12, 13, 10, 8, 7, 2, 1, 11, 5, 3];
    let rank = |exit: &Exit| match exit {
        Exit::Done => ORDER.len() + 1,
        Exit::Signal(_) => 0,
        other => 1 + ORDER.iter().position(|code| *code == other.code()).unwrap_or(0),
    };
    exits.into_iter().min_by_key(rank).unwrap_or(Exit::Done)
}

impl Work<'_> {
    fn place(&self, state: &Path) -> Place {
        Place::new(state, Subject::new(self.kind, self.what, self.repository))
    }

    /// Whether the last run of it did not end. One that ends the whole process each time must not keep others from running.
    pub(crate) fn was_interrupted(&self, state: &Path) -> bool {
        self.place(state).read().record().is_some_and(|record| record.ended.is_none())
    }

    /// Leaves it alone for this reason.
    pub(crate) fn skip(&self, session: &Session, reason: String) -> Report {
        let known = self.place(&session.settings.places.state).read();
        Report { outcome: Outcome::Skipped(reason), ..self.report(&known, session.env.clock.now()) }
    }

    /// Runs it if it is due.
    pub(crate) async fn run(&self, session: &Session) -> Report {
        let place = self.place(&session.settings.places.state);
        let clock = &*session.env.clock;
        let now = clock.now();
        let known = place.read();
        let mut report = self.report(&known, now);
        let slot = match self.due(&known, now) {
            Ok(slot) => slot,
            Err(reason) => {
                report.outcome = Outcome::Skipped(reason);
                return report;
            }
        };
        if self.dry_run {
            report.outcome = Outcome::Due;
            return report;
        }
        let lock = match Lock::take(&place, clock, &session.env.cancel).await {
            Ok(Some(lock)) => lock,
            Ok(None) => return self.at_work(report, session),
            Err(source) => return refused(report, session, self.state_error(source)),
        };
        // Whoever had the lock until now may have run it.
        let known = place.read();
        if let Err(reason) = self.due(&known, now) {
            report.next = self.next(&known, now);
            report.outcome = Outcome::Skipped(reason);
            return report;
        }
        let record = Record::begin(place.subject().clone(), (slot, now), &known);
        if let Err(source) = place.write(&record) {
            return refused(report, session, self.state_error(source));
        }
        report.began = Some(now);
        report.outcome = Outcome::Ran(Exit::Done);
        self.work(session, &mut report).await;
        self.end(session, (&place, record), &mut report);
        drop(lock);
        report
    }

    /// When it is due next, by what is known of it.
    fn next(&self, known: &Known, now: Timestamp) -> Option<Timestamp> {
        self.plan.as_ref().and_then(|plan| next(plan, known, now))
    }

    fn report(&self, known: &Known, now: Timestamp) -> Report {
        Report {
            kind: self.kind,
            name: self.what.name.clone(),
            repository: self.repository.name.clone(),
            outcome: Outcome::Due,
            began: None,
            ended: None,
            next: self.next(known, now),
            backup: None,
            retention: None,
            prune: None,
            verify: None,
            message: None,
            open: false,
        }
    }

    /// The slot that is to be run now, or why none is.
    fn due(&self, known: &Known, now: Timestamp) -> Result<Timestamp, String> {
        let zone = TimeZone::system();
        let Some(plan) = &self.plan else {
            return if self.named { Ok(now) } else { Err("it has no schedule".to_owned()) };
        };
        match plan.due(known.last().as_ref(), now, &zone) {
            Due::Now(slot) => Ok(slot),
            Due::Later(_) if self.force => Ok(plan.slot(now, &zone).unwrap_or(now)),
            Due::Later(Some(at)) => {
                Err(format!("not due before {}", super::super::render::time::local(at.0)))
            }
            Due::Later(None) => Err("not due".to_owned()),
        }
    }

    /// Another run has the lock: that is what a timer finds while a long one goes on, and an error for who asked for this one.
    fn at_work(&self, mut report: Report, session: &Session) -> Report {
        if !self.named && !self.force {
            report.outcome = Outcome::Skipped("another run of it is at work".to_owned());
            return report;
        }
        let error = CliError::AtWork { kind: self.kind.name(), name: self.what.name.clone() };
        refused(report, session, error)
    }

    fn state_error(&self, source: std::io::Error) -> CliError {
        CliError::State { kind: self.kind.name(), name: self.what.name.clone(), source }
    }

    /// Notes the end. What was stopped by a signal, or found a backup of this job by hand at work, did not end: it is due again.
    fn end(&self, session: &Session, (place, mut record): (&Place, Record), report: &mut Report) {
        let now = session.env.clock.now();
        let exit = report.exit();
        report.ended = Some(now);
        record.code = Some(exit.code());
        record.message = report.message.clone();
        record.snapshot =
            report.backup.as_ref().and_then(|done| done.snapshot).map(|snapshot| snapshot.to_string());
        record.missing = report.backup.as_ref().map_or(0, |done| done.missing.len() as u64);
        if !report.open {
            record.end(now);
        }
        if let Err(source) = place.write(&record) {
            let error = self.state_error(source);
            let message = words::chain(&error);
            report.add(session.fail(&error), Some(message));
        }
        // As it is remembered: what could not be noted is due again.
        report.next = self.next(&place.read(), now);
    }

    /// What it does, with what is around it.
    async fn work(&self, session: &Session, report: &mut Report) {
        let hooks = self.what.section.section("hooks").filter(|_| self.kind == Kind::Backup);
        let hooks = hooks.cloned().unwrap_or_default();
        let before = self.hook(Hook::Before, (&hooks, session), report).await;
        if before {
            match self.kind {
                Kind::Backup => self.save(session, report).await,
                Kind::Prune => self.collect(session, report).await,
                Kind::Verify => self.verify(session, report).await,
            }
        }
        let good = matches!(report.exit(), Exit::Done | Exit::Class(Class::Partial));
        let hook = if before && good { Hook::After } else { Hook::Failed };
        self.hook(hook, (&hooks, session), report).await;
        self.hook(Hook::Always, (&hooks, session), report).await;
    }

    /// Runs the commands of one hook; says whether they did what they should. After the backup a hook that fails makes the run
    /// one with entries that failed, because the snapshot is there.
    async fn hook(&self, hook: Hook, (hooks, session): (&Section, &Session), report: &mut Report) -> bool {
        let mut variables = vec![
            ("LIFEBOAT_JOB", self.what.name.clone()),
            ("LIFEBOAT_REPOSITORY", self.repository.name.clone()),
        ];
        if hook != Hook::Before {
            let snapshot = report.backup.as_ref().and_then(|done| done.snapshot);
            variables.push(("LIFEBOAT_EXIT_CODE", report.exit().code().to_string()));
            variables.push(("LIFEBOAT_SNAPSHOT", snapshot.map(|id| id.to_string()).unwrap_or_default()));
            variables
                .push(("LIFEBOAT_MESSAGE", report.message.clone().unwrap_or_default().replace('\0', "")));
        }
        let ran = hook::run(hook, hooks, (&session.around, &variables), &session.env.cancel);
        let Err(error) = ran.await else {
            return true;
        };
        let exit = session.fail(&error);
        let soft = matches!(hook, Hook::After | Hook::Always) && !matches!(exit, Exit::Signal(_));
        report.add(if soft { Exit::Class(Class::Partial) } else { exit }, Some(words::chain(&error)));
        false
    }

    /// Does one thing with the repository, in a session of its own that stops when this one does. `act` gives how it ended, what
    /// went wrong then, and what came of it.
    async fn step<T>(
        &self,
        session: &Session,
        report: &mut Report,
        act: impl AsyncFnOnce(&mut Session) -> Result<(Exit, Option<String>, T), CliError>,
    ) -> Option<T> {
        let settings = match Settings::of(self.repository, &session.settings.typed, &session.around) {
            Ok(settings) => settings,
            Err(error) => {
                report.add(session.fail(&error), Some(words::chain(&error)));
                return None;
            }
        };
        let mut child = session.within(settings);
        match act(&mut child).await {
            Ok((exit, message, value)) => {
                let ended = child.finish(Ok(exit));
                let other =
                    (ended != exit).then(|| "the repository is not what this machine has seen".to_owned());
                report.add(ended, other.or(message));
                Some(value)
            }
            Err(error) => {
                let message = words::chain(&error);
                report.add(child.finish(Err(error)), Some(message));
                None
            }
        }
    }

    /// Backup, and what the job's retention says if that stored something.
    async fn save(&self, session: &Session, report: &mut Report) {
        let host = host_of(self.what);
        let done = self.step(session, report, async |child| {
            let done = backup::save(child, super::backup_args(self.what)?).await?;
            Ok((backup::exit(&done), None, done))
        });
        report.backup = done.await;
        let Some(done) = &report.backup else { return };
        if let Some(stopped) = session.stopped() {
            return report.add(stopped, None);
        }
        if !matches!(report.exit(), Exit::Done | Exit::Class(Class::Partial)) {
            return;
        }
        if let [first, rest @ ..] = done.missing.as_slice() {
            // Snapshots without it would take the place of those that have it.
            let and = words::and_more(rest.len());
            let message =
                format!("{}{and}: the source is not there, so nothing is forgotten", first.display());
            return report.add(Exit::Class(Class::Partial), Some(message));
        }
        let forget = match super::forget_args(self.what, &host) {
            Ok(Some(args)) => args,
            Ok(None) => return,
            Err(error) => return report.add(session.fail(&error), Some(words::chain(&error))),
        };
        let counted = self.step(session, report, async |child| {
            let done = forget::carry_out(child, forget).await?;
            Ok((done.exit(), done.damage(), done.counts()))
        });
        report.retention = counted.await;
    }

    /// Prune, as the repository's table says.
    async fn collect(&self, session: &Session, report: &mut Report) {
        let table = self.what.section.section("prune").cloned().unwrap_or_default();
        let done = self.step(session, report, async |child| {
            let options = super::prune_options(self.what, &table)?;
            let repository = child.repository(Task::Prune).await?;
            let done = prune::carry_out(child, &repository, &options).await?;
            Ok((prune::exit(&done), prune::damage(&done), done))
        });
        report.prune = done.await;
    }

    /// Verify, as the repository's table says, as closely as its key can.
    async fn verify(&self, session: &Session, report: &mut Report) {
        let table = self.what.section.section("verify").cloned().unwrap_or_default();
        let done = self.step(session, report, async |child| {
            let args = super::verify_args(self.what, &table)?;
            let repository = child.repository(Task::Verify).await?;
            let depth = if args.packs { Depth::Packs } else { verify::deepest(&repository) };
            let options = VerifyOptions { depth, budget: args.budget, record: true };
            let done = verify_with(&repository, &options).await?;
            verify::tell(child, &done);
            Ok((verify::exit(&done), verify::damage(&done), done))
        });
        report.verify = done.await;
    }
}

/// The machine that a job's snapshots are of.
pub(crate) fn host_of(job: &Named) -> Vec<u8> {
    job.section.text("host").map_or_else(backup::host, |host| host.as_bytes().to_vec())
}

fn refused(mut report: Report, session: &Session, error: CliError) -> Report {
    report.message = Some(words::chain(&error));
    report.outcome = Outcome::Ran(session.fail(&error));
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_end_decides() {
        let class = Exit::Class;
        for (exits, expected) in [
            (&[][..], Exit::Done),
            (&[Exit::Done, class(Class::Partial)], class(Class::Partial)),
            (&[class(Class::Partial), class(Class::Failed), Exit::Done], class(Class::Failed)),
            (&[class(Class::Unreachable), class(Class::Damage)], class(Class::Damage)),
            (&[class(Class::Busy), class(Class::Partial)], class(Class::Busy)),
            (&[class(Class::Tampered), class(Class::Damage)], class(Class::Tampered)),
            (&[class(Class::Tampered), Exit::Signal(15)], Exit::Signal(15)),
        ] {
            assert_eq!(worst(exits.iter().copied()), expected, "{exits:?}");
            assert_eq!(worst(exits.iter().rev().copied()), expected, "{exits:?}");
        }
    }
}
