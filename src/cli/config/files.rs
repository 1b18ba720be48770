//! Finding and opening the files.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::super::args::GlobalArgs;
use super::super::environment::Surroundings;
use super::super::error::CliError;
use super::super::report::quote;
use super::super::{paths, places};
use super::fault::Unsafe;

/// No file that a person writes is larger.
const LARGEST: u64 = 1 << 20;
/// Others may write.
const WRITABLE: u32 = 0o022;
/// In a directory with this bit only the owner of a file replaces it.
const STICKY: u32 = 0o1000;

/// The files to read, in order: one that is named, or those of the configuration directory that are there.
pub(super) fn find(args: &GlobalArgs, around: &Surroundings) -> Result<Vec<PathBuf>, CliError> {
    let named = args.config.clone().or_else(|| around.get("LIFEBOAT_CONFIG").map(PathBuf::from));
    if let Some(path) = named {
        return Ok(vec![paths::absolute(&path, &around.directory)]);
    }
    let Some(directory) = places::configuration(around) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let main = directory.join("lifeboat.toml");
    if exists(&main)? {
        found.push(main);
    }
    found.extend(drop_ins(&directory.join("conf.d"))?);
    Ok(found)
}

fn exists(path: &Path) -> Result<bool, CliError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if is_absence(&error) => Ok(false),
        Err(source) => Err(CliError::Read { path: path.to_path_buf(), source }),
    }
}

/// What nobody named, and cannot even be seen, is not there: a service may have a home that is none, or somebody else's.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

/// All `*.toml` of the directory, by name; hidden ones are leftovers of editors.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, CliError> {
    let failed = |source| CliError::Read { path: directory.to_path_buf(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A file that was read.
pub(super) struct Opened {
    pub(super) text: String,
    owner: u32,
}

impl Opened {
    /// Fails if the file belongs to somebody else than root and who runs this, and names commands or says what root does.
    pub(super) fn refuse_foreign(&self, path: &Path, commands: bool) -> Result<(), CliError> {
        let why = match (is_own(self.owner), commands, rustix::process::geteuid().is_root()) {
            (true, ..) | (_, false, false) => return Ok(()),
            (_, true, _) => "it names commands and belongs to somebody else",
            (_, _, true) => "it belongs to somebody else",
        };
        Err(refusal(path, why, "chown \"$(id -u)\""))
    }
}

/// Opens a file that nobody else may write, also not by replacing it or a directory above it, and reads it.
pub(super) fn open(path: &Path) -> Result<Opened, CliError> {
    let failed = |source| CliError::Read { path: path.to_path_buf(), source };
    // A pipe of this name must not make anybody wait.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    refuse_writable(path, &metadata)?;
    // Where a link leads counts as well as where it lies.
    let real = path.canonicalize().map_err(failed)?;
    for parent in path.ancestors().skip(1).chain(real.ancestors().skip(1)) {
        // A path that is not absolute ends with nothing.
        let Some(metadata) = (!parent.as_os_str().is_empty()).then(|| parent.metadata()) else { continue };
        let metadata = metadata.map_err(failed)?;
        if !is_own(metadata.uid()) {
            return Err(refusal(parent, "it belongs to somebody else", "chown \"$(id -u)\""));
        }
        if metadata.mode() & STICKY == 0 {
            refuse_writable(parent, &metadata)?;
        }
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed(io::Error::other("it is not UTF-8")))?;
    Ok(Opened { text, owner: metadata.uid() })
}

/// Root's, or of who runs this.
fn is_own(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

fn refuse_writable(path: &Path, metadata: &Metadata) -> Result<(), CliError> {
    if metadata.mode() & WRITABLE == 0 {
        return Ok(());
    }
    Err(refusal(path, "others may write it", "chmod go-w"))
}

fn refusal(path: &Path, why: &str, fix: &str) -> CliError {
    let fix = format!("{fix} {}", quote(&path.display().to_string()));
    CliError::UnsafeConfig(Unsafe { path: path.to_path_buf(), why: why.to_owned(), fix })
}
