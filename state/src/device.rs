//! Character devices without state: the memory devices that every system has.

use image_format::record::device::Device;
use image_format::{Checked, ExitCode};
use sys::abi::{O_NOFOLLOW, O_PATH, S_IFCHR, S_IFMT};
use sys::fs::Owned;
use sys::text::numbered;

use crate::content::{DELETED, nameless};
use crate::descriptor::{Kind, OpenFile};
use crate::{Result, Save, Target, owner, restart};

/// Minor numbers of major 1 (Documentation/admin-guide/devices.txt) and the names that every system has for them.
const MINORS: &[u8] = b"3 /dev/null 5 /dev/zero 7 /dev/full 8 /dev/random 9 /dev/urandom";

/// Whether a device is one of them.
#[must_use]
pub fn check(rdev: u64) -> bool {
    usual_name(rdev).is_some()
}

/// The name that every system has for such a device.
fn usual_name(rdev: u64) -> Option<&'static [u8]> {
    // Major 1, as gnu_dev_major(3) puts it.
    rdev.checked_sub(1 << 8).and_then(|minor| numbered(MINORS, minor))
}

/// Writes the table.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Device, |_, file| {
        Ok(Device {
            id: file.id.into(),
            flags: file.flags.into(),
            rdev: file.rdev.into(),
            path: file.path,
            mode: (file.mode & 0o7777).into(),
            uid: file.uid.into(),
            gid: file.gid.into(),
        })
    })
}

/// A node whose name is gone, as whoever may make some has made it.
fn nameless_node(image: &Checked<'_>, file: &Device, path: &[u8]) -> sys::Result<Owned> {
    nameless(path, file.flags.get(), &|name| {
        sys::fs::make_device(name, file.rdev.get())?;
        let node = sys::fs::open_path(name, O_PATH | O_NOFOLLOW, 0)?;
        owner::restore(image, node.fd(), file.uid.get(), file.gid.get())?;
        sys::fs::chmod_path(name, file.mode.get())
    })
}

/// Opens it again; another device under the name is an error.
///
/// # Errors
/// Missing, or another device.
pub fn restore(image: &Checked<'_>, file: &Device, fd: u32) -> restart::Result<Owned> {
    let path = image.string(file.path);
    let failed = |code, why, e| restart::Error::descriptor(code, fd, "device @", path, e, [why, ""]);
    let flags = file.flags.get();
    // The old name may be one of another root directory (containers bind these devices): then the usual one.
    let opened = sys::fs::open_path(path, flags, 0)
        .or_else(|e| path.strip_suffix(DELETED).map_or(Err(e), |path| nameless_node(image, file, path)))
        .or_else(|e| usual_name(file.rdev.get()).map_or(Err(e), |name| sys::fs::open_path(name, flags, 0)))
        .map_err(|e| failed(ExitCode::FileMissing, "cannot be opened", e))?;
    let stat = sys::fs::fstat(opened.fd()).map_err(|e| failed(ExitCode::FileMissing, "cannot be examined", e))?;
    if stat.mode & S_IFMT != S_IFCHR || stat.rdev != file.rdev.get() {
        return Err(failed(ExitCode::FileChanged, "is another device", sys::Errno::ENXIO));
    }
    Ok(opened)
}
