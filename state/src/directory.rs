//! Open directories: reopened by name, at their reading position.

use image_format::record::directory::Directory;
use image_format::{Checked, ExitCode};
use sys::abi::{O_PATH, SEEK_SET};
use sys::fs::Owned;
use sys::text::Shown;
use sys::{Errno, packed};

use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Result, Save, Target, regular};

/// Refuses a directory that was removed.
///
/// # Errors
/// Removed, or another one now has its name.
pub fn check(file: &OpenFile, path: &[u8]) -> Result<()> {
    if regular::is_own(path) {
        return Ok(());
    }
    match sys::fs::stat_path(path) {
        _ if regular::in_proc(path) => Err(Error::refused(
            format_args!("descriptor {} (directory {})", file.fd, Shown(path)),
            "is of /proc of another process or thread",
            "close it before the save",
        )),
        Ok(stat) if (stat.dev, stat.ino) == (file.dev, file.ino) => Ok(()),
        named => {
            let what = format_args!("descriptor {} (directory {})", file.fd, Shown(path));
            Err(match named {
                Err(e) if e != Errno::ENOENT => Error::failed(what, "cannot be found under its name", e),
                _ => Error::refused(what, "was removed or replaced", ""),
            }
            .remedy("close it before the save"))
        }
    }
}

/// Writes the table.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Directory, |_, file| {
        Ok(Directory { id: file.id.into(), flags: file.flags.into(), offset: file.offset.into(), path: file.path })
    })
}

/// Opens it again.
///
/// # Errors
/// It is not there, or no directory.
pub fn restore(image: &Checked<'_>, file: &Directory, fd: u32) -> Result<Owned> {
    let path = image.string(file.path);
    let failed = |why, e| {
        Error::descriptor(fd, packed!("directory"), path, why, Some(e))
            .code(ExitCode::FileMissing)
            .hint(packed!("create it again"))
    };
    let flags = file.flags.get();
    let opened = sys::fs::open_path(path, flags | sys::abi::O_DIRECTORY, 0)
        .map_err(|e| failed(packed!("cannot be opened"), e))?;
    if flags & O_PATH == 0 && file.offset.get() != 0 {
        sys::fs::seek(opened.fd(), file.offset.get() as i64, SEEK_SET)
            .map_err(|e| failed(packed!("cannot be put to its position"), e))?;
    }
    Ok(opened)
}
