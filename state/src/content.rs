//! Contents that no named file holds: memfds, deleted files, shared anonymous and System V memory. One mechanism for all: the
//! bytes go into the image, and at the restart into a new file without a name, from which descriptors are opened and
//! memory is mapped again.
//!
//! Whether another process has the same object too is not asked: after a restart it has the old one, this process a new one.

mod finder;
mod source;

use image_format::record::Identity;
use image_format::record::content::{Content, ContentFile, ContentKind};
#[cfg(feature = "tree")]
use image_format::record::regular::Regular;
use image_format::{Checked, ExitCode};
use sys::Errno;
use sys::abi::{
    F_ADD_SEALS, MFD_ALLOW_SEALING, O_CREAT, O_EXCL, O_NOFOLLOW, O_PATH, O_RDWR, O_TMPFILE, SEEK_SET, Timespec,
};
use sys::fs::{Fd, Owned};
use sys::packed;
use sys::text::{Line, Text, after};

use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Result, Save, Target};

pub use source::{Contents, Object};
pub(crate) use source::{kind_of, resident};

/// What the kernel puts behind the name of a file that has lost it.
pub const DELETED: &[u8] = b" (deleted)";

/// Writes both tables. `parts` yields the object's index of each segment, ascending.
///
/// # Errors
/// No room.
pub fn save<T: Target>(
    save: &mut Save<'_, '_, T>,
    files: &[OpenFile],
    contents: &Contents<'_>,
    parts: impl Iterator<Item = usize> + Clone,
) -> Result<()> {
    save.notes.begin(image_format::NoteType::Content)?;
    let mut first = 0u32;
    for (index, object) in contents.objects().iter().enumerate() {
        let segments = parts.clone().filter(|part| *part == index).count() as u32;
        save.notes.push(&Content {
            id: (index as u32).into(),
            kind: object.kind.into(),
            name: object.name,
            identity: object.identity(),
            seals: object.seals.into(),
            first: first.into(),
            segments: segments.into(),
            key: object.key.into(),
            shmid: if object.kind == ContentKind::SysV as u32 { object.ino as u32 } else { 0 }.into(),
            reserved: 0.into(),
        })?;
        first += segments;
    }
    save.notes.end()?;
    save.each(files, Kind::Content, |_, file| {
        let id = contents.id(file.dev, file.ino).unwrap_or(0);
        let (flags, offset) = (file.flags.into(), file.offset.into());
        Ok(ContentFile { id: file.id.into(), flags, offset, content: id.into(), reserved: 0.into() })
    })
}

/// Makes a file for contents, empty and as long as it shall be, for this user alone until [`finish`]. Also tells whether it lies
/// elsewhere than it lay: its directory takes no file without a name.
///
/// # Errors
/// The kernel's.
pub fn make(image: &Checked<'_>, content: &Content) -> sys::Result<(Owned, bool)> {
    let path = image.string(content.name);
    let deleted = content.kind.get() == ContentKind::Deleted as u32;
    let (dir, base) = split(path);
    let there = if deleted { sys::fs::open_path(dir, O_TMPFILE | O_RDWR, 0o600).ok() } else { None };
    let elsewhere = deleted && there.is_none();
    let file = match there {
        Some(file) => file,
        None => {
            // The kernel takes a shorter one only, and nobody opens a memfd by its name.
            let mut short = Text::<250>::new();
            short.push(after(path, b"/memfd:").unwrap_or(base));
            sys::process::memfd(short.as_c_str(), MFD_ALLOW_SEALING).map(Owned::new)?
        }
    };
    sys::fs::truncate(file.fd(), content.identity.size.get())?;
    Ok((file, elsewhere))
}

/// Makes a file that is missing from its contents, which `fill` writes, as it was; one that is there stays as it is. It has its name
/// when it is whole: a restart that is killed leaves nothing (where the file system knows no files without a name, a shorter one).
///
/// # Errors
/// It cannot be made: then it is still missing.
pub fn bring_back(image: &Checked<'_>, content: &Content, fill: impl FnOnce(Fd) -> sys::Result<bool>) -> Result<()> {
    let path = image.string(content.name);
    if sys::fs::lstat_path(path).is_ok() {
        return Ok(());
    }
    let failed = |pattern, name, e| Error::about(pattern, 0u32, name, e).code(ExitCode::FileMissing);
    let no_file = packed!("file @: is missing, and cannot be restored (!): put it there, or --map-path OLD=NEW");
    let no_directory =
        packed!("directory @: is missing, and cannot be restored (!): put it there, or --map-path OLD=NEW");
    let (dir, _) = split(path);
    let nameless = match sys::fs::open_path(dir, O_TMPFILE | O_RDWR, 0o600) {
        Err(e @ (Errno::ENOENT | Errno::ENOTDIR)) => return Err(failed(no_directory, dir, e)),
        other => other.ok(),
    };
    let named = nameless.is_none();
    let made = nameless.map_or_else(|| sys::fs::open_path(path, O_RDWR | O_CREAT | O_EXCL, 0o600), Ok);
    let then = &content.identity;
    let time = Timespec { sec: then.mtime_sec.get(), nsec: i64::from(then.mtime_nsec.get()) };
    let made = made.and_then(|file| {
        let whole = |whole| if whole { sys::fs::truncate(file.fd(), then.size.get()) } else { Err(Errno::EBADMSG) };
        let done = fill(file.fd())
            .and_then(whole)
            .and_then(|()| sys::fs::chmod(file.fd(), then.mode.get() & 0o777))
            .and_then(|()| sys::fs::set_mtime(file.fd(), time))
            .and_then(|()| if named { Ok(()) } else { sys::fs::link_path(file.fd(), path) });
        if named && done.is_err() {
            let _ = sys::fs::unlink_path(path);
        }
        done
    });
    made.map_err(|e| failed(no_file, path, e))?;
    let text = Line::filled(packed!("restart-stub: file @ was missing: restored\n"), 0, path, 0);
    let _ = sys::fs::write_all(2, text.as_bytes());
    Ok(())
}

/// Whether the image has the file of this name, which was mapped and not open: nobody goes on at an offset in it.
#[cfg(feature = "tree")]
#[must_use]
pub fn is_carried(image: &Checked<'_>, path: &[u8]) -> bool {
    let same = |one: &Identity, other: &Identity| (one.dev, one.ino) == (other.dev, other.ino);
    let is_open = |content: &Content| image.each::<Regular>().any(|file| same(&file.identity, &content.identity));
    let named = |content: &&Content| content.kind.get() == ContentKind::Named as u32;
    image.each::<Content>().filter(named).any(|content| image.string(content.name) == path && !is_open(content))
}

/// A path's directory, with the slash, and the name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    path.split_at_checked(slash).unwrap_or_default()
}

/// Opens a file once more, for a description of its own.
///
/// # Errors
/// The kernel's.
pub fn open_again(fd: Fd, flags: u32) -> sys::Result<Owned> {
    sys::fs::open(Line::filled(packed!("/proc/self/fd/#"), fd as u64, b"", 0).as_c_str(), flags, 0)
}

/// Opens contents for a description; `made`: their file.
///
/// # Errors
/// The kernel's.
pub fn restore(file: &ContentFile, made: Fd) -> sys::Result<Fd> {
    let flags = file.flags.get();
    // These stay among a description's flags, but would make another file, or not go through the link.
    let opened = open_again(made, flags & crate::regular::REOPEN & !(O_TMPFILE | O_NOFOLLOW))?;
    if flags & O_PATH == 0 {
        sys::fs::seek(opened.fd(), file.offset.get() as i64, SEEK_SET)?;
    }
    Ok(opened.release())
}

/// Gives the file its mode and its seals, when all is open and mapped: both may forbid just that.
///
/// # Errors
/// The kernel's.
pub fn finish(content: &Content, made: Fd) -> sys::Result<()> {
    // A memfd may be forbidden to be executable (sysctl vm.memfd_noexec): that is no reason to die so late.
    let _ = sys::fs::chmod(made, content.identity.mode.get() & 0o7777);
    match content.seals.get() {
        0 => Ok(()),
        seals => sys::fs::fcntl(made, F_ADD_SEALS, seals as usize).map(drop),
    }
}

/// What an object is, as the image tells it.
impl Object {
    /// Its identity.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            dev: self.dev.into(),
            ino: self.ino.into(),
            size: self.size.into(),
            mtime_sec: self.mtime_sec.into(),
            mtime_nsec: (self.mtime_nsec as u32).into(),
            mode: self.mode.into(),
        }
    }
}
