//! The one request of a connection, which is upgraded to frames, and what is answered.
//!
//! # Must not
//! Take a body, or a second request: whoever stands between must have nothing to be confused about.

use std::io::Cursor;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::store::door::wire::UPGRADE;

/// Most bytes of a request.
const HEAD_MAX: usize = 8 * 1024;
/// Most headers of a request; those that stand between add some.
const HEADERS: usize = 64;

/// A request for the frames.
pub(super) struct Request {
    /// Without slashes at its ends.
    pub(super) path: String,
    pub(super) token: Zeroizing<Vec<u8>>,
}

/// Why there are no frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum No {
    Malformed,
    Unknown,
    Elsewhere,
    Method,
    NotAsked,
    TooLong,
    TooManyOfToken,
    TooMany,
}

impl No {
    /// For a log.
    pub(super) fn why(self) -> &'static str {
        self.parts().1
    }

    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Malformed => ("400 Bad Request", "this request cannot be understood"),
            Self::Unknown => ("401 Unauthorized", "no such token"),
            Self::Elsewhere => ("403 Forbidden", "the token leads to another directory than this path"),
            Self::Method => ("405 Method Not Allowed", "only GET is possible"),
            Self::NotAsked => ("426 Upgrade Required", "this is a server of lifeboat: lifeboat -r https://…"),
            Self::TooLong => ("431 Request Header Fields Too Large", "the request is too long"),
            Self::TooManyOfToken => ("429 Too Many Requests", "too many connections with this token"),
            Self::TooMany => ("503 Service Unavailable", "too many connections"),
        }
    }

    fn text(self) -> String {
        let (status, sentence) = self.parts();
        let more = match self {
            Self::Unknown => "WWW-Authenticate: Bearer\r\n".to_owned(),
            Self::Method => "Allow: GET\r\n".to_owned(),
            Self::NotAsked => format!("Upgrade: {UPGRADE}\r\n"),
            Self::TooManyOfToken | Self::TooMany => "Retry-After: 10\r\n".to_owned(),
            _ => String::new(),
        };
        format!(
            "HTTP/1.1 {status}\r\n{more}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{sentence}\n",
            sentence.len() + 1
        )
    }
}

/// Takes a request from what has come; `None` if it is not complete. With it the number of its bytes.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, No> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(No::TooLong),
        Err(_) => return Err(No::Malformed),
    };
    let all = |name: &str| -> Vec<&[u8]> {
        let named = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value).collect()
    };
    // No body: nothing is to be guessed about where one ends.
    let empty = all("content-length").iter().all(|len| *len == b"0");
    if request.version != Some(1) || !empty || !all("transfer-encoding").is_empty() {
        return Err(No::Malformed);
    }
    if request.method != Some("GET") {
        return Err(No::Method);
    }
    let lists = |name: &str, word: &str| {
        all(name).iter().any(|value| {
            let mut words = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
            words.any(|found| found.eq_ignore_ascii_case(word.as_bytes()))
        })
    };
    if !lists("upgrade", UPGRADE) || !lists("connection", "upgrade") {
        return Err(No::NotAsked);
    }
    let [authorization] = all("authorization")[..] else { return Err(No::Unknown) };
    let (scheme, token) = authorization.split_at_checked(7).ok_or(No::Unknown)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(No::Unknown);
    }
    let path = request.path.unwrap_or("").trim_matches('/').to_owned();
    Ok(Some((Request { path, token: Zeroizing::new(token.trim_ascii().to_vec()) }, len)))
}

/// What a client sent first.
pub(super) enum Heard {
    /// A request, and what came after it.
    Request(Request, Cursor<Vec<u8>>),
    /// Something to be refused.
    No(No),
    /// Nothing, or not all.
    Gone,
}

/// Reads the request. The caller sees to it that this does not take for ever.
pub(super) async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Heard {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let room = u64::try_from(HEAD_MAX - bytes.len()).unwrap_or(0);
        match (&mut *stream).take(room).read_buf(&mut bytes).await {
            Ok(0) if room == 0 => return Heard::No(No::TooLong),
            Ok(0) | Err(_) => return Heard::Gone,
            Ok(_) => {}
        }
        match parse(&bytes) {
            Ok(None) if bytes.len() >= HEAD_MAX => return Heard::No(No::TooLong),
            Ok(None) => {}
            Ok(Some((request, len))) => return Heard::Request(request, Cursor::new(bytes.split_off(len))),
            Err(no) => return Heard::No(no),
        }
    }
}

/// Says that frames follow.
pub(super) async fn accept(stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let answer =
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: {UPGRADE}\r\nConnection: Upgrade\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await
}

/// Says why there are none, and ends the connection.
pub(super) async fn refuse(stream: &mut (impl AsyncWrite + Unpin), no: No) -> std::io::Result<()> {
    stream.write_all(no.text().as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "GET /web1/ HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nupgrade: LIFEBOAT\r\n\
                        Authorization: Bearer lbt_1\r\n\r\n";

    fn no(text: &str) -> Option<No> {
        parse(text.as_bytes()).err()
    }

    #[test]
    fn a_request_is_taken_apart_and_what_follows_it_is_kept() {
        let (request, len) = parse(format!("{GOOD}LIFEBOAT").as_bytes()).ok().flatten().unwrap();
        assert_eq!(
            (request.path.as_str(), request.token.as_slice(), len),
            ("web1", &b"lbt_1"[..], GOOD.len())
        );
        for cut in 0..GOOD.len() {
            assert!(matches!(parse(&GOOD.as_bytes()[..cut]), Ok(None)), "{cut}");
        }
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_refused() {
        for (from, to, wanted) in [
            ("GET", "POST", No::Method),
            ("HTTP/1.1", "HTTP/1.0", No::Malformed),
            ("Host: x", "Content-Length: 5", No::Malformed),
            ("Host: x", "Content-Length: 0\r\nContent-Length: 9", No::Malformed),
            ("Host: x", "Transfer-Encoding: chunked", No::Malformed),
            ("Host: x", "Host : x", No::Malformed),
            ("Host: x", "Host: x\r\n y", No::Malformed),
            ("upgrade: LIFEBOAT", "upgrade: websocket", No::NotAsked),
            ("upgrade: LIFEBOAT", "x: y", No::NotAsked),
            ("keep-alive, Upgrade", "keep-alive", No::NotAsked),
            ("Bearer", "Basic", No::Unknown),
            ("Authorization: Bearer lbt_1", "x: y", No::Unknown),
            ("Host: x", "Authorization: Bearer lbt_2", No::Unknown),
        ] {
            assert_eq!(no(&GOOD.replace(from, to)), Some(wanted), "{to}");
        }
        assert_eq!(no(&GOOD.replace("Host: x", &"a: b\r\n".repeat(70))), Some(No::TooLong));
        assert_eq!(no("LIFEBOAT\x01\0\x01\0"), Some(No::Malformed));
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_given_up_when_it_is_too_long() {
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(3 * HEAD_MAX));
        assert!(matches!(hear(&mut endless.as_bytes()).await, Heard::No(No::TooLong)));
        assert!(matches!(hear(&mut &b"GET / HT"[..]).await, Heard::Gone));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_panic(at in 0..GOOD.len(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut text = GOOD.as_bytes().to_vec();
            text.splice(at..(at + bytes.len() / 2).min(GOOD.len()), bytes);
            let _ = parse(&text);
        }
    }
}
