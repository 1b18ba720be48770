//! Taking connections until somebody asks for the end.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::keeper::{Keeper, Stream};
use super::{Address, Happening, ListenError, ListenOptions, Log, Peer};
use crate::store::StoreEnv;

/// Connections that have not shown a token yet; more wait until the kernel refuses them.
const STRANGERS: usize = 256;
/// How often the wish to stop is looked at, and whether files have changed.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS: u32 = 10;
/// After a connection could not be taken: descriptors may come free.
const PAUSE: Duration = Duration::from_millis(100);
/// How long what was begun may take at the end.
const DRAIN: Duration = Duration::from_secs(90);

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Another one may have taken its place.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn failed(address: &str, source: io::Error) -> ListenError {
    ListenError::Bind { address: address.to_owned(), source }
}

async fn bind(options: &ListenOptions) -> Result<Listener, ListenError> {
    match &options.address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address).await.map_err(|error| failed(address, error))?;
            let own = listener.local_addr().map_err(|error| failed(address, error))?;
            if options.tls.is_none() && !own.ip().is_loopback() {
                return Err(ListenError::Exposed { address: own });
            }
            Ok(Listener::Tcp(listener))
        }
        Address::Unix(path) => {
            let failed = |error| failed(&path.display().to_string(), error);
            clear(path).map_err(failed)?;
            let listener = UnixListener::bind(path).map_err(failed)?;
            // Its group may be given to a proxy; the token is asked for all the same.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
            Ok(Listener::Unix(listener, path.clone()))
        }
    }
}

/// Removes a socket that nobody listens at any more, as a server leaves it that was killed.
fn clear(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = || {
        let tried = std::os::unix::net::UnixStream::connect(path);
        tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if is_socket && refused() { std::fs::remove_file(path) } else { Ok(()) }
}

impl Listener {
    fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| String::new(), |own| own.to_string())
            }
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Frames are small and answered; a stream that cannot do this works, too.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), Peer::Tcp(peer)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), Peer::Unix))
            }
        }
    }
}

/// What tells one state of the files from the next; also a right to read them that was given later.
type State = Vec<Option<(u64, u64, i64, i64)>>;

fn state(options: &ListenOptions) -> State {
    let tls = options.tls.iter().flat_map(|files| [&files.cert, &files.key]);
    let of = |meta: Metadata| (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
    [&options.tokens].into_iter().chain(tls).map(|path| std::fs::metadata(path).ok().map(of)).collect()
}

/// Has the files read again when they change or somebody asks for it, until somebody asks for the end.
async fn watch(keeper: &Keeper, mut known: State, again: &Notify, env: &StoreEnv) {
    loop {
        let mut asked = false;
        for _ in 0..LOOKS {
            if env.cancel.is_raised() {
                return;
            }
            if tokio::time::timeout(LOOK, again.notified()).await.is_ok() {
                asked = true;
                break;
            }
        }
        let found = state(keeper.options());
        if asked || found != known {
            // Taken before they are read: what changes meanwhile is seen the next time.
            known = if keeper.reload() { found } else { State::new() };
        }
    }
}

async fn accept(
    listener: &Listener,
    strangers: &Arc<Semaphore>,
) -> io::Result<(Box<dyn Stream>, Peer, Option<OwnedSemaphorePermit>)> {
    let permit = Arc::clone(strangers).acquire_owned().await.ok();
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

pub(super) async fn run(
    options: &ListenOptions,
    again: Arc<Notify>,
    log: Log,
    env: &StoreEnv,
) -> Result<(), ListenError> {
    std::fs::read_dir(&options.top)
        .map_err(|source| ListenError::Top { path: options.top.clone(), source })?;
    let known = state(options);
    let keeper = Arc::new(Keeper::new(options, log, env)?);
    let listener = bind(options).await?;
    let (address, fingerprint, tokens) = (listener.address(), keeper.fingerprint(), keeper.tokens());
    keeper.log(&Happening::Listening { address, fingerprint, tokens });
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let mut connections = JoinSet::new();
    let mut watching = pin!(watch(&keeper, known, &again, env));
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            () = &mut watching => break,
            accepted = accept(&listener, &strangers) => match accepted {
                Ok((stream, peer, permit)) => {
                    let keeper = Arc::clone(&keeper);
                    connections.spawn(async move { keeper.receive(stream, peer, permit).await });
                }
                Err(error) => {
                    keeper.log(&Happening::NotAccepted { error: &error });
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    strangers.close();
    keeper.log(&Happening::Draining { connections: keeper.end_all() });
    let drained = async {
        while !connections.is_empty() {
            // Those who were being let in are ended, too.
            keeper.end_all();
            let _ = tokio::time::timeout(LOOK, connections.join_next()).await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, drained).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_rights_change_is_read_again() {
        let place = tempfile::tempdir().unwrap();
        let tokens = place.path().join("tokens");
        std::fs::write(&tokens, "").unwrap();
        let options = ListenOptions {
            top: place.path().to_owned(),
            address: Address::Unix(place.path().join("socket")),
            tls: None,
            tokens: tokens.clone(),
            most: 1,
            most_of_token: 1,
        };
        let before = state(&options);
        // Clocks of file systems are coarse.
        while state(&options) == before {
            std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o640)).unwrap();
            std::thread::yield_now();
        }
    }
}
