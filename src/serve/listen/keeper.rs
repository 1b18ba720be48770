//! Who is let in, and who is here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::http::{self, Heard, No, Request};
use super::tls::Tls;
use super::tokens::{Grant, Tokens};
use super::{Fingerprint, Happening, ListenError, ListenOptions, Log, Peer, Tally};
use crate::cancel::Cancel;
use crate::serve::door::{DoorOptions, Guest, Patience, Quota, attend};
use crate::store::{Shelf, StoreEnv};

/// How long somebody may take until the token is shown.
const GREETING: Duration = Duration::from_secs(15);
/// How long somebody whose token is known may say nothing: at first, and later. A client pings every twenty seconds.
const PATIENCE: Patience = Patience { first: Duration::from_secs(30), later: Duration::from_secs(180) };
/// Connections of one address that have not shown a token. Those of this machine may be a proxy's, and are not counted.
const STRANGERS_OF_ADDRESS: usize = 32;

/// Refusals that a log is told of within a time, so that nobody fills a disk by knocking.
const TOLD: u32 = 20;
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A stream of bytes to a client.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection of somebody who was let in.
struct Here {
    grant: Arc<Grant>,
    end: Cancel,
}

/// What is known of the outside, as the files have it.
struct Files {
    tokens: Tokens,
    tls: Option<Tls>,
}

/// A limit on a directory, and who counts what lies there.
type Limited = HashMap<(PathBuf, u64), Arc<Quota>>;

/// Knows who may come in and who is here.
pub(super) struct Keeper {
    options: ListenOptions,
    env: StoreEnv,
    log: Log,
    files: RwLock<Files>,
    here: Mutex<HashMap<u64, Here>>,
    quotas: Mutex<Limited>,
    strangers: Mutex<HashMap<IpAddr, usize>>,
    refused: AtomicU64,
    /// When the log was told of refusals last, and of how many within that time.
    told: Mutex<(Duration, u32)>,
    next: AtomicU64,
}

/// The place of somebody who was let in; free again when it is dropped.
struct Seat<'a> {
    keeper: &'a Keeper,
    id: u64,
    grant: Arc<Grant>,
    end: Cancel,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.keeper.here().remove(&self.id);
    }
}

/// Somebody who has shown no token, counted; not any more when it is dropped.
struct Stranger<'a>(&'a Keeper, IpAddr);

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        let mut strangers = lock(&self.0.strangers);
        if let Some(count) = strangers.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                strangers.remove(&self.1);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of an address that one owner has.
fn owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[4..].fill(0);
            IpAddr::V6(segments.into())
        }
        address => address,
    }
}

fn load(options: &ListenOptions) -> Result<Files, ListenError> {
    let path = &options.tokens;
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| ListenError::File { path: path.clone(), source })?;
    let tokens = super::parse(path, &text)?;
    let tls = options.tls.as_ref().map(super::TlsFiles::load).transpose()?;
    Ok(Files { tokens, tls })
}

impl Keeper {
    pub(super) fn new(options: &ListenOptions, log: Log, env: &StoreEnv) -> Result<Self, ListenError> {
        Ok(Self {
            files: RwLock::new(load(options)?),
            options: options.clone(),
            env: env.clone(),
            log,
            here: Mutex::default(),
            quotas: Mutex::default(),
            strangers: Mutex::default(),
            refused: AtomicU64::new(0),
            told: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    fn here(&self) -> MutexGuard<'_, HashMap<u64, Here>> {
        lock(&self.here)
    }

    fn files(&self) -> std::sync::RwLockReadGuard<'_, Files> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log(&self, happening: &Happening<'_>) {
        (self.log)(happening);
    }

    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.files().tls.as_ref().map(|tls| tls.fingerprint)
    }

    pub(super) fn tokens(&self) -> usize {
        self.files().tokens.len()
    }

    pub(super) fn options(&self) -> &ListenOptions {
        &self.options
    }

    /// Reads the files again, and ends the connections of those whose lines are gone or others now. `false` if it must be tried
    /// again though no file changes.
    pub(super) fn reload(&self) -> bool {
        let files = match load(&self.options) {
            Ok(files) => files,
            Err(error) => {
                self.log(&Happening::NotReloaded { error: &error });
                return !error.may_pass();
            }
        };
        let tokens = files.tokens.len();
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = files;
        // What is in use goes on to count.
        lock(&self.quotas).retain(|_, quota| Arc::strong_count(quota) > 1);
        // After the new files count: who comes in meanwhile is judged by them.
        let (here, files) = (self.here(), self.files());
        let gone = here.values().filter(|one| !files.tokens.has(&one.grant));
        let ended = gone.map(|one| one.end.raise()).count();
        drop((here, files));
        self.log(&Happening::Reloaded { tokens, ended });
        true
    }

    /// Ends all connections; says how many.
    pub(super) fn end_all(&self) -> usize {
        let here = self.here();
        here.values().for_each(|one| one.end.raise());
        here.len()
    }

    fn refused(&self, peer: Peer, why: &str) {
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.env.clock.monotonic();
        let mut told = lock(&self.told);
        if now.saturating_sub(told.0) >= TELL_EVERY {
            *told = (now, 0);
        }
        told.1 += 1;
        let is_told = told.1 <= TOLD;
        drop(told);
        if is_told {
            self.log(&Happening::Refused { peer, why, count });
        }
    }

    fn stranger(&self, peer: Peer) -> Result<Option<Stranger<'_>>, ()> {
        let Peer::Tcp(address) = peer else { return Ok(None) };
        let address = owner(address.ip());
        if address.is_loopback() {
            return Ok(None);
        }
        let mut strangers = lock(&self.strangers);
        let count = strangers.entry(address).or_default();
        if *count >= STRANGERS_OF_ADDRESS {
            return Err(());
        }
        *count += 1;
        Ok(Some(Stranger(self, address)))
    }

    /// A place for somebody who shows this.
    fn seat(&self, request: &Request) -> Result<Seat<'_>, No> {
        // Under the lock of those who are here: whoever is not among them when the files change is judged by the new ones.
        let mut here = self.here();
        let grant = self.files().tokens.find(&request.token).cloned().ok_or(No::Unknown)?;
        let own = grant.directory.as_ref().map_or("", |directory| directory.as_str());
        if !request.path.is_empty() && request.path != own {
            return Err(No::Elsewhere);
        }
        if here.len() >= self.options.most {
            return Err(No::TooMany);
        }
        if here.values().filter(|one| one.grant.name == grant.name).count() >= self.options.most_of_token {
            return Err(No::TooManyOfToken);
        }
        let (id, grant, end) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(grant), Cancel::new());
        here.insert(id, Here { grant: Arc::clone(&grant), end: end.clone() });
        Ok(Seat { keeper: self, id, grant, end })
    }

    fn guest(&self, grant: &Grant, tally: Arc<Tally>) -> Result<Guest, ListenError> {
        let top = match &grant.directory {
            None => self.options.top.clone(),
            Some(directory) => self.options.top.join(directory.as_str()),
        };
        let quota = match grant.quota {
            None => None,
            Some(most) => {
                let shelf = Shelf::new(top.clone(), None, &self.env)?;
                let new = || Arc::new(Quota::new(most.0, shelf, Arc::clone(&self.env.clock)));
                Some(Arc::clone(lock(&self.quotas).entry((top.clone(), most.0)).or_insert_with(new)))
            }
        };
        let quota_bytes = grant.quota.map(|most| most.0);
        let options =
            DoorOptions { home: top.clone(), top, prefix: None, role: grant.role, quota: quota_bytes };
        Ok(Guest { options, quota, patience: PATIENCE, tally })
    }

    /// Hears what somebody wants, and serves it until it goes. `waiting` is given back when it is known who it is.
    pub(super) async fn receive(&self, stream: Box<dyn Stream>, peer: Peer, waiting: impl Send) {
        let Ok(stranger) = self.stranger(peer) else {
            return self.refused(peer, "too many connections of its address without a token");
        };
        let greeted = tokio::time::timeout(GREETING, self.greet(stream)).await;
        drop((stranger, waiting));
        match greeted {
            Err(_) => self.refused(peer, "it took too long to say what it wants"),
            Ok(Err(why)) => self.refused(peer, &why),
            Ok(Ok((stream, seat))) => self.serve(stream, peer, &seat).await,
        }
    }

    /// Up to the frames; why not, for a log.
    async fn greet(&self, stream: Box<dyn Stream>) -> Result<(Box<dyn Stream>, Seat<'_>), String> {
        let config = self.files().tls.as_ref().map(|tls| Arc::clone(&tls.config));
        let mut stream: Box<dyn Stream> = match config {
            None => stream,
            Some(config) => match TlsAcceptor::from(config).accept(stream).await {
                Ok(stream) => Box::new(stream),
                Err(error) => return Err(format!("no TLS: {error}").escape_debug().to_string()),
            },
        };
        let (request, rest) = match http::hear(&mut stream).await {
            Heard::Request(request, rest) => (request, rest),
            Heard::Gone => return Err("it said nothing to the end".to_owned()),
            Heard::No(no) => return Err(refuse(&mut stream, no).await),
        };
        match self.seat(&request) {
            Err(no) => Err(refuse(&mut stream, no).await),
            Ok(seat) => match http::accept(&mut stream).await {
                Err(error) => Err(error.to_string()),
                Ok(()) => {
                    let (input, output) = tokio::io::split(stream);
                    Ok((Box::new(tokio::io::join(rest.chain(input), output)), seat))
                }
            },
        }
    }

    async fn serve(&self, stream: Box<dyn Stream>, peer: Peer, seat: &Seat<'_>) {
        let name = seat.grant.name.as_str();
        let tally = Arc::new(Tally::default());
        let guest = match self.guest(&seat.grant, Arc::clone(&tally)) {
            Ok(guest) => guest,
            Err(error) => return self.refused(peer, &error.to_string()),
        };
        self.log(&Happening::Entered { name, peer });
        let env = StoreEnv { cancel: seat.end.clone(), ..self.env.clone() };
        let ended = attend(stream, &guest, &env).await;
        self.log(&Happening::Left { name, peer, tally: tally.to_string(), error: ended.as_ref().err() });
    }
}

async fn refuse(stream: &mut Box<dyn Stream>, no: No) -> String {
    // Whoever does not listen is not told.
    let _ = http::refuse(stream, no).await;
    no.why().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_many_addresses_counts_once() {
        let of = |text: &str| owner(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
