//! Servers of every kind, made of threads and pipes: as good as OpenSSH's, with less, and hostile.

use std::collections::HashMap;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Seek, SeekFrom, Write, pipe};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes};

use super::super::door::{Connect, DoorError, Far, Wires};
use super::wire::VERSION;

/// A string as it travels.
pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A reply as a server sends it, its length in front.
pub(super) fn reply(kind: u8, id: u32, content: &[u8]) -> Vec<u8> {
    string(&[&[kind], &id.to_be_bytes()[..], content].concat())
}

/// A greeting of a server with these extensions.
pub(super) fn greeting(extensions: &[(&str, &str)]) -> Vec<u8> {
    let more = extensions
        .iter()
        .flat_map(|(name, version)| [string(name.as_bytes()), string(version.as_bytes())].concat());
    reply(2, VERSION, &more.collect::<Vec<u8>>())
}

/// What a server of OpenSSH says that it can do.
pub(super) const OPENSSH: &[(&str, &str)] = &[
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("limits@openssh.com", "1"),
];
/// What a server says that can do no more than the draft.
pub(super) const PLAIN: &[(&str, &str)] = &[];

/// How a server behaves.
#[derive(Clone)]
pub(super) struct Manner {
    pub(super) extensions: &'static [(&'static str, &'static str)],
    /// Bytes that it gives at most to a read.
    pub(super) read_max: usize,
    /// Listings have names and nothing else.
    pub(super) bare: bool,
    /// Directories are not opened as files are.
    pub(super) files_only: bool,
    /// A kind of request that fails, and with which code.
    pub(super) fails: Option<(u8, u32)>,
    /// Bytes after which the first connection breaks.
    pub(super) life: usize,
}

impl Default for Manner {
    fn default() -> Self {
        let (read_max, life) = (usize::MAX, usize::MAX);
        Self { extensions: OPENSSH, read_max, bare: false, files_only: false, fails: None, life }
    }
}

/// A server below a directory, in a thread a connection. What it was asked is noted.
pub(super) struct Server {
    manner: Manner,
    root: PathBuf,
    pub(super) connections: Mutex<usize>,
    pub(super) asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn new(manner: Manner, root: &Path) -> Self {
        Self { manner, root: root.to_owned(), connections: Mutex::default(), asked: Arc::default() }
    }
}

struct Pipe;

impl Far for Pipe {
    fn why(&self) -> DoorError {
        DoorError::Lost { said: String::new() }
    }

    fn stop(&self) {}
}

impl Connect for Server {
    fn connect(&self) -> Result<Wires, DoorError> {
        let ((input, theirs), (ours, output)) = (pipe().unwrap(), pipe().unwrap());
        let mut connections = self.connections.lock().unwrap();
        *connections += 1;
        let life = if *connections == 1 { self.manner.life } else { usize::MAX };
        let manner = Manner { life, ..self.manner.clone() };
        let session = Session {
            manner,
            root: self.root.clone(),
            asked: Arc::clone(&self.asked),
            handles: HashMap::new(),
            last: 0,
        };
        std::thread::spawn(move || session.serve(ours, theirs));
        Ok(Wires { input: Box::new(input), output: Box::new(output), far: Arc::new(Pipe) })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// What is open.
enum Thing {
    File(fs::File, String),
    Names(Vec<PathBuf>),
}

struct Session {
    manner: Manner,
    root: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    handles: HashMap<Vec<u8>, Thing>,
    last: u32,
}

fn next(request: &mut Bytes) -> Bytes {
    let len = request.get_u32() as usize;
    request.split_to(len)
}

fn described(meta: &fs::Metadata) -> Vec<u8> {
    [
        &0xd_u32.to_be_bytes()[..],
        &meta.len().to_be_bytes(),
        &meta.mode().to_be_bytes(),
        &[0; 4],
        &(meta.mtime() as u32).to_be_bytes(),
    ]
    .concat()
}

type Answer = std::io::Result<(u8, Vec<u8>)>;

impl Session {
    fn serve(mut self, mut input: PipeReader, mut output: PipeWriter) {
        let mut sent = 0;
        loop {
            let mut len = [0; 4];
            if input.read_exact(&mut len).is_err() {
                return;
            }
            let mut request = vec![0; u32::from_be_bytes(len) as usize];
            input.read_exact(&mut request).unwrap();
            let answer = if request[0] == 1 {
                greeting(self.manner.extensions)
            } else {
                let mut request = Bytes::from(request);
                let (kind, id) = (request.get_u8(), request.get_u32());
                let fails = self.manner.fails.filter(|(failing, _)| *failing == kind);
                let answer = match fails {
                    Some((_, code)) => Ok((101, code.to_be_bytes().to_vec())),
                    None => self.answer(kind, request),
                };
                let (kind, content) = answer.unwrap_or_else(|error| {
                    let code = match error.kind() {
                        std::io::ErrorKind::NotFound => 2_u32,
                        std::io::ErrorKind::PermissionDenied => 3,
                        std::io::ErrorKind::UnexpectedEof => 1,
                        std::io::ErrorKind::Unsupported => 8,
                        _ => 4,
                    };
                    (101, code.to_be_bytes().to_vec())
                });
                reply(kind, id, &content)
            };
            sent += answer.len();
            if sent > self.manner.life || output.write_all(&answer).is_err() {
                return;
            }
        }
    }

    fn note(&self, what: &str, path: &str) {
        self.asked.lock().unwrap().push(format!("{what} {path}"));
    }

    fn path(&self, request: &mut Bytes) -> (PathBuf, String) {
        let text = String::from_utf8(next(request).to_vec()).unwrap();
        (self.root.join(&text), text)
    }

    fn keep(&mut self, thing: Thing) -> Answer {
        self.last += 1;
        let handle = self.last.to_be_bytes().to_vec();
        self.handles.insert(handle.clone(), thing);
        Ok((102, string(&handle)))
    }

    fn answer(&mut self, kind: u8, mut request: Bytes) -> Answer {
        let done = || Ok((101, vec![0; 4]));
        match kind {
            3 => {
                let (path, text) = self.path(&mut request);
                if self.manner.files_only && path.is_dir() {
                    return Err(std::io::ErrorKind::Other.into());
                }
                let new = request.get_u32() != 1;
                let file = fs::File::options().read(!new).write(new).create_new(new).open(&path)?;
                self.keep(Thing::File(file, text))
            }
            4 => {
                self.handles.remove(next(&mut request).as_ref());
                done()
            }
            5 | 6 | 8 => {
                let Some(Thing::File(file, path)) = self.handles.get_mut(next(&mut request).as_ref()) else {
                    return Err(std::io::ErrorKind::NotFound.into());
                };
                if kind == 8 {
                    return Ok((105, described(&file.metadata()?)));
                }
                file.seek(SeekFrom::Start(request.get_u64()))?;
                if kind == 6 {
                    file.write_all(&next(&mut request))?;
                    let path = path.clone();
                    self.note("write", &path);
                    return done();
                }
                let mut found = vec![0; (request.get_u32() as usize).min(self.manner.read_max)];
                let len = file.read(&mut found)?;
                if len == 0 {
                    Err(std::io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok((103, string(&found[..len])))
                }
            }
            7 => Ok((105, described(&fs::symlink_metadata(self.path(&mut request).0)?))),
            17 => Ok((105, described(&fs::metadata(self.path(&mut request).0)?))),
            11 => {
                let found =
                    fs::read_dir(self.path(&mut request).0)?.map(|entry| entry.unwrap().path()).collect();
                self.keep(Thing::Names(found))
            }
            12 => self.names(&next(&mut request)),
            13 => {
                let (path, text) = self.path(&mut request);
                self.note("remove", &text);
                fs::remove_file(path)?;
                done()
            }
            14 => {
                fs::create_dir(self.path(&mut request).0)?;
                done()
            }
            18 => {
                let ((from, _), (to, text)) = (self.path(&mut request), self.path(&mut request));
                self.note("rename", &text);
                if to.exists() {
                    Err(std::io::ErrorKind::Other.into())
                } else {
                    fs::rename(from, to).and_then(|()| done())
                }
            }
            200 => self.extended(request),
            _ => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }

    fn names(&mut self, handle: &[u8]) -> Answer {
        let Some(Thing::Names(names)) = self.handles.get_mut(handle) else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        if names.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let page: Vec<PathBuf> = names.drain(..names.len().min(3)).collect();
        let row = |path: &PathBuf| {
            let meta =
                if self.manner.bare { vec![0; 4] } else { described(&fs::symlink_metadata(path).unwrap()) };
            [string(path.file_name().unwrap().as_bytes()), string(b"for people"), meta].concat()
        };
        let rows: Vec<u8> = page.iter().flat_map(row).collect();
        Ok((104, [&(page.len() as u32).to_be_bytes()[..], &rows].concat()))
    }

    fn extended(&mut self, mut request: Bytes) -> Answer {
        let name = String::from_utf8(next(&mut request).to_vec()).unwrap();
        if !self.manner.extensions.iter().any(|(known, _)| *known == name) {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        let longs = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        match name.as_str() {
            "limits@openssh.com" => Ok((201, longs(&[262_144, 261_120, 261_120, 100]))),
            "statvfs@openssh.com" => Ok((201, longs(&[4096, 4096, 10, 5, 5, 9, 9, 9, 1, 0, 255]))),
            "hardlink@openssh.com" => {
                let ((from, _), (to, text)) = (self.path(&mut request), self.path(&mut request));
                self.note("link", &text);
                fs::hard_link(from, to)?;
                Ok((101, vec![0; 4]))
            }
            _ => {
                let Some(Thing::File(file, path)) = self.handles.get(next(&mut request).as_ref()) else {
                    return Err(std::io::ErrorKind::NotFound.into());
                };
                file.sync_all()?;
                self.note("sync", path);
                Ok((101, vec![0; 4]))
            }
        }
    }
}

/// Says one thing after the other, each when it is asked something, whatever that is; and then nothing more.
pub(super) struct Says(pub(super) Vec<Vec<u8>>);

impl Connect for Says {
    fn connect(&self) -> Result<Wires, DoorError> {
        let ((input, mut theirs), (mut ours, output)) = (pipe().unwrap(), pipe().unwrap());
        let said = self.0.clone();
        std::thread::spawn(move || {
            for answer in said {
                let mut len = [0; 4];
                ours.read_exact(&mut len).unwrap();
                ours.read_exact(&mut vec![0; u32::from_be_bytes(len) as usize]).unwrap();
                let _ = theirs.write_all(&answer);
            }
            drop(theirs);
            // Listens until nobody speaks.
            let _ = std::io::copy(&mut ours, &mut std::io::sink());
        });
        Ok(Wires { input: Box::new(input), output: Box::new(output), far: Arc::new(Pipe) })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}
