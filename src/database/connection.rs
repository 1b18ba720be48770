//! A connection to a server that answers simple queries.
//!
//! # Invariants
//! Every wait ends when the run is to stop. An answer is bounded in bytes, notices included. After an error of the
//! connection nothing more is asked over it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use super::error::PgError;
use super::login::Login;
use super::wire::{self, Column};
use crate::cancel::Cancel;
use crate::clock::Clock;

/// How long connecting and logging in may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const ANSWER_MAX: usize = 16 << 20;
/// How often the wish to stop is looked for.
const TICK: Duration = Duration::from_millis(100);

/// Where a server is and who asks.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// A directory with its socket, if it begins with a slash, or a host.
    pub host: String,
    /// The port, which is part of a socket's name too.
    pub port: u16,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// What the role proves itself with.
    pub password: Option<Zeroizing<String>>,
    /// What a person asks for in `sslmode`.
    pub sslmode: Option<String>,
}

impl ConnectOptions {
    /// The socket where Debian puts it, and the database that every server has.
    pub fn new(user: &str) -> Self {
        Self {
            host: "/var/run/postgresql".to_owned(),
            port: 5432,
            user: user.to_owned(),
            database: "postgres".to_owned(),
            password: None,
            sslmode: None,
        }
    }

    /// Whether the server is reached through a socket of this machine.
    pub fn is_local(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Where the server is, in words.
    pub fn place(&self) -> String {
        if self.is_local() {
            format!("{}/.s.PGSQL.{}", self.host.trim_end_matches('/'), self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn check(&self) -> Result<(), PgError> {
        match self.sslmode.as_deref() {
            None | Some("disable" | "allow" | "prefer") => Ok(()),
            // Nobody listens to a socket of this machine, and PostgreSQL's own clients do not ask either.
            Some(_) if self.is_local() => Ok(()),
            Some(mode) => Err(PgError::NoTls { mode: mode.to_owned() }),
        }
    }
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection.
pub struct Connection {
    stream: Box<dyn Wire>,
    received: BytesMut,
    cancel: Cancel,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// As [`PgError`] says; none of them holds the password.
    pub async fn open(
        options: &ConnectOptions,
        cancel: &Cancel,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, PgError> {
        options.check()?;
        let opened = tokio::time::timeout(PATIENCE, async {
            let stream = connect(options).await?;
            let (cancel, clock) = (cancel.clone(), Arc::clone(clock));
            let mut connection = Self { stream, received: BytesMut::new(), cancel, clock };
            connection.log_in(options).await?;
            Ok(connection)
        });
        opened.await.unwrap_or_else(|_| Err(PgError::Silent { place: options.place() }))
    }

    async fn log_in(&mut self, options: &ConnectOptions) -> Result<(), PgError> {
        let mut out = BytesMut::new();
        let parameters = [
            ("user", options.user.as_str()),
            ("database", options.database.as_str()),
            ("application_name", "lifeboat"),
            // Bytes come as they are.
            ("client_encoding", "SQL_ASCII"),
        ];
        frontend::startup_message(parameters, &mut out)
            .map_err(|_| PgError::ZeroByte { what: "the user or the database" })?;
        self.send(&out).await?;
        let mut login = Login::new(options);
        let mut budget = ANSWER_MAX;
        loop {
            let (tag, content) = self.receive(&mut budget).await?;
            match tag {
                b'R' => match login.answer(&content)? {
                    Some(out) => self.send(&out).await?,
                    None => break,
                },
                b'E' => return Err(wire::error(&content)),
                b'N' => {}
                // A server that cannot do all that was asked for says which version it speaks.
                b'v' => {}
                _ => return Err(PgError::Protocol { what: "a message before the login is done" }),
            }
        }
        self.ready(&mut budget).await
    }

    /// Waits until the server takes the next query.
    async fn ready(&mut self, budget: &mut usize) -> Result<(), PgError> {
        loop {
            match self.receive(budget).await? {
                (b'Z', _) => return Ok(()),
                (b'E', content) => return Err(wire::error(&content)),
                _ => {}
            }
        }
    }

    /// Asks, and gives the rows of the answer. Each statement is a transaction of its own.
    ///
    /// # Errors
    /// [`PgError::Server`] if the server refuses; the connection can be used on then.
    pub async fn query(&mut self, statement: &str) -> Result<Vec<Vec<Column>>, PgError> {
        let mut out = BytesMut::new();
        frontend::query(statement, &mut out).map_err(|_| PgError::ZeroByte { what: "a statement" })?;
        self.send(&out).await?;
        let (mut rows, mut refused, mut budget) = (Vec::new(), None, ANSWER_MAX);
        loop {
            let (tag, content) = self.receive(&mut budget).await?;
            match tag {
                b'Z' => return refused.map_or(Ok(rows), Err),
                b'D' => rows.push(wire::row(&content)?),
                b'E' => refused = Some(wire::error(&content)),
                b'G' | b'H' | b'W' => return Err(PgError::Protocol { what: "a copy that nobody asked for" }),
                _ => {}
            }
        }
    }

    /// The text columns of the one row that answers; `what` is what it is, for the error.
    pub async fn one<const N: usize>(
        &mut self,
        statement: &str,
        what: &'static str,
    ) -> Result<[String; N], PgError> {
        let answer = PgError::Answer { what };
        let mut rows = self.query(statement).await?;
        let (Some(row), true) = (rows.pop(), rows.is_empty()) else { return Err(answer) };
        let texts: Option<Vec<String>> =
            row.into_iter().map(|column| String::from_utf8(column?).ok()).collect();
        texts.and_then(|texts| texts.try_into().ok()).ok_or(answer)
    }

    /// Says goodbye, so that the server does not take the end for a fault.
    pub async fn close(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // It ends all the same.
        let _ = self.send(&out).await;
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        let Self { stream, cancel, clock, .. } = self;
        let sent = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        until(sent, cancel, &**clock).await
    }

    /// The next message, whose bytes count against `budget`.
    async fn receive(&mut self, budget: &mut usize) -> Result<(u8, BytesMut), PgError> {
        loop {
            if let Some((tag, len)) = wire::header(&self.received)? {
                let left = budget.checked_sub(len + 5);
                *budget = left.ok_or(PgError::Protocol { what: "an answer that is too long" })?;
                while self.received.len() < len + 5 {
                    self.read().await?;
                }
                self.received.advance(5);
                return Ok((tag, self.received.split_to(len)));
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), PgError> {
        let Self { stream, received, cancel, clock } = self;
        match until(stream.read_buf(received), cancel, &**clock).await? {
            0 => Err(PgError::Lost(std::io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}

/// Waits for the connection or for the wish to stop.
async fn until<T>(
    work: impl Future<Output = std::io::Result<T>>,
    cancel: &Cancel,
    clock: &dyn Clock,
) -> Result<T, PgError> {
    let stopped = async { while cancel.wait(clock, TICK).await.is_ok() {} };
    tokio::select! {
        done = work => done.map_err(PgError::Lost),
        () = stopped => Err(PgError::Cancelled),
    }
}

async fn connect(options: &ConnectOptions) -> Result<Box<dyn Wire>, PgError> {
    let failed = |source| PgError::Connect { place: options.place(), source };
    if options.is_local() {
        let stream = UnixStream::connect(Path::new(&options.place())).await.map_err(failed)?;
        return Ok(Box::new(stream));
    }
    let stream = TcpStream::connect((options.host.as_str(), options.port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(Box::new(stream))
}

/// A text as a literal of SQL, whatever the server's settings are.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use tokio::net::UnixListener;

    /// A server that says this to whoever connects, whatever is asked.
    async fn says(words: Vec<u8>) -> (tempfile::TempDir, Result<Connection, PgError>) {
        let place = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(place.path().join(".s.PGSQL.5432")).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(&words).await;
            let mut sink = Vec::new();
            let _ = stream.read_to_end(&mut sink).await;
        });
        let host = place.path().to_str().unwrap().to_owned();
        let options = ConnectOptions { host, ..ConnectOptions::new("a") };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let opened = Connection::open(&options, &Cancel::new(), &clock).await;
        (place, opened)
    }

    fn message(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag][..], &(content.len() as u32 + 4).to_be_bytes(), content].concat()
    }

    fn welcome() -> Vec<u8> {
        [message(b'R', &[0; 4]), message(b'S', b"a\0b\0"), message(b'Z', b"I")].concat()
    }

    #[tokio::test]
    async fn a_query_is_answered_and_a_refusal_is_an_error_that_can_be_gone_on_after() {
        let refusal = [message(b'E', b"C42501\0Mno\0\0"), message(b'Z', b"I")].concat();
        let rows = [message(b'D', b"\0\x01\0\0\0\x02hi"), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")];
        let (_place, opened) = says([welcome(), refusal, rows.concat()].concat()).await;
        let mut connection = opened.unwrap();
        assert_eq!(connection.query("x").await.unwrap_err().code(), Some("42501"));
        assert_eq!(connection.one("y", "word").await.unwrap(), ["hi"]);
    }

    #[tokio::test]
    async fn a_hostile_server_is_an_error() {
        let endless: Vec<u8> = message(b'N', &[b'x'; 1 << 20]).repeat(20);
        for words in [
            b"D\x7f\xff\xff\xff".to_vec(),
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            message(b'D', b"\0\0"),
            message(b'R', b""),
            message(b'E', b""),
            [welcome()[..9].to_vec(), endless].concat(),
        ] {
            let (_place, opened) = says(words).await;
            assert!(matches!(opened, Err(PgError::Protocol { .. } | PgError::Server { .. })), "{opened:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_left_when_the_run_is_to_stop() {
        let place = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(place.path().join(".s.PGSQL.5432")).unwrap();
        let host = place.path().to_str().unwrap().to_owned();
        let options = ConnectOptions { host, ..ConnectOptions::new("a") };
        let (cancel, clock): (_, Arc<dyn Clock>) = (Cancel::new(), Arc::new(SystemClock::new()));
        cancel.raise();
        let opened = Connection::open(&options, &cancel, &clock).await;
        assert!(matches!(opened, Err(PgError::Cancelled)), "{opened:?}");
    }

    #[test]
    fn tls_is_refused_where_it_would_be_needed() {
        let mode = |host: &str, mode: &str| {
            let (host, sslmode) = (host.to_owned(), Some(mode.to_owned()));
            ConnectOptions { host, sslmode, ..ConnectOptions::new("a") }.check()
        };
        assert!(matches!(mode("db", "require"), Err(PgError::NoTls { .. })));
        assert!(matches!(mode("db", "verify-full"), Err(PgError::NoTls { .. })));
        assert!(mode("/tmp", "require").is_ok() && mode("db", "prefer").is_ok());
    }

    #[test]
    fn a_literal_ends_where_it_should() {
        assert_eq!(literal("it's \\'"), r"E'it''s \\'''");
    }
}
