//! Contents that no named file holds: memfds, deleted files, shared anonymous and System V memory. One mechanism for all: the
//! bytes go into the image, and at the restart into a new file without a name, from which descriptors are opened and
//! memory is mapped again.
//!
//! Whether another process has the same object too is not asked: after a restart it has the old one, this process a new one.

mod finder;
mod source;

use image_format::record::Identity;
use image_format::record::content::{Content, ContentFile, ContentKind, UNKNOWN};
use image_format::record::regular::Regular;
use image_format::{Checked, ExitCode};
use sys::Errno;
use sys::abi::{
    AT_REMOVEDIR, F_ADD_SEALS, F_SETFL, MFD_ALLOW_SEALING, O_ACCMODE, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH,
    O_RDWR, O_TMPFILE, SEEK_SET, Timespec,
};
use sys::fs::{Fd, Owned};
use sys::text::{Line, Text, after};

use crate::descriptor::{Kind, OpenFile};
use crate::{Result, Save, Target, owner, restart};

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
    parts: impl Iterator<Item = usize>,
) -> Result<()> {
    save.notes.begin(image_format::NoteType::Content)?;
    let (mut first, mut parts) = (0u32, parts.peekable());
    for (index, object) in contents.objects().iter().enumerate() {
        let mut segments = 0u32;
        while parts.next_if_eq(&index).is_some() {
            segments += 1;
        }
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
            uid: object.uid.into(),
            gid: object.gid.into(),
        })?;
        first += segments;
    }
    save.notes.end()?;
    let of_memfd = save.scratch.take::<u8>(contents.objects().len())?;
    save.each(files, Kind::Content, |_, file| {
        let id = contents.id(file.dev, file.ino).unwrap_or(0);
        let (flags, offset) = (file.flags.into(), file.offset.into());
        // The kernel does not tell which of several it is: it is the first one, most likely.
        let is_memfd = contents.objects().get(id as usize).is_some_and(|o| o.kind == ContentKind::Memfd as u32);
        let first = of_memfd.get_mut(id as usize).filter(|first| **first == 0);
        let made = match first {
            Some(first) if is_memfd && file.flags & (O_ACCMODE | O_PATH) == O_RDWR => core::mem::replace(first, 1) == 0,
            _ => false,
        };
        Ok(ContentFile { id: file.id.into(), flags, offset, content: id.into(), made: u32::from(made).into() })
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
            sys::process::memfd(short.as_c_str(), MFD_ALLOW_SEALING)?
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
pub fn bring_back(
    image: &Checked<'_>,
    content: &Content,
    fill: impl FnOnce(Fd) -> sys::Result<bool>,
) -> restart::Result<()> {
    let path = image.string(content.name);
    if sys::fs::lstat_path(path).is_ok() {
        return Ok(());
    }
    let failed = |pattern, name, e| restart::Error::about(ExitCode::FileMissing, pattern, 0u32, name, e);
    let no_file = "file @: is missing, and cannot be restored (!): put it there, or --map-path OLD=NEW";
    let no_directory = "directory @: is missing, and cannot be restored (!): put it there, or --map-path OLD=NEW";
    let (dir, _) = split(path);
    let nameless = match sys::fs::open_path(dir, O_TMPFILE | O_RDWR, 0o600) {
        Err(e @ (Errno::ENOENT | Errno::ENOTDIR)) => return Err(failed(no_directory, dir, e)),
        other => other.ok(),
    };
    let named = nameless.is_none();
    let made = nameless.map_or_else(|| sys::fs::open_path(path, O_RDWR | O_CREAT | O_EXCL, 0o600), Ok);
    let then = &content.identity;
    let made = made.and_then(|file| {
        let whole = |whole| if whole { sys::fs::truncate(file.fd(), then.size.get()) } else { Err(Errno::EBADMSG) };
        let done = fill(file.fd())
            .and_then(whole)
            .and_then(|()| own(image, content, file.fd()))
            .and_then(|()| sys::fs::chmod(file.fd(), then.mode.get() & 0o777))
            .and_then(|()| sys::fs::set_mtime(file.fd(), mtime(then)))
            .and_then(|()| if named { Ok(()) } else { sys::fs::link_path(file.fd(), path) });
        if named && done.is_err() {
            let _ = sys::fs::unlink_path(path);
        }
        done
    });
    made.map_err(|e| failed(no_file, path, e))?;
    sys::message::say("restart-stub: file @ was missing: restored\n", 0, path, 0);
    Ok(())
}

fn mtime(then: &Identity) -> Timespec {
    Timespec { sec: then.mtime_sec.get(), nsec: i64::from(then.mtime_nsec.get()) }
}

/// Gives a file the owner that the old one had.
///
/// # Errors
/// It cannot be looked at.
pub fn own(image: &Checked<'_>, content: &Content, fd: Fd) -> sys::Result<()> {
    let (uid, gid) = (content.uid.get(), content.gid.get());
    if uid == UNKNOWN { Ok(()) } else { owner::restore(image, fd, uid, gid) }
}

/// Makes something for a moment under a name in the directory of `path`, or else in `/tmp`, and opens it: it has no name by then.
///
/// # Errors
/// The kernel's, for the last of the directories.
#[inline(never)]
pub(crate) fn nameless(path: &[u8], flags: u32, make: &dyn Fn(&[u8]) -> sys::Result<()>) -> sys::Result<Owned> {
    let (old, _) = split(path);
    let mut last = Err(Errno::ENOENT);
    for dir in [old, b"/tmp/"] {
        let mut name = Text::<4128>::new();
        name.push(dir);
        name.fill(".ckpt-#", sys::process::pid() as u64, b"", 0);
        let made = make(name.as_bytes());
        // Of another restart that has died.
        let is_ours = made != Err(Errno::EEXIST);
        last = made.and_then(|()| sys::fs::open_path(name.as_bytes(), flags | O_NOFOLLOW, 0));
        if is_ours {
            let kind = if flags & O_DIRECTORY != 0 { AT_REMOVEDIR } else { 0 };
            let _ = sys::fs::remove_path(name.as_bytes(), kind);
        }
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Whether the image has the file of this name, which was mapped and not open: nobody goes on at an offset in it.
#[must_use]
pub fn is_carried(image: &Checked<'_>, path: &[u8]) -> bool {
    let same = |one: &Identity, other: &Identity| (one.dev, one.ino) == (other.dev, other.ino);
    let is_open = |content: &Content| image.each::<Regular>().any(|file| same(&file.identity, &content.identity));
    let named = |content: &&Content| content.kind.get() == ContentKind::Named as u32;
    let fits = |content: &Content| !is_open(content) || crate::shared_file::is_in_memory(path);
    image.each::<Content>().filter(named).any(|content| image.string(content.name) == path && fits(content))
}

/// A path's directory, with the slash, and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    path.split_at_checked(slash).unwrap_or_default()
}

/// Opens a file once more, for a description of its own.
///
/// # Errors
/// The kernel's.
pub fn open_again(fd: Fd, flags: u32) -> sys::Result<Owned> {
    sys::fs::open(Line::filled("/proc/self/fd/#", fd as u64, b"", 0).as_c_str(), flags, 0)
}

/// Opens contents for a description; `made`: their file.
///
/// # Errors
/// The kernel's.
pub fn restore(file: &ContentFile, made: Fd) -> sys::Result<Fd> {
    let flags = file.flags.get();
    if file.made.get() != 0 {
        sys::fs::seek(made, file.offset.get() as i64, SEEK_SET)?;
        sys::fs::fcntl(made, F_SETFL, flags as usize)?;
        return sys::fs::dup_above(made, 0);
    }
    // These stay among a description's flags, but would make another file, or not go through the link.
    let opened = open_again(made, flags & crate::regular::REOPEN & !(O_TMPFILE | O_NOFOLLOW))?;
    if flags & O_PATH == 0 {
        sys::fs::seek(opened.fd(), file.offset.get() as i64, SEEK_SET)?;
    }
    Ok(opened.release())
}

/// Gives the file its mode, its time and its seals, when all is open and mapped: these may forbid just that.
///
/// # Errors
/// The kernel's.
pub fn finish(content: &Content, made: Fd) -> sys::Result<()> {
    // A memfd may be forbidden to be executable (sysctl vm.memfd_noexec): that is no reason to die so late.
    let _ = sys::fs::chmod(made, content.identity.mode.get() & 0o7777);
    // Nothing was made of a file that has a name.
    if made >= 0 {
        sys::fs::set_mtime(made, mtime(&content.identity))?;
    }
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
