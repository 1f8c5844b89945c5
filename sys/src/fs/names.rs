//! Names of files: given, changed, taken away.

use core::ffi::CStr;

use super::{Fd, arg, call_with_path};
use crate::text::{Line, Text};
use crate::{Errno, Result, Sysno, abi, call};

/// renameat(2) inside one directory.
///
/// # Errors
/// The call's.
pub fn rename_at(dir: Fd, from: &CStr, to: &CStr) -> Result<()> {
    let (from, to) = (from.as_ptr() as usize, to.as_ptr() as usize);
    // SAFETY: the kernel only reads the names.
    unsafe { call(Sysno::renameat, [arg(dir), from, arg(dir), to]) }.map(drop)
}

/// renameat(2), by names without a NUL.
///
/// # Errors
/// The call's.
pub fn rename_path(from: &[u8], to: &[u8]) -> Result<()> {
    let mut name = Text::<{ abi::PATH_MAX }>::new();
    name.push(to);
    if name.is_cut() {
        return Err(Errno::ENAMETOOLONG);
    }
    let to = name.as_c_str().as_ptr() as usize;
    // SAFETY: the kernel only reads the names.
    unsafe { call_with_path(Sysno::renameat, from, arg(abi::AT_FDCWD), to) }.map(drop)
}

/// mknod(2) of a FIFO.
///
/// # Errors
/// The call's; EEXIST: something has that name.
pub fn make_fifo(path: &[u8], mode: u32) -> Result<()> {
    // SAFETY: the kernel only reads the path.
    unsafe { call_with_path(Sysno::mknodat, path, (abi::S_IFIFO | mode) as usize, 0) }.map(drop)
}

/// mkdir(2), for its owner alone.
///
/// # Errors
/// The call's; EEXIST: something has that name.
pub fn make_directory(path: &[u8]) -> Result<()> {
    // SAFETY: the kernel only reads the path.
    unsafe { call_with_path(Sysno::mkdirat, path, 0o700, 0) }.map(drop)
}

/// mknod(2) of a character device, for its owner alone.
///
/// # Errors
/// The call's; EEXIST: something has that name.
pub fn make_device(path: &[u8], device: u64) -> Result<()> {
    // SAFETY: the kernel only reads the path.
    unsafe { call_with_path(Sysno::mknodat, path, (abi::S_IFCHR | 0o600) as usize, device as usize) }.map(drop)
}

/// unlinkat(2).
///
/// # Errors
/// The call's.
pub fn unlink_at(dir: Fd, path: &CStr) -> Result<()> {
    // SAFETY: the kernel only reads the name.
    unsafe { call(Sysno::unlinkat, [arg(dir), path.as_ptr() as usize, 0]) }.map(drop)
}

/// Takes away the name of a file.
///
/// # Errors
/// The kernel's.
pub fn unlink_path(path: &[u8]) -> Result<()> {
    remove_path(path, 0)
}

/// unlinkat(2) of a path; `flags`: 0 or `AT_REMOVEDIR`.
///
/// # Errors
/// The kernel's.
pub fn remove_path(path: &[u8], flags: u32) -> Result<()> {
    // SAFETY: the kernel only reads the path.
    unsafe { call_with_path(Sysno::unlinkat, path, flags as usize, 0) }.map(drop)
}

/// Gives a name to an open file that has none.
///
/// # Errors
/// The kernel's; EEXIST: something has that name.
pub fn link_path(file: Fd, path: &[u8]) -> Result<()> {
    let from = Line::filled("/proc/self/fd/#", file as u64, b"", 0);
    let mut to = Text::<{ abi::PATH_MAX }>::new();
    to.push(path);
    let (from, to) = (from.as_c_str().as_ptr() as usize, to.as_c_str().as_ptr() as usize);
    let here = arg(abi::AT_FDCWD);
    // SAFETY: the kernel only reads the names.
    unsafe { call(Sysno::linkat, [here, from, here, to, abi::AT_SYMLINK_FOLLOW]) }.map(drop)
}

/// linkat(2): gives an open file that has no name one in this directory.
///
/// # Errors
/// EEXIST: something has that name; else the call's.
pub fn link_at(file: Fd, dir: Fd, name: &CStr) -> Result<()> {
    let to = name.as_ptr() as usize;
    // SAFETY: the kernel only reads the names.
    let by_number =
        unsafe { call(Sysno::linkat, [arg(file), c"".as_ptr() as usize, arg(dir), to, abi::AT_EMPTY_PATH]) };
    match by_number {
        // Before Linux 6.10 it takes a capability.
        Err(Errno::ENOENT | Errno::EPERM) => {}
        done => return done.map(drop),
    }
    let from = Text::<32>::of(format_args!("/proc/self/fd/{file}"));
    let from = from.as_c_str().as_ptr() as usize;
    // SAFETY: as above.
    unsafe { call(Sysno::linkat, [arg(abi::AT_FDCWD), from, arg(dir), to, abi::AT_SYMLINK_FOLLOW]) }.map(drop)
}

/// linkat(2) inside one directory: another name for a file.
///
/// # Errors
/// The call's.
pub fn link_name_at(dir: Fd, from: &CStr, to: &CStr) -> Result<()> {
    let (from, to) = (from.as_ptr() as usize, to.as_ptr() as usize);
    // SAFETY: the kernel only reads the names.
    unsafe { call(Sysno::linkat, [arg(dir), from, arg(dir), to, 0]) }.map(drop)
}

/// Tells that nobody is there, or none for this user, from a question that has failed.
///
/// # Errors
/// The question's.
pub fn found<T>(asked: Result<T>) -> Result<Option<T>> {
    const NONE: [Errno; 9] = [
        Errno::ENOENT,
        Errno::ENOTDIR,
        Errno::EACCES,
        Errno::EPERM,
        Errno::ELOOP,
        Errno::ENAMETOOLONG,
        Errno::ESTALE,
        Errno::ENXIO,
        Errno::ENODEV,
    ];
    match asked {
        Err(e) if NONE.contains(&e) => Ok(None),
        other => other.map(Some),
    }
}
