//! A client of `serve --listen` written from `docs/serve.md`, which may say what it likes.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// How to speak to a server with this certificate.
pub(crate) fn config(certificate: &Path) -> Arc<ClientConfig> {
    let bytes = std::fs::read(certificate).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&bytes).unwrap()).unwrap();
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// A stream to a server, with nothing said in it yet.
pub(crate) fn tls(config: &Arc<ClientConfig>, port: u16) -> Tls {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_nodelay(true).unwrap();
    // A test that waits for what does not come fails.
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket)
}

/// The request that is upgraded.
pub(crate) fn request(path: &str, token: &str) -> String {
    format!(
        "GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: lifeboat\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

/// Reads the head of an answer, and not a byte more.
pub(crate) fn answer(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, id: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(content.len()).unwrap().to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// A connection that was let in: versions and the first frame are said and answered.
pub(crate) struct Wire<S: Read + Write> {
    pub(crate) stream: BufReader<S>,
}

impl<S: Read + Write> Wire<S> {
    /// Fails unless the server lets it in.
    pub(crate) fn open(mut stream: S, token: &str) -> Self {
        stream.write_all(request("", token).as_bytes()).unwrap();
        stream.flush().unwrap();
        let head = answer(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let mut wire = Self { stream: BufReader::new(stream) };
        wire.say(b"LIFEBOAT\x01\0\x01\0");
        wire.say(&frame(0x01, 0, b"\0"));
        let mut first = [0; 12];
        wire.stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"LIFEBOAT\x01\0\x01\0");
        assert_eq!(wire.frame().unwrap().0, 0x81);
        wire
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let stream = self.stream.get_mut();
        stream.write_all(bytes).and_then(|()| stream.flush()).unwrap();
    }

    /// The next frame: its kind, its request, its content.
    pub(crate) fn frame(&mut self) -> io::Result<(u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        self.stream.read_exact(&mut header)?;
        let [a, b, c, d, kind, e, f, g, h] = header;
        let mut content = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
        self.stream.read_exact(&mut content)?;
        Ok((kind, u32::from_le_bytes([e, f, g, h]), content))
    }

    /// Begins to store an object, and sends this much of it.
    pub(crate) fn put(&mut self, id: u32, key: &str, (size, content): (u64, &[u8])) {
        let mut ask = size.to_le_bytes().to_vec();
        ask.extend_from_slice(key.as_bytes());
        let mut bytes = frame(0x04, id, &ask);
        for piece in content.chunks(100_000) {
            bytes.extend(frame(0x10, id, piece));
        }
        self.say(&bytes);
    }

    /// Waits for the end of a request, and gives its content.
    pub(crate) fn done(&mut self, id: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.frame().unwrap() {
                (0x83, of, _) if of == id => return all,
                (0x10, of, content) if of == id => all.extend(content),
                (0x85, of, why) => panic!("{of} is refused: {}", String::from_utf8_lossy(&why)),
                _ => {}
            }
        }
    }
}
