//! Connections by TLS: one HTTP request, which the server upgrades to the frames.
//!
//! A task connects and carries bytes between the stream and the two threads of a line.
//!
//! # Must not
//! Show the token in an error, or send it to whom [`Trust`] does not take for the right server.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use super::error::{DoorError, said};
use super::line::{Connect, Far, Wires};
use super::token::Token;
use super::trust::{Fingerprint, Trust};
use super::wire::UPGRADE;

/// Where an address points to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::store) struct Web {
    /// A name or an address, one of IPv6 without brackets.
    pub(in crate::store) name: String,
    pub(in crate::store) port: Option<u16>,
    /// Without slashes at its ends.
    pub(in crate::store) path: String,
    /// The certificate that is the right one.
    pub(in crate::store) pin: Option<Fingerprint>,
}

/// How long one address of a host may take, and all until the frames begin.
const REACH: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the text of an answer that says no is waited for.
const SAYING: Duration = Duration::from_secs(2);
const PORT: u16 = 443;
/// Most bytes and headers of an answer.
const HEAD_MAX: usize = 16 * 1024;
const HEADERS: usize = 64;
/// Most bytes of the text of an answer that are looked at.
const TEXT_MAX: usize = 1024;
/// Pieces that wait in either direction, and the size of those that come.
const PIECES: usize = 4;
const PIECE: usize = 64 * 1024;

/// Makes connections by TLS.
pub(in crate::store) struct Https {
    web: Web,
    trust: Arc<Trust>,
    token: Token,
}

impl Https {
    pub(in crate::store) fn new(web: &Web, trust: Trust, token: Token) -> Self {
        Self { web: web.clone(), trust: Arc::new(trust), token }
    }
}

impl Connect for Https {
    fn connect(&self) -> Result<Wires, DoorError> {
        let (tell, incoming) = mpsc::channel(PIECES);
        let (out, outgoing) = mpsc::channel(PIECES);
        let why = Arc::new(Mutex::new(None));
        let (web, trust, token) = (self.web.clone(), Arc::clone(&self.trust), self.token.clone());
        let reason = Arc::clone(&why);
        let task = tokio::spawn(async move {
            if let Err(error) = carry((&web, &trust, token), &tell, outgoing).await {
                *reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            // The reason is known before the reader is told of the end.
            drop(tell);
        });
        let far = Server { why, task: task.abort_handle() };
        let input = Incoming { pieces: incoming, piece: Bytes::new() };
        Ok(Wires { input: Box::new(input), output: Box::new(Outgoing(out)), far: Arc::new(far) })
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// What comes from the stream, for a thread that waits for it.
struct Incoming {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}

/// What goes to the stream, from a thread.
struct Outgoing(mpsc::Sender<Bytes>);

impl Write for Outgoing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(buffer));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // The task does not hold anything back.
        Ok(())
    }
}

struct Server {
    why: Arc<Mutex<Option<DoorError>>>,
    task: AbortHandle,
}

impl Far for Server {
    fn why(&self) -> DoorError {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone().unwrap_or(DoorError::Lost { said: String::new() })
    }

    fn stop(&self) {
        self.task.abort();
    }
}

/// Connects, and carries bytes until one side ends.
async fn carry(
    (web, trust, token): (&Web, &Trust, Token),
    tell: &mpsc::Sender<Bytes>,
    mut outgoing: mpsc::Receiver<Bytes>,
) -> Result<(), DoorError> {
    let token = tokio::task::spawn_blocking(move || token.get()).await;
    let token = token.map_err(|error| DoorError::Token { what: error.to_string() })??;
    let mut stream = connect(web, trust).await?;
    let rest = ask(&mut stream, web, &token).await?;
    drop(token);
    if !rest.is_empty() && tell.send(rest).await.is_err() {
        return Ok(());
    }
    let (mut input, mut output) = tokio::io::split(stream);
    let down = async {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE);
            // Whoever waited for it is gone.
            if input.read_buf(&mut piece).await? == 0 || tell.send(piece.freeze()).await.is_err() {
                return Ok(());
            }
        }
    };
    let up = async {
        while let Some(piece) = outgoing.recv().await {
            output.write_all(&piece).await?;
            if outgoing.is_empty() {
                output.flush().await?;
            }
        }
        output.shutdown().await
    };
    let ended: io::Result<()> = tokio::select! {
        ended = down => ended,
        ended = up => ended,
    };
    ended.map_err(|error| DoorError::lost(&error))
}

fn lost(said: impl std::fmt::Display) -> DoorError {
    DoorError::Lost { said: said.to_string() }
}

async fn connect(web: &Web, trust: &Trust) -> Result<TlsStream<TcpStream>, DoorError> {
    let stream = reach(&web.name, web.port.unwrap_or(PORT)).await?;
    // Frames are small and answered; a stream that cannot do this works, too.
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from(web.name.clone())
        .map_err(|_| DoorError::NoDoor { said: "its name can have no certificate".to_owned() })?;
    let secured = TlsConnector::from(Arc::clone(&trust.config)).connect(name, stream).await;
    secured.map_err(|error| judge_tls(&error, trust.seen()))
}

/// Each address of the host in turn.
async fn reach(name: &str, port: u16) -> Result<TcpStream, DoorError> {
    let addresses = tokio::net::lookup_host((name, port)).await;
    let mut error = lost("the host has no address");
    for address in addresses.map_err(|error| lost(format!("cannot find {name}: {error}")))? {
        error = match tokio::time::timeout(REACH, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => lost(format!("{address}: {error}")),
            Err(_) => lost(format!("{address} does not answer")),
        };
    }
    Err(error)
}

fn judge_tls(error: &io::Error, seen: Option<Fingerprint>) -> DoorError {
    let known = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match (known, seen) {
        (Some(rustls::Error::InvalidCertificate(why)), Some(seen)) => {
            let why = match why {
                rustls::CertificateError::ApplicationVerificationFailure => "it is another one".to_owned(),
                why => why.to_string(),
            };
            DoorError::Certificate { why: said(why.as_bytes()), fingerprint: seen.to_string() }
        }
        (Some(error), _) => DoorError::NoDoor { said: said(error.to_string().as_bytes()) },
        (None, _) => DoorError::lost(error),
    }
}

/// Asks for the frames; gives what has come of them already.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    web: &Web,
    token: &str,
) -> Result<Bytes, DoorError> {
    let request = Zeroizing::new(format!(
        "GET /{} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\nAuthorization: Bearer {token}\r\n\
         User-Agent: lifeboat/{}\r\n\r\n",
        web.path,
        web.authority(),
        env!("CARGO_PKG_VERSION")
    ));
    let failed = |error: io::Error| DoorError::lost(&error);
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await.map_err(failed)? == 0 {
            return Err(lost("it ended before it answered"));
        }
        let Some((answer, len)) = parse(&bytes)? else { continue };
        let mut rest = bytes.split_off(len);
        if answer.upgraded {
            return Ok(rest.into());
        }
        let text =
            async { while rest.len() < TEXT_MAX && matches!(stream.read_buf(&mut rest).await, Ok(1..)) {} };
        // What has come by then is enough.
        let _ = tokio::time::timeout(SAYING, text).await;
        // Some repeat what they were asked.
        let repeats = rest.windows(token.len()).any(|part| part == token.as_bytes());
        let shown: &[u8] = if repeats { &[] } else { &rest };
        return Err(refused(answer.status, shown));
    }
}

struct Answered {
    status: u16,
    upgraded: bool,
}

/// Takes the head of an answer from what has come; `None` if it is not complete. With it the number of its bytes.
fn parse(bytes: &[u8]) -> Result<Option<(Answered, usize)>, DoorError> {
    let no = || DoorError::NoDoor { said: "what it answers is not HTTP".to_owned() };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => {
            let status = answer.code.ok_or_else(no)?;
            let mut named =
                answer.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("upgrade"));
            let upgraded =
                status == 101 && named.any(|header| header.value.eq_ignore_ascii_case(UPGRADE.as_bytes()));
            Ok(Some((Answered { status, upgraded }, len)))
        }
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => Ok(None),
        _ => Err(no()),
    }
}

/// What an answer means that is not the frames.
fn refused(status: u16, text: &[u8]) -> DoorError {
    let text = text.get(..TEXT_MAX).unwrap_or(text);
    let line = text.split(|b| *b == b'\n').next().unwrap_or(b"");
    let said = match said(line) {
        line if line.is_empty() || line.contains('<') => format!("HTTP {status}"),
        line => format!("HTTP {status}, {line}"),
    };
    match status {
        401 | 403 | 407 => DoorError::Refused { said },
        408 | 425 | 429 | 500..=599 => DoorError::Lost { said },
        _ => DoorError::NoDoor { said },
    }
}

impl Web {
    /// Host and port, as they stand in an address.
    pub(in crate::store) fn authority(&self) -> String {
        let name = if self.name.contains(':') { format!("[{}]", self.name) } else { self.name.clone() };
        self.port.map_or(name.clone(), |port| format!("{name}:{port}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_is_sorted_by_whether_it_will_be_better_later() {
        let of = |text: &str| match parse(text.as_bytes()) {
            Ok(Some((answer, _))) if answer.upgraded => None,
            Ok(Some((answer, len))) => Some(refused(answer.status, &text.as_bytes()[len..])),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        assert!(of("HTTP/1.1 101 x\r\nUpgrade: Lifeboat\r\n\r\n").is_none());
        for (text, wanted) in [
            ("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n", "no server"),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", "no server of lifeboat answers there: HTTP 200"),
            ("HTTP/1.1 401 x\r\n\r\nno such token\n", "refused: HTTP 401, no such token"),
            ("HTTP/1.1 403 x\r\n\r\n\x1b[31mred", "refused: HTTP 403, \\u{1b}[31mred"),
            ("HTTP/1.1 429 x\r\n\r\n", "lost: HTTP 429"),
            ("HTTP/1.1 502 x\r\n\r\n", "lost: HTTP 502"),
            ("SSH-2.0-OpenSSH_9\r\n", "not HTTP"),
        ] {
            let error = of(text).unwrap().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_and_a_port_are_as_in_an_address() {
        let web = |name: &str, port| Web { name: name.to_owned(), port, path: String::new(), pin: None };
        assert_eq!(web("host", None).authority(), "host");
        assert_eq!(web("::1", Some(8443)).authority(), "[::1]:8443");
    }

    #[tokio::test]
    async fn a_token_that_an_answer_repeats_is_not_shown() {
        let web = Web { name: "host".to_owned(), port: None, path: String::new(), pin: None };
        let (mut near, mut far) = tokio::io::duplex(4096);
        far.write_all(b"HTTP/1.1 400 x\r\n\r\nodd: Bearer lbt_secret\n").await.unwrap();
        far.shutdown().await.unwrap();
        let error = ask(&mut near, &web, "lbt_secret").await.unwrap_err().to_string();
        assert!(error.contains("HTTP 400") && !error.contains("secret"), "{error}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_panic(head in prop::option::of(Just(&b"HTTP/1.1 "[..])), bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let bytes = [head.unwrap_or(b""), &bytes].concat();
            if let Ok(Some((answer, len))) = parse(&bytes) {
                let _ = refused(answer.status, &bytes[len..]).to_string();
            }
        }
    }
}
