//! Logging in: what the server asks for, and the answer to it.
//!
//! # Must not
//! Send a password over a network in clear text, or let a server keep this machine busy with a hash for hours.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::connection::ConnectOptions;
use super::error::PgError;
use super::wire;

/// Most rounds of hashing that a server may ask for; it asks for 4096 unless told otherwise.
const ROUNDS_MAX: u64 = 4_000_000;

/// The answers of a client.
pub(super) struct Login<'a> {
    options: &'a ConnectOptions,
    scram: Option<ScramSha256>,
    /// The server has shown that it knows the password.
    proven: bool,
}

impl<'a> Login<'a> {
    pub(super) fn new(options: &'a ConnectOptions) -> Self {
        Self { options, scram: None, proven: false }
    }

    /// Takes an authentication message. `None` if the server is content; otherwise what is to be sent, perhaps nothing.
    pub(super) fn answer(&mut self, content: &[u8]) -> Result<Option<BytesMut>, PgError> {
        let bad = PgError::Protocol { what: "an authentication message that is cut off" };
        let Some((kind, body)) = content.split_first_chunk() else { return Err(bad) };
        let mut out = BytesMut::new();
        match u32::from_be_bytes(*kind) {
            0 if self.scram.is_some() && !self.proven => {
                return Err(PgError::NotProven { place: self.options.place() });
            }
            0 => return Ok(None),
            3 if !self.options.is_local() => {
                return Err(PgError::ClearText { place: self.options.place() });
            }
            3 => password_message(self.password()?, &mut out)?,
            5 => {
                let Some(salt) = body.first_chunk() else { return Err(bad) };
                let hash = md5_hash(self.options.user.as_bytes(), self.password()?, *salt);
                password_message(hash.as_bytes(), &mut out)?;
            }
            10 => self.begin_scram(body, &mut out)?,
            11 => self.go_on(body, &mut out)?,
            12 => {
                let place = || PgError::NotProven { place: self.options.place() };
                let scram = self.scram.as_mut().ok_or_else(place)?;
                scram.finish(body).map_err(|_| place())?;
                self.proven = true;
            }
            other => return Err(self.unknown(&method(other))),
        }
        Ok(Some(out))
    }

    fn begin_scram(&mut self, body: &[u8], out: &mut BytesMut) -> Result<(), PgError> {
        let offered: Vec<&[u8]> = body.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        if !offered.contains(&SCRAM_SHA_256.as_bytes()) {
            return Err(self.unknown(&wire::plain(&offered.join(&b' '))));
        }
        let scram = ScramSha256::new(self.password()?, ChannelBinding::unsupported());
        let sent = frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), out);
        sent.map_err(|_| PgError::ZeroByte { what: "the user" })?;
        self.scram = Some(scram);
        Ok(())
    }

    fn go_on(&mut self, body: &[u8], out: &mut BytesMut) -> Result<(), PgError> {
        let bad = || PgError::Protocol { what: "a step of SCRAM out of turn" };
        let rounds = body.split(|byte| *byte == b',').find_map(|part| part.strip_prefix(b"i="));
        let rounds =
            rounds.and_then(|text| str::from_utf8(text).ok()?.parse::<u64>().ok()).ok_or_else(bad)?;
        if rounds > ROUNDS_MAX {
            return Err(PgError::Protocol { what: "a demand for endless hashing" });
        }
        let scram = self.scram.as_mut().ok_or_else(bad)?;
        scram.update(body).map_err(|_| bad())?;
        frontend::sasl_response(scram.message(), out).map_err(|_| bad())
    }

    fn password(&self) -> Result<&'a [u8], PgError> {
        let missing = || PgError::NoPassword { place: self.options.place(), user: self.options.user.clone() };
        self.options.password.as_ref().map(|password| password.as_bytes()).ok_or_else(missing)
    }

    fn unknown(&self, method: &str) -> PgError {
        PgError::Method { place: self.options.place(), method: method.to_owned() }
    }
}

fn password_message(password: &[u8], out: &mut BytesMut) -> Result<(), PgError> {
    frontend::password_message(password, out).map_err(|_| PgError::ZeroByte { what: "the password" })
}

fn method(number: u32) -> String {
    match number {
        2 => "Kerberos".to_owned(),
        6 => "SCM".to_owned(),
        7 | 8 => "GSSAPI".to_owned(),
        9 => "SSPI".to_owned(),
        other => format!("method {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn options(password: Option<&str>, host: &str) -> ConnectOptions {
        let password = password.map(|text| Zeroizing::new(text.to_owned()));
        ConnectOptions { host: host.to_owned(), password, ..ConnectOptions::new("someone") }
    }

    fn asks(kind: u32, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn a_server_that_knows_no_password_is_not_believed() {
        let options = options(Some("secret"), "/tmp");
        let mut login = Login::new(&options);
        assert!(login.answer(&asks(10, b"SCRAM-SHA-256\0\0")).unwrap().is_some());
        assert!(matches!(login.answer(&asks(0, b"")), Err(PgError::NotProven { .. })));
        let mut login = Login::new(&options);
        assert!(matches!(login.answer(&asks(12, b"v=AAAA")), Err(PgError::NotProven { .. })));
    }

    #[test]
    fn a_password_is_not_sent_in_clear_over_a_network() {
        let far = options(Some("secret"), "db.example");
        assert!(matches!(Login::new(&far).answer(&asks(3, b"")), Err(PgError::ClearText { .. })));
        let near = options(Some("secret"), "/run/postgresql");
        let sent = Login::new(&near).answer(&asks(3, b"")).unwrap().unwrap();
        assert!(sent.ends_with(b"secret\0"));
        let none = options(None, "/tmp");
        assert!(matches!(Login::new(&none).answer(&asks(3, b"")), Err(PgError::NoPassword { .. })));
    }

    #[test]
    fn hostile_demands_are_refused() {
        let options = options(Some("secret"), "/tmp");
        let first = |body: &[u8]| {
            let mut login = Login::new(&options);
            login.answer(&asks(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")).unwrap();
            login.answer(&asks(11, body)).unwrap_err()
        };
        for body in [&b""[..], b"i=", b"r=x,s=eA==,i=99999999999", b"r=x,s=eA==,i=4096", b"i=-1"] {
            assert!(matches!(first(body), PgError::Protocol { .. }), "{body:?}");
        }
        for (kind, body) in [(7, &b""[..]), (99, b""), (10, b"OAUTHBEARER\0\0")] {
            let answer = Login::new(&options).answer(&asks(kind, body));
            assert!(matches!(answer, Err(PgError::Method { .. })), "{kind}");
        }
        for body in [&b""[..], b"\0\0", b"\0\0\0\x05abc"] {
            assert!(matches!(Login::new(&options).answer(body), Err(PgError::Protocol { .. })), "{body:?}");
        }
    }
}
