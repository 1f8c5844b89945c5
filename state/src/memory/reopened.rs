//! Files of shared mappings, opened again at a restart.

use image_format::record::memory::{Backing, BackingFlags, Vma};
use image_format::{Checked, ExitCode};
use sys::abi::{O_RDONLY, O_RDWR};
use sys::fs::Owned;

use crate::regular::{Change, compare};
use crate::{FilesPolicy, restart};

/// How a mapped file must be open.
#[must_use]
pub fn mapped_mode(backing: &Backing) -> u32 {
    if backing.flags.get() & BackingFlags::WRITTEN.bits() != 0 { O_RDWR } else { O_RDONLY }
}

/// Opens the file of a shared mapping.
///
/// # Errors
/// It is missing, or has changed: what it held is not in the image.
pub fn open_shared(image: &Checked<'_>, backing: &Backing, vma: &Vma, policy: FilesPolicy) -> restart::Result<Owned> {
    let (start, path) = (vma.start.get(), image.string(backing.path));
    let failed = |code, why, e| {
        restart::Error::with_reason(code, "mapping * of file @", start, path, e, [why, "put the file back"])
    };
    let written = mapped_mode(backing) == O_RDWR;
    let file = sys::fs::open_path(path, mapped_mode(backing), 0)
        .map_err(|e| failed(ExitCode::FileMissing, "cannot be opened", e))?;
    let stat = sys::fs::fstat(file.fd()).map_err(|e| failed(ExitCode::FileMissing, "cannot be examined", e))?;
    match compare(&backing.identity, &stat, written) {
        _ if policy == FilesPolicy::Ignore => {}
        Change::None => {}
        Change::Shrank => {
            return Err(failed(ExitCode::FileShrank, "is shorter than it was at the save", sys::Errno::ESTALE));
        }
        // A longer file does not disturb what is mapped of it; rollback cuts it when it is open, too.
        Change::Grown if policy == FilesPolicy::Rollback => {}
        Change::Grown | Change::Replaced => {
            return Err(failed(ExitCode::FileChanged, "was written or replaced since the save", sys::Errno::ESTALE));
        }
    }
    Ok(file)
}
