//! Open regular files: reopened by name, checked against what they were, put back to their offset.

use core::convert::Infallible;

use image_format::record::Identity;
use image_format::record::regular::Regular;
use image_format::{Checked, ExitCode};
use sys::Errno;
use sys::abi::{
    AT_SYMLINK_NOFOLLOW, O_ACCMODE, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR,
    O_TRUNC, OVERLAYFS_MAGIC, S_IFMT, S_IFREG, SEEK_SET, Stat, Timespec,
};
use sys::fs::{Fd, Owned};
use sys::text::{Shown, Text};

use crate::descriptor::{Kind, OpenFile};
use crate::policy::FilesPolicy;
use crate::target::inner_id;
use crate::{Error, Object, Result, Save, Target, content, restart};

/// Flags that open(2) takes and F_GETFL gives back.
pub(crate) const REOPEN: u32 = !(O_CREAT | O_EXCL | O_TRUNC);

/// What tells whether a file is still the same.
#[must_use]
pub fn identity(stat: &Stat) -> Identity {
    Identity {
        dev: stat.dev.into(),
        ino: stat.ino.into(),
        size: (stat.size as u64).into(),
        mtime_sec: stat.mtime.sec.into(),
        mtime_nsec: (stat.mtime.nsec as u32).into(),
        mode: stat.mode.into(),
    }
}

/// Whether it can be found again by its name, or has none and its contents must be carried.
///
/// # Errors
/// Another file now has its name, or it has another one.
pub fn check(proc: Fd, file: &OpenFile, path: &[u8]) -> Result<Kind> {
    let refuse = |why, remedy| {
        Err(Error::refused(Object::descriptor(file.fd, format_args!("regular file {}", Shown(path))), why, remedy))
    };
    if in_proc(path) {
        let other = is_own(path).then_some(Kind::Regular);
        return other
            .map_or_else(|| refuse("is a file of /proc of another process or thread", "close it before the save"), Ok);
    }
    if file.named == 0 && path.ends_with(b"]") {
        return refuse("stands for a namespace that its process is not in", "close it before the save");
    }
    let same = |stat: Stat| (stat.dev, stat.ino) == (file.dev, file.ino);
    match stat(path, file.flags) {
        Ok(stat) if same(stat) => Ok(Kind::Regular),
        // Every pid namespace has a `/proc` of its own.
        _ if path.starts_with(b"/proc/") && stat_inside(proc, path).is_ok_and(same) => Ok(Kind::Regular),
        Err(Errno::ENOENT) | Ok(_) if stat_inside(proc, path).is_ok_and(same) => {
            refuse("lies in mounts of the process's own", crate::cwd::FROM_INSIDE)
        }
        // Somebody else may open it again, or `--fd` gives another one in its place.
        Err(Errno::EACCES) if file.nlink != 0 => Ok(Kind::Regular),
        Err(e) if !path.ends_with(content::DELETED) => {
            let what = Object::descriptor(file.fd, format_args!("regular file {}", Shown(path)));
            Err(Error::failed(what, "cannot be found under its name", e).remedy("close it before the save"))
        }
        _ if !path.ends_with(content::DELETED) => refuse("was replaced by another file", "close it before the save"),
        _ if file.mode & S_IFMT != S_IFREG => refuse("was deleted", "close it before the save"),
        _ if file.nlink == 0 => Ok(Kind::Content),
        _ => refuse("was deleted, but still has another name", "open it by that name, or delete that, too"),
    }
}

/// stat(2), of the link itself where that is what is open.
fn stat(path: &[u8], flags: u32) -> sys::Result<Stat> {
    const LINK: u32 = O_PATH | O_NOFOLLOW;
    if flags & LINK == LINK { sys::fs::lstat_path(path) } else { sys::fs::stat_path(path) }
}

/// stat(2) of what the process itself finds under a path.
pub(crate) fn stat_inside(proc: Fd, path: &[u8]) -> sys::Result<Stat> {
    let mut there = Text::<4128>::of(format_args!("root"));
    there.push(path);
    sys::fs::stat_at(proc, there.as_c_str(), 0)
}

/// A file of `/proc` that belongs to one process.
pub(crate) fn in_proc(path: &[u8]) -> bool {
    let name = sys::text::after(path, b"/proc/").unwrap_or_default();
    name == b"self" || name.starts_with(b"self/") || name.first().is_some_and(u8::is_ascii_digit)
}

/// Of these, one that a process finds under this name whatever its id is.
#[must_use]
pub fn is_own(path: &[u8]) -> bool {
    sys::text::after(path, b"/proc/self").is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The name by which a process finds its own file of `/proc`, `own` being its directory's: it has another id later.
#[must_use]
pub fn own_name<'t>(own: &[u8], path: &[u8], to: &'t mut Text<4128>) -> Option<&'t [u8]> {
    let rest = path.strip_prefix(own).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))?;
    if rest.starts_with(b"/task/") {
        return None;
    }
    to.push(b"/proc/self");
    to.push(rest);
    Some(to.as_bytes())
}

/// For a file that stands for a namespace (`net:[4026531840]`), if that is one which its process is in: its name in the process's directory of
/// `/proc`.
#[must_use]
pub fn own_namespace(proc: Fd, file: &OpenFile, name: &[u8]) -> Option<Text<32>> {
    if file.mode & S_IFMT != S_IFREG || file.named != 0 {
        return None;
    }
    let (kind, _) = sys::text::cut(name, b':')?;
    let name = Text::of(format_args!("ns/{}", Shown(kind)));
    let stat = sys::fs::stat_at(proc, name.as_c_str(), 0).ok()?;
    ((stat.dev, stat.ino) == (file.dev, file.ino)).then_some(name)
}

/// The directory of a process's own, if this is a file of it in the `/proc` of a namespace that it lives in: there it has another id.
#[must_use]
pub fn inner_name(proc: Fd, (dev, ino): (u64, u64), path: &[u8]) -> Option<Text<32>> {
    if !in_proc(path) {
        return None;
    }
    let name = Text::<32>::of(format_args!("/proc/{}", inner_id(proc, c"status")?));
    let stat = stat_inside(proc, path).ok()?;
    (sys::text::after(path, name.as_bytes()).is_some() && (stat.dev, stat.ino) == (dev, ino)).then_some(name)
}

/// Another name, in the same directory, of a file that was deleted under this one: programs link a file that is complete to
/// its last name and delete the first.
#[must_use]
pub fn other_name<'t>(dev: u64, ino: u64, path: &[u8], to: &'t mut Text<4128>) -> Option<&'t [u8]> {
    let path = path.strip_suffix(content::DELETED)?;
    let (dir, _) = path.split_at_checked(path.iter().rposition(|b| *b == b'/')? + 1)?;
    let open = sys::fs::open_path(dir, O_DIRECTORY, 0).ok()?;
    let mut found = Text::<256>::new();
    let walked = sys::fs::for_each_name(open.fd(), |name| {
        let mut text = Text::<256>::new();
        text.push(name);
        let same = |stat: &Stat| (stat.dev, stat.ino) == (dev, ino);
        if sys::fs::stat_at(open.fd(), text.as_c_str(), AT_SYMLINK_NOFOLLOW).as_ref().is_ok_and(same) {
            found = text;
        }
        Ok::<_, Infallible>(())
    });
    walked.ok().filter(|_| !found.as_bytes().is_empty())?;
    to.push(dir);
    to.push(found.as_bytes());
    Some(to.as_bytes())
}

/// Whether a deleted file has no name left though the kernel counts some: of one in a lower layer it counts the layer's, where nothing
/// is ever deleted. What is open for writing lies in the upper one, whose count holds.
#[must_use]
pub fn is_below(flags: u32, file: Fd) -> bool {
    flags & O_ACCMODE == O_RDONLY && sys::fs::file_system(file) == Ok(OVERLAYFS_MAGIC)
}

/// Writes the table.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Regular, |_, file| {
        Ok(Regular {
            id: file.id.into(),
            flags: file.flags.into(),
            offset: file.offset.into(),
            path: file.path,
            identity: Identity {
                dev: file.dev.into(),
                ino: file.ino.into(),
                size: file.size.into(),
                mtime_sec: file.mtime_sec.into(),
                mtime_nsec: (file.mtime_nsec as u32).into(),
                mode: file.mode.into(),
            },
            reserved: 0.into(),
        })
    })
}

/// How a file compares with what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that matters.
    None,
    /// Shorter than it was.
    Shrank,
    /// Longer, and the program may write to it.
    Grown,
    /// Written since, at the same length, or replaced by another file.
    Replaced,
}

/// Compares a file with what it was when the image was made. `writes`: the program has it open for writing.
#[must_use]
pub fn compare(then: &Identity, now: &Stat, writes: bool) -> Change {
    let size = now.size as u64;
    let same_time = (then.mtime_sec.get(), i64::from(then.mtime_nsec.get())) == (now.mtime.sec, now.mtime.nsec);
    if size < then.size.get() {
        Change::Shrank
    } else if size > then.size.get() {
        match (writes, is_same(then, now)) {
            (true, _) => Change::Grown,
            // A log that is only read may grow.
            (false, true) => Change::None,
            (false, false) => Change::Replaced,
        }
    } else if same_time || is_virtual(then) {
        Change::None
    } else {
        Change::Replaced
    }
}

/// The same file, whatever is in it now.
fn is_same(then: &Identity, now: &Stat) -> bool {
    (then.dev.get(), then.ino.get()) == (now.dev, now.ino)
}

/// Files of /proc and /sys have no size, and a new time whenever they are looked at.
fn is_virtual(then: &Identity) -> bool {
    then.size.get() == 0 && then.mode.get() & 0o222 == 0
}

/// Opens the file again, at its offset, with its flags; what `policy` forbids is an error. Nothing is changed
/// yet: [`rollback`] does that when all files are known to be there.
///
/// # Errors
/// Missing, shorter, replaced, grown; or not to be opened.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn restore(image: &Checked<'_>, file: &Regular, fd: u32, policy: FilesPolicy) -> restart::Result<Owned> {
    let path = image.string(file.path);
    let failed =
        |code, why, errno, remedy| restart::Error::descriptor(code, fd, "regular file @", path, errno, [why, remedy]);
    let flags = file.flags.get();
    let writes = flags & O_ACCMODE != O_RDONLY && flags & O_PATH == 0;
    let now = stat(path, flags).map_err(|e| {
        let (why, remedy) = match e {
            Errno::ENOENT | Errno::ENOTDIR => ("is not there any more", "put it back under this name, or --fd #=PATH"),
            _ => ("cannot be found", "let this user reach it, or --fd #=PATH"),
        };
        failed(ExitCode::FileMissing, why, Some(e), remedy)
    })?;
    if (now.mode ^ file.identity.mode.get()) & S_IFMT != 0 {
        return Err(failed(
            ExitCode::FileChanged,
            "is of another kind now",
            None,
            "put the old file back, or --files ignore",
        ));
    }
    if policy != FilesPolicy::Ignore && now.mode & S_IFMT == S_IFREG && !in_proc(path) {
        let adds = flags & O_APPEND != 0 || file.offset.get() == file.identity.size.get();
        match compare(&file.identity, &now, writes) {
            Change::None => {}
            // Who writes at the end has only added; what lay before is as it was. Who was killed within such a write has
            // changed the time alone: the kernel sets that first (generic_file_write_iter in mm/filemap.c).
            Change::Grown if policy == FilesPolicy::Rollback && adds => {}
            Change::Replaced if policy == FilesPolicy::Rollback && adds && writes && is_same(&file.identity, &now) => {}
            Change::Grown if policy == FilesPolicy::Rollback => {
                let why = "has grown since the save, and the program writes inside it";
                return Err(failed(ExitCode::FileChanged, why, None, "put the old file back, or --files ignore"));
            }
            Change::Shrank => {
                let remedy = "put the old contents back, or --files ignore";
                return Err(failed(ExitCode::FileShrank, "is shorter than it was at the save", None, remedy));
            }
            Change::Grown => {
                let remedy = "--files rollback keeps the tail aside, --files ignore takes it as it is";
                let why = "has grown since the save, and the program writes to it";
                return Err(failed(ExitCode::FileChanged, why, None, remedy));
            }
            Change::Replaced => {
                let remedy = "put the old file back, or --files ignore";
                return Err(failed(ExitCode::FileChanged, "was written or replaced since the save", None, remedy));
            }
        }
    }
    let opened = sys::fs::open_path(path, flags & REOPEN, 0)
        .map_err(|e| failed(ExitCode::FileMissing, "cannot be opened", Some(e), "--fd #=PATH"))?;
    // What stands for a namespace has no position.
    if flags & O_PATH == 0 && file.offset.get() != 0 {
        sys::fs::seek(opened.fd(), file.offset.get() as i64, SEEK_SET)
            .map_err(|e| failed(ExitCode::FileChanged, "cannot be put to its position", Some(e), ""))?;
    }
    Ok(opened)
}

/// Cuts a file that has grown back to its saved size, after its tail was copied to `FILE.after-restart.N`.
///
/// # Errors
/// The tail cannot be kept: then nothing is cut.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn rollback(image: &Checked<'_>, file: &Regular) -> restart::Result<()> {
    let flags = file.flags.get();
    if flags & O_ACCMODE == O_RDONLY || flags & O_PATH != 0 {
        return Ok(());
    }
    let path = image.string(file.path);
    let failed = |what, e| restart::Error::with_reason(ExitCode::FileChanged, "file @", 0, path, e, [what, ""]);
    let opened = sys::fs::open_path(path, O_RDWR, 0).map_err(|e| failed("cannot be opened to cut it back", e))?;
    let size = sys::fs::fstat(opened.fd()).map_err(|e| failed("cannot be read", e))?.size as u64;
    let keep = file.identity.size.get();
    if size <= keep {
        return Ok(());
    }
    keep_tail(path, &opened, keep).map_err(|e| failed("its tail cannot be kept, so it was not cut back", e))?;
    sys::fs::truncate(opened.fd(), keep).map_err(|e| failed("cannot be cut back", e))?;
    // It is again what it was: a restart that fails after this can be tried again.
    let then = Timespec { sec: file.identity.mtime_sec.get(), nsec: i64::from(file.identity.mtime_nsec.get()) };
    match sys::fs::set_mtime(opened.fd(), then) {
        // Somebody else's file, which this user may write.
        Err(Errno::EPERM) => Ok(()),
        done => done.map_err(|e| failed("its time cannot be set back", e)),
    }
}

/// `FILE.after-restart.N`. Text cuts what does not fit: then the name is too long for the kernel, too.
fn kept_name(path: &[u8], n: u64) -> Text<4128> {
    let mut name = Text::new();
    name.push(path);
    name.fill(".after-restart.#", n, b"", 0);
    name
}

/// Gives a whole file the first such name that is free, and says so.
///
/// # Errors
/// The kernel's: then it has its name still.
pub fn set_aside(path: &[u8]) -> sys::Result<()> {
    let mut n = 1;
    while sys::fs::lstat_path(kept_name(path, n).as_bytes()).is_ok() {
        n += 1;
    }
    sys::fs::rename_path(path, kept_name(path, n).as_bytes())?;
    let said = "restart-stub: file @ was written after the save: is kept, with .after-restart.# behind its name\n";
    sys::message::say(said, n, path, 0);
    Ok(())
}

#[inline(never)] // For its buffer.
fn keep_tail(path: &[u8], from: &Owned, mut at: u64) -> sys::Result<()> {
    let mut n = 1;
    let tail = loop {
        let name = kept_name(path, n);
        match sys::fs::open(name.as_c_str(), sys::abi::O_WRONLY | O_CREAT | O_EXCL, 0o600) {
            Err(sys::Errno::EEXIST) => n += 1,
            other => break other?,
        }
    };
    let mut buffer = [0; 3584];
    loop {
        let n = sys::fs::pread(from.fd(), &mut buffer, at)?;
        if n == 0 {
            return sys::fs::fsync(tail.fd());
        }
        sys::fs::write_all(tail.fd(), buffer.get(..n).unwrap_or_default())?;
        at += n as u64;
    }
}
