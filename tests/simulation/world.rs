//! The world of a history: the store, the machines, and who may go next.
//!
//! Every request waits here. When each machine waits or has ended, the dice choose one and what befalls its request. So
//! the order of requests follows from the seed, although the operations use threads.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lifeboat::clock::Timestamp;
use object_store::path::Path;
use object_store::{ObjectMeta, Result};
use tokio::sync::{Notify, oneshot};

use crate::chance::Dice;
use crate::fault::{Fault, Weather};
use crate::judge::Judge;
use crate::store::{Answer, Request, dead, full, not_found, unreachable};

/// The store's clock at the beginning: 2100-01-01.
pub const BEGIN: i64 = 4_102_444_800 * SECOND;
pub const SECOND: i64 = 1_000_000_000;
pub const DAY: i64 = 86_400 * SECOND;

/// One run of one machine, from its start to its end or death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub actor: usize,
    pub number: u64,
}

/// An object.
#[derive(Debug, Clone)]
pub struct Object {
    pub bytes: Bytes,
    pub modified: i64,
}

pub type Objects = BTreeMap<String, Object>;

struct Pending {
    request: Request,
    reply: oneshot::Sender<Result<Answer>>,
}

/// A machine.
struct Actor {
    name: String,
    queue: VecDeque<Pending>,
    life: u64,
    is_dead: bool,
    has_ended: bool,
    asleep_until: u64,
    /// Faults of this life that it may notice.
    faults: u64,
    /// The request that failed last: when it is tried again, it goes before what came meanwhile.
    failed: Option<String>,
}

/// A line of the trace.
struct Line {
    step: u64,
    actor: Option<usize>,
    verb: &'static str,
    key: String,
    fault: Fault,
    good: bool,
}

pub struct Inner {
    pub objects: Objects,
    pub judge: Judge,
    actors: Vec<Actor>,
    late: Vec<(u64, Request)>,
    dice: Dice,
    weather: Weather,
    /// One grant in so many goes to another machine than the last.
    changes: u64,
    last: usize,
    step: u64,
    trace: Vec<Line>,
    /// No turns and no faults any more.
    is_calm: bool,
    /// Some mark is damaged for good: what goes by it has to stop.
    pub is_rotten: bool,
}

pub struct World {
    inner: Mutex<Inner>,
    changed: Notify,
    pub clock: Arc<AtomicI64>,
}

impl World {
    pub fn new(objects: Objects, judge: Judge, (mut dice, weather): (Dice, Weather)) -> Arc<Self> {
        let changes = dice.pick(&[1, 2, 2, 6, 20]);
        let inner = Inner {
            objects,
            judge,
            actors: Vec::new(),
            late: Vec::new(),
            dice,
            weather,
            changes,
            last: 0,
            step: 0,
            trace: Vec::new(),
            is_calm: false,
            is_rotten: false,
        };
        let clock = Arc::new(AtomicI64::new(BEGIN));
        Arc::new(Self { inner: Mutex::new(inner), changed: Notify::new(), clock })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a machine.
    pub fn add(&self, name: &str) -> usize {
        let mut inner = self.lock();
        inner.actors.push(Actor {
            name: name.to_owned(),
            queue: VecDeque::new(),
            life: 0,
            is_dead: false,
            has_ended: false,
            asleep_until: 0,
            faults: 0,
            failed: None,
        });
        inner.actors.len() - 1
    }

    /// A machine begins a run.
    pub fn begin(&self, actor: usize) -> Life {
        let mut inner = self.lock();
        inner.judge.begin(actor);
        let state = &mut inner.actors[actor];
        state.life += 1;
        (state.is_dead, state.faults, state.failed) = (false, 0, None);
        Life { actor, number: state.life }
    }

    /// A machine will make no further run.
    pub fn end(&self, actor: usize) {
        self.lock().actors[actor].has_ended = true;
        self.changed.notify_one();
    }

    /// Whether anything befell this life that explains an error.
    pub fn is_excused(&self, life: Life) -> bool {
        let inner = self.lock();
        let actor = &inner.actors[life.actor];
        inner.is_rotten || actor.is_dead || actor.faults > 0
    }

    pub async fn ask(&self, life: Life, request: Request) -> Result<Answer> {
        let receive = {
            let mut inner = self.lock();
            if inner.is_calm {
                return self.calmly(&mut inner, life, request);
            }
            let actor = &mut inner.actors[life.actor];
            if actor.is_dead || actor.life != life.number {
                return Err(dead());
            }
            let (reply, receive) = oneshot::channel();
            let again = actor.failed.as_deref() == Some(request.key());
            let pending = Pending { request, reply };
            if again {
                actor.queue.push_front(pending)
            } else {
                actor.queue.push_back(pending)
            }
            receive
        };
        self.changed.notify_one();
        receive.await.unwrap_or_else(|_| Err(dead()))
    }

    fn calmly(&self, inner: &mut Inner, life: Life, request: Request) -> Result<Answer> {
        inner.step += 1;
        let now = self.clock.fetch_add(SECOND, Ordering::AcqRel);
        let (step, actor) = (inner.step, Some(life.actor));
        inner.judge.sent((life, step), &request, &inner.objects);
        let answer = inner.apply(&request, now);
        inner.judge.answered((life, step), &request, answer.is_ok());
        inner.note(actor, &request, (Fault::None, answer.is_ok()));
        answer
    }

    /// From here on every request is answered at once and in full; what was late arrives.
    pub fn calm_down(&self) {
        let now = self.clock.load(Ordering::Acquire);
        let mut inner = self.lock();
        inner.arrive(u64::MAX, now);
        inner.is_calm = true;
    }

    /// Gives turns until every machine has ended.
    pub async fn run(&self) {
        loop {
            // Whoever got an answer goes on first.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            loop {
                let changed = self.changed.notified();
                if self.lock().is_settled() {
                    break;
                }
                changed.await;
            }
            if !self.grant() {
                return;
            }
        }
    }

    /// One turn; false if nobody is left.
    fn grant(&self) -> bool {
        let mut inner = self.lock();
        let Some(actor) = inner.choose() else { return false };
        let leap = inner.dice.below(3 * SECOND as u64) as i64;
        let now = self.clock.fetch_add(leap, Ordering::AcqRel) + leap;
        inner.step += 1;
        let step = inner.step;
        inner.arrive(step, now);
        let Some(Pending { request, reply }) = inner.actors[actor].queue.pop_front() else { return true };
        let weather = inner.weather;
        let fault = weather.decide(&mut inner.dice, &request);
        if let Fault::Sleeps(steps) = fault {
            let days = 1 + inner.dice.below(40) as i64;
            self.clock.fetch_add(days * DAY / 2, Ordering::AcqRel);
            inner.note(Some(actor), &request, (fault, true));
            let state = &mut inner.actors[actor];
            state.asleep_until = step + steps;
            state.queue.push_front(Pending { request, reply });
            return true;
        }
        let life = Life { actor, number: inner.actors[actor].life };
        let answer = inner.befall((life, fault), &request, now);
        inner.note(Some(actor), &request, (fault, answer.is_ok()));
        let failed = answer.is_err();
        inner.actors[actor].failed = failed.then(|| request.key().to_owned());
        let _ = reply.send(answer);
        true
    }

    /// What happened, for a person.
    pub fn trace(&self) -> String {
        let inner = self.lock();
        let mut text = String::new();
        for Line { step, actor, verb, key, fault, good } in &inner.trace {
            let name = actor.map_or("(late)", |actor| &inner.actors[actor].name);
            let short: String = key.split('/').map(shorten).collect::<Vec<_>>().join("/");
            let fault = if *fault == Fault::None { String::new() } else { format!("  {fault:?}") };
            let good = if *good { "" } else { "  -> error" };
            let _ = writeln!(text, "{step:5} {name:12} {verb:6} {short}{fault}{good}");
        }
        text
    }

    pub fn remark(&self, actor: usize, text: String) {
        let mut inner = self.lock();
        let line = Line {
            step: inner.step,
            actor: Some(actor),
            verb: "*",
            key: text,
            fault: Fault::None,
            good: true,
        };
        inner.trace.push(line);
    }
}

/// The beginning of each part of a name tells them apart.
fn shorten(part: &str) -> String {
    let mut out = String::new();
    for word in part.split('-') {
        if !out.is_empty() {
            out.push('-');
        }
        let hex = word.len() >= 32;
        out.push_str(if hex { &word[..8] } else { word });
        if hex && word.ends_with(".ok") {
            out.push_str(".ok");
        }
    }
    out
}

impl Inner {
    pub fn steps(&self) -> u64 {
        self.step
    }

    fn is_settled(&mut self) -> bool {
        for actor in &mut self.actors {
            actor.queue.retain(|pending| !pending.reply.is_closed());
        }
        self.actors.iter().all(|actor| actor.has_ended || !actor.queue.is_empty())
    }

    fn choose(&mut self) -> Option<usize> {
        let waiting: Vec<usize> = (0..self.actors.len())
            .filter(|n| !self.actors[*n].has_ended && !self.actors[*n].queue.is_empty())
            .collect();
        let awake: Vec<usize> =
            waiting.iter().copied().filter(|n| self.actors[*n].asleep_until <= self.step).collect();
        let change = self.dice.one_in(self.changes);
        let which = self.dice.next();
        let chosen = if awake.is_empty() {
            // All sleep: the first to wake.
            waiting.into_iter().min_by_key(|n| self.actors[*n].asleep_until)?
        } else if !change && awake.contains(&self.last) {
            self.last
        } else {
            awake[(which % awake.len() as u64) as usize]
        };
        self.actors[chosen].asleep_until = 0;
        self.last = chosen;
        Some(chosen)
    }

    /// Late requests take effect.
    fn arrive(&mut self, step: u64, now: i64) {
        let (due, rest) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= step);
        self.late = rest;
        let due: Vec<(u64, Request)> = due;
        for (_, request) in due {
            let answer = self.apply(&request, now);
            self.note(None, &request, (Fault::None, answer.is_ok()));
        }
    }

    /// What becomes of a request.
    fn befall(&mut self, (life, fault): (Life, Fault), request: &Request, now: i64) -> Result<Answer> {
        let at = (life, self.step);
        if fault == Fault::Dies {
            self.die(life.actor);
            return Err(dead());
        }
        self.judge.sent(at, request, &self.objects);
        if !matches!(fault, Fault::None | Fault::Twice) {
            self.actors[life.actor].faults += 1;
        }
        let answer = match fault {
            Fault::Before => Err(unreachable()),
            Fault::Full => Err(full()),
            Fault::Hides => Err(not_found(request.key())),
            Fault::Late(steps) => {
                self.late.push((self.step + steps, request.clone()));
                Err(unreachable())
            }
            Fault::Rots(at) => {
                self.rot(request.key(), at);
                self.apply(request, now)
            }
            _ => self.apply(request, now),
        };
        let answer = match fault {
            Fault::After => answer.and(Err(unreachable())),
            Fault::DiesAfter => {
                self.die(life.actor);
                Err(dead())
            }
            Fault::Twice => self.apply(request, now).and(answer),
            _ => answer.map(|answer| spoil(answer, fault)),
        };
        let good = answer.is_ok() && !matches!(fault, Fault::ListFails(_));
        self.judge.answered(at, request, good);
        answer
    }

    fn rot(&mut self, key: &str, at: u64) {
        let Some(object) = self.objects.get_mut(key) else { return };
        object.bytes = flipped(&object.bytes, at);
        self.is_rotten = true;
    }

    fn die(&mut self, actor: usize) {
        let actor = &mut self.actors[actor];
        actor.is_dead = true;
        for pending in actor.queue.drain(..) {
            let _ = pending.reply.send(Err(dead()));
        }
    }

    /// A request takes effect.
    fn apply(&mut self, request: &Request, now: i64) -> Result<Answer> {
        match request {
            Request::Put(key, bytes) => {
                self.objects.insert(key.clone(), Object { bytes: bytes.clone(), modified: now });
                self.judge.stored(self.step, (key, bytes), &self.objects);
                Ok(Answer::Done)
            }
            Request::Delete(key) => {
                if self.objects.remove(key).is_none() {
                    return Err(not_found(key));
                }
                self.judge.deleted(key);
                Ok(Answer::Done)
            }
            Request::Get(key, range) => {
                let object = self.objects.get(key).ok_or_else(|| not_found(key))?;
                let size = object.bytes.len() as u64;
                let range = range.clone().unwrap_or(0..size);
                let range = range.start.min(size)..range.end.min(size);
                let bytes = object.bytes.slice(range.start as usize..range.end as usize);
                Ok(Answer::Content { meta: meta(key, object), range, bytes })
            }
            Request::List(prefix) => {
                let from = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
                let listed = self.objects.range(from.clone()..).take_while(|(key, _)| key.starts_with(&from));
                let objects = listed.map(|(key, object)| meta(key, object)).collect();
                Ok(Answer::Listed { objects, fails: false })
            }
        }
    }

    fn note(&mut self, actor: Option<usize>, request: &Request, (fault, good): (Fault, bool)) {
        let (verb, key) = (request.verb(), request.key().to_owned());
        self.trace.push(Line { step: self.step, actor, verb, key, fault, good });
    }
}

fn meta(key: &str, object: &Object) -> ObjectMeta {
    let time = Timestamp(object.modified).0;
    ObjectMeta {
        location: Path::parse(key).unwrap(),
        last_modified: chrono_time(time),
        size: object.bytes.len() as u64,
        e_tag: None,
        version: None,
    }
}

/// The trait's own type of time, which comes from a crate that this one does not name.
fn chrono_time<T: From<std::time::SystemTime>>(nanos: i64) -> T {
    T::from(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(nanos as u64))
}

/// These bytes with one bit another.
fn flipped(bytes: &Bytes, at: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    let len = bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(at as usize % len) {
        *byte ^= 1 << (at % 8);
    }
    bytes.into()
}

/// Content and listings that are not what they should be.
fn spoil(answer: Answer, fault: Fault) -> Answer {
    match (answer, fault) {
        (Answer::Content { meta, range, bytes }, Fault::Short(at)) => {
            let keep = at as usize % bytes.len().max(1);
            Answer::Content { meta, range, bytes: bytes.slice(..keep.min(bytes.len())) }
        }
        (Answer::Content { meta, range, bytes }, Fault::Corrupt(at)) => {
            Answer::Content { meta, range, bytes: flipped(&bytes, at) }
        }
        (Answer::Content { meta, range, bytes }, Fault::Torn) => {
            let mut bytes = bytes.to_vec();
            let half = bytes.len() / 2;
            bytes[half..].fill(0);
            Answer::Content { meta, range, bytes: bytes.into() }
        }
        (Answer::Listed { mut objects, .. }, Fault::ListFails(after)) => {
            let keep = after as usize % (objects.len() + 1);
            objects.truncate(keep);
            Answer::Listed { objects, fails: true }
        }
        (answer, _) => answer,
    }
}
