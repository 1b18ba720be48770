//! A block device as the target of a restore: what is looked at before it is written, and its holes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::RestoreOptions;
use super::entries::{File, as_path};
use super::output::Place;
use super::run::Task;
use super::walk::Walk;
use crate::chunk::spans;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::format::node::{NodeKind, Problem};
use crate::ops::tree::Found;
use crate::source::target::TargetDevice;

/// Bytes of a hole that are made zeroes at once: so often a wish to stop is heard.
const PIECE: u64 = 64 << 20;

/// Opens the device that is the target, if it is one, and looks whether what was found may be written to it.
///
/// # Errors
/// [`Error::NotAFile`] if that is no regular file or could not be saved, [`Error::Target`] if the device is in use,
/// [`Error::TargetTooSmall`], and [`Error::DeviceOverwrite`] unless the options say that its content may go.
pub(super) fn open(
    options: &RestoreOptions,
    found: &Found,
    observer: &dyn Observer,
) -> Result<Option<TargetDevice>, Error> {
    if !TargetDevice::is_one(&options.target) {
        return Ok(None);
    }
    let node = match found {
        Found::Node(node) if node.kind == NodeKind::File && node.problem != Some(Problem::Unreadable) => node,
        _ => return Err(Error::NotAFile { path: as_path(options.path.clone()) }),
    };
    let device = TargetDevice::open(&options.target)?;
    let (needed, free) = (node.size, device.size());
    if needed > free {
        return Err(Error::TargetTooSmall { needed, free });
    }
    if !options.overwrite_device && !options.dry_run {
        return Err(Error::DeviceOverwrite { path: options.target.clone(), size: free });
    }
    if needed < free {
        let path = options.target.display();
        let message =
            format!("{path} is {} bytes larger than what is restored; they stay as they are", free - needed);
        observer.observe(&Event::Warning { message: &message });
    }
    Ok(Some(device))
}

impl Walk<'_> {
    /// Hands out the holes of a file that goes onto a device. Nothing of its content may be planned yet.
    pub(super) async fn zero_holes(&mut self, file: &Arc<File>) -> Result<(), Error> {
        if !matches!(self.run.target, Some(Place::Device(_))) {
            return Ok(());
        }
        for hole in file.layout.holes() {
            for piece in spans(hole.end - hole.start, PIECE) {
                if self.run.stopped() {
                    return Ok(());
                }
                file.left.fetch_add(1, Ordering::Relaxed);
                let range = hole.start + piece.start..hole.start + piece.end;
                self.push(Task::Zero(Arc::clone(file), range)).await?;
            }
        }
        Ok(())
    }
}
