//! Open directories: reopened by name, at their reading position. One that was removed is made again, and removed.

use core::convert::Infallible;
use core::ffi::CStr;
use image_format::record::directory::Directory;

use image_format::{Checked, ExitCode};
use sys::Errno;
use sys::abi::{O_DIRECTORY, O_PATH, O_RDONLY, SEEK_SET};
use sys::fs::{Fd, Owned};
use sys::text::{Shown, Text};

use crate::content::{DELETED, nameless};
use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Object, Result, Save, Target, regular, restart};

/// The name of a directory that was removed, as images have it, without its mark: a slash at the end.
#[must_use]
pub fn removed(path: &[u8]) -> Option<&[u8]> {
    path.strip_suffix(b"/").filter(|path| !path.is_empty())
}

/// That name, from the kernel's.
pub(crate) fn removed_name(name: &[u8]) -> Text<4128> {
    let mut text = Text::new();
    text.push(name.strip_suffix(DELETED).unwrap_or(name));
    text.push(b"/");
    text
}

/// Whether the directory to which `link` leads was removed. The kernel lists such a directory no more, whoever asks
/// (`IS_DEADDIR` in `iterate_dir`, fs/readdir.c); its mark behind the name is no proof.
pub(crate) fn is_removed(proc: Fd, link: &CStr) -> bool {
    let opened = sys::fs::open_at(proc, link, O_RDONLY | O_DIRECTORY, 0);
    opened.is_ok_and(|opened| sys::fs::for_each_name(opened.fd(), |_| Ok::<_, Infallible>(())) == Err(Errno::ENOENT))
}

/// Makes a directory that is removed.
///
/// # Errors
/// The kernel's.
pub fn restore_removed(path: &[u8], flags: u32) -> sys::Result<Owned> {
    nameless(path, flags | O_DIRECTORY, &sys::fs::make_directory)
}

/// Whether a directory was removed; refuses one that cannot be found again.
///
/// # Errors
/// Of another process's `/proc`; another one now has its name.
pub fn check(proc: Fd, link: &CStr, file: &OpenFile, path: &[u8]) -> Result<bool> {
    // Descriptors are opened by the root.
    if regular::is_own(path) && file.place() == 0 {
        return Ok(false);
    }
    match sys::fs::stat_path(path) {
        _ if regular::in_proc(path) => Err(Error::refused(
            Object::descriptor(file.fd, format_args!("directory {}", Shown(path))),
            "is of /proc of another process or thread",
            "close it before the save",
        )),
        Ok(stat) if (stat.dev, stat.ino) == (file.dev, file.ino) => Ok(false),
        _ if path.ends_with(DELETED) && is_removed(proc, link) => Ok(true),
        named => {
            let what = Object::descriptor(file.fd, format_args!("directory {}", Shown(path)));
            Err(match named {
                Err(e) if e != Errno::ENOENT => Error::failed(what, "cannot be found under its name", e),
                _ => Error::refused(what, "was replaced, or cannot be listed", "close it before the save"),
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
pub fn restore(image: &Checked<'_>, file: &Directory, fd: u32) -> restart::Result<Owned> {
    let path = image.string(file.path);
    let failed = |why, e| {
        restart::Error::descriptor(ExitCode::FileMissing, fd, "directory @", path, e, [why, "create it again"])
    };
    let flags = file.flags.get();
    let opened = match removed(path) {
        Some(path) => restore_removed(path, flags),
        None => sys::fs::open_path(path, flags | O_DIRECTORY, 0),
    };
    let opened = opened.map_err(|e| failed("cannot be opened", e))?;
    if flags & O_PATH == 0 && file.offset.get() != 0 {
        sys::fs::seek(opened.fd(), file.offset.get() as i64, SEEK_SET)
            .map_err(|e| failed("cannot be put to its position", e))?;
    }
    Ok(opened)
}
