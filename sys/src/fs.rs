//! Files: open, read, write, stat, descriptors, locks.
//!
//! Descriptors are plain numbers here ([`Fd`]): in a process that is being saved or rebuilt, most of them belong
//! to the program, not to this code. [`Owned`] closes those that are ours.

mod content;
mod event;
mod lines;
mod names;
mod owned;
mod owner;
mod pipe;
mod same;
mod transfer;

use core::ffi::CStr;

use crate::abi::{self, Flock, Stat};
use crate::text::Text;
use crate::{Errno, Result, Sysno, call};

pub use content::{extent, file_system, is_noexec};
pub use event::{
    FileHandle, epoll, epoll_control, eventfd, inotify, open_by_handle, order_of_watched, signalfd, timerfd, unwatch,
    watch,
};
pub use lines::{Entry, Lines, for_each_entry, for_each_name, read_file_at};
pub use names::{
    found, link_at, link_name_at, link_path, make_device, make_directory, make_fifo, remove_path, rename_at,
    rename_path, unlink_at, unlink_path,
};
pub use owned::{Owned, close, close_range, close_range_on_exec, dup_above, dup_to, duplicate};
pub use owner::{owner, owner_users, set_owner, set_signal_driven};
pub use pipe::{hung_up, pipe, ready, ready_within, tee, wait_for_any, waiting};
pub use same::{order_of_descriptions, same_description, same_description_between, same_description_in, same_own};
pub use transfer::{begin_writeback, pread, pread_exact, pread_to, pwrite_all, pwrite_from, read, write_all};

/// A descriptor's number.
pub type Fd = i32;

const CARE: u32 = abi::O_CLOEXEC | abi::O_NOCTTY;

const fn arg(fd: Fd) -> usize {
    fd as isize as usize
}

pub(crate) fn fd_of(n: usize) -> Fd {
    // The kernel's are ints.
    n as Fd
}

/// openat(2) in `dir` ([`abi::AT_FDCWD`] for the working directory), close-on-exec, never a controlling terminal.
///
/// # Errors
/// The call's.
pub fn open_at(dir: Fd, path: &CStr, flags: u32, mode: u32) -> Result<Owned> {
    // SAFETY: `path` ends with a NUL; the kernel only reads it.
    let fd =
        unsafe { call(Sysno::openat, [arg(dir), path.as_ptr() as usize, (flags | CARE) as usize, mode as usize]) }?;
    Ok(Owned::own(fd_of(fd)))
}

/// openat(2) by an absolute path or one relative to the working directory.
///
/// # Errors
/// The call's.
pub fn open(path: &CStr, flags: u32, mode: u32) -> Result<Owned> {
    open_at(abi::AT_FDCWD, path, flags, mode)
}

/// A call with a name without a NUL, as it comes from an argument or an image: what is too long is never cut.
///
/// # Safety
/// As [`call`].
#[inline(never)] // For its buffer.
unsafe fn call_with_path(number: Sysno, path: &[u8], a: usize, b: usize) -> Result<usize> {
    let mut text = Text::<{ abi::PATH_MAX }>::new();
    text.push(path);
    if text.is_cut() {
        return Err(Errno::ENAMETOOLONG);
    }
    // SAFETY: the path ends with a NUL; the caller vouches for the others.
    unsafe { call(number, [arg(abi::AT_FDCWD), text.as_c_str().as_ptr() as usize, a, b]) }
}

/// As [`open`], by a name without a NUL.
///
/// # Errors
/// The call's.
#[inline(never)]
pub fn open_path(path: &[u8], flags: u32, mode: u32) -> Result<Owned> {
    // SAFETY: the kernel only reads the path.
    let fd = unsafe { call_with_path(Sysno::openat, path, (flags | CARE) as usize, mode as usize) }?;
    Ok(Owned::own(fd_of(fd)))
}

fn retry(mut f: impl FnMut() -> Result<usize>) -> Result<usize> {
    loop {
        match f() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// fstat(2).
///
/// # Errors
/// The call's.
#[inline(never)] // So that it exists once.
pub fn fstat(fd: Fd) -> Result<Stat> {
    stat_at(fd, c"", abi::AT_EMPTY_PATH)
}

/// stat(2): follows symbolic links.
///
/// # Errors
/// The call's.
pub fn stat(path: &CStr) -> Result<Stat> {
    stat_at(abi::AT_FDCWD, path, 0)
}

/// As [`stat`], by a name without a NUL.
///
/// # Errors
/// The call's.
pub fn stat_path(path: &[u8]) -> Result<Stat> {
    stat_of(path, 0)
}

/// As [`stat_path`], of a symbolic link itself.
///
/// # Errors
/// The call's.
pub fn lstat_path(path: &[u8]) -> Result<Stat> {
    stat_of(path, abi::AT_SYMLINK_NOFOLLOW)
}

#[inline(never)]
fn stat_of(path: &[u8], flags: usize) -> Result<Stat> {
    let mut stat = Stat::default();
    // SAFETY: the kernel fills `stat`.
    unsafe { call_with_path(Sysno::newfstatat, path, (&raw mut stat) as usize, flags) }?;
    Ok(stat)
}

/// newfstatat(2).
///
/// # Errors
/// The call's.
pub fn stat_at(dir: Fd, path: &CStr, flags: usize) -> Result<Stat> {
    let mut stat = Stat::default();
    let to = (&raw mut stat) as usize;
    // SAFETY: the kernel fills `stat` and reads `path`.
    unsafe { call(Sysno::newfstatat, [arg(dir), path.as_ptr() as usize, to, flags]) }?;
    Ok(stat)
}

/// readlinkat(2) into `to`; the bytes of the target.
///
/// # Errors
/// The call's; ENAMETOOLONG when `to` is full.
pub fn read_link_at<'t>(dir: Fd, path: &CStr, to: &'t mut [u8]) -> Result<&'t [u8]> {
    let at = to.as_mut_ptr() as usize;
    // SAFETY: the kernel writes only into `to` and reads `path`.
    let n = unsafe { call(Sysno::readlinkat, [arg(dir), path.as_ptr() as usize, at, to.len()]) }?;
    if n >= to.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    to.get(..n).ok_or(Errno::EIO)
}

/// lseek(2); returns the new offset.
///
/// # Errors
/// The call's.
pub fn seek(fd: Fd, offset: i64, whence: usize) -> Result<u64> {
    // SAFETY: moves an offset.
    unsafe { call(Sysno::lseek, [arg(fd), offset as usize, whence]) }.map(|n| n as u64)
}

/// fcntl(2) with a number as argument.
///
/// ```compile_fail
/// #![forbid(unsafe_code)]
/// // F_GETOWN_EX writes to where the number points.
/// let _ = sys::fs::fcntl(0, 16, "text".as_ptr() as usize);
/// ```
///
/// # Errors
/// The call's.
pub fn fcntl(fd: Fd, command: abi::NumberCommand, value: usize) -> Result<usize> {
    // SAFETY: these commands touch no memory.
    unsafe { call(Sysno::fcntl, [arg(fd), command.0, value]) }
}

/// fcntl(2) `F_SETLK` or `F_OFD_SETLK`.
///
/// # Errors
/// EAGAIN or EACCES when another process holds a conflicting lock; else the call's.
pub fn set_lock(fd: Fd, command: abi::LockCommand, lock: &Flock) -> Result<()> {
    // SAFETY: the kernel only reads the structure.
    unsafe { call(Sysno::fcntl, [arg(fd), command.0, (&raw const *lock) as usize]) }.map(drop)
}

/// fcntl(2) `F_OFD_GETLK`: whether somebody else's lock stands against this one.
///
/// # Errors
/// The call's.
pub fn is_locked(fd: Fd, mut lock: Flock) -> Result<bool> {
    // SAFETY: the kernel reads and writes the structure only.
    unsafe { call(Sysno::fcntl, [arg(fd), abi::F_OFD_GETLK, (&raw mut lock) as usize]) }?;
    Ok(lock.kind != abi::F_UNLCK)
}

/// flock(2).
///
/// # Errors
/// EWOULDBLOCK when another holds it; else the call's.
pub fn flock(fd: Fd, operation: usize) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { call(Sysno::flock, [arg(fd), operation]) }.map(drop)
}

/// Whether an exec closes the descriptor.
///
/// # Errors
/// EBADF.
pub fn closes_at_exec(fd: Fd) -> Result<bool> {
    Ok(fcntl(fd, abi::F_GETFD, 0)? & abi::FD_CLOEXEC != 0)
}

/// fsync(2).
///
/// # Errors
/// The call's.
pub fn fsync(fd: Fd) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { call(Sysno::fsync, [arg(fd)]) }.map(drop)
}

/// Whether this process may create files in an open directory.
///
/// # Errors
/// EACCES, EROFS, or what faccessat2(2) says.
pub fn may_create_in(dir: Fd) -> Result<()> {
    /// `W_OK | X_OK`, by the effective ids.
    const MODE: usize = 2 | 1;
    const AT_EACCESS: usize = 0x200;
    // SAFETY: the kernel only reads the empty name.
    unsafe { call(Sysno::faccessat2, [arg(dir), c"".as_ptr() as usize, MODE, abi::AT_EMPTY_PATH | AT_EACCESS]) }
        .map(drop)
}

/// fchmod(2).
///
/// # Errors
/// The call's.
pub fn chmod(fd: Fd, mode: u32) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { call(Sysno::fchmod, [arg(fd), mode as usize]) }.map(drop)
}

/// fchownat(2) of what is open, also by `O_PATH`.
///
/// # Errors
/// The call's.
pub fn chown(fd: Fd, uid: u32, gid: u32) -> Result<()> {
    let args = [arg(fd), c"".as_ptr() as usize, uid as usize, gid as usize, abi::AT_EMPTY_PATH];
    // SAFETY: the kernel only reads the empty path.
    unsafe { call(Sysno::fchownat, args) }.map(drop)
}

/// chmod(2).
///
/// # Errors
/// The call's.
pub fn chmod_path(path: &[u8], mode: u32) -> Result<()> {
    // SAFETY: the kernel only reads the path.
    unsafe { call_with_path(Sysno::fchmodat, path, mode as usize, 0) }.map(drop)
}

/// ftruncate(2).
///
/// # Errors
/// The call's.
pub fn truncate(fd: Fd, len: u64) -> Result<()> {
    // SAFETY: changes a file, no memory.
    unsafe { call(Sysno::ftruncate, [arg(fd), len as usize]) }.map(drop)
}

/// utimensat(2): the time of the last change, the time of the last access as it is.
///
/// # Errors
/// The call's.
pub fn set_mtime(fd: Fd, time: abi::Timespec) -> Result<()> {
    /// `UTIME_OMIT`.
    const OMIT: abi::Timespec = abi::Timespec { sec: 0, nsec: 0x3fff_fffe };
    let times = [OMIT, time];
    // SAFETY: the kernel only reads the times.
    unsafe { call(Sysno::utimensat, [arg(fd), 0, times.as_ptr() as usize, 0]) }.map(drop)
}

/// fchdir(2) to a directory by its name.
///
/// # Errors
/// openat(2)'s, fchdir(2)'s.
pub fn chdir(path: &[u8]) -> Result<()> {
    enter(open_path(path, abi::O_PATH | abi::O_DIRECTORY, 0)?.fd())
}

/// fchdir(2).
///
/// # Errors
/// The call's.
pub fn enter(directory: Fd) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { call(Sysno::fchdir, [arg(directory)]) }.map(drop)
}

/// umask(2); returns the old one.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: no memory is touched; the call cannot fail.
    unsafe { call(Sysno::umask, [mask as usize]) }.unwrap_or(0) as u32
}

/// ioctl(2) that reads or fills a structure.
///
/// # Errors
/// The call's.
///
/// # Safety
/// `T` is the structure of this request, or a number-sized stand-in.
pub unsafe fn ioctl<T>(fd: Fd, request: usize, value: &mut T) -> Result<usize> {
    // SAFETY: the caller vouches that the request works on a `T`.
    unsafe { call(Sysno::ioctl, [arg(fd), request, (&raw mut *value) as usize]) }
}
