//! What a file consists of: data and holes, and the file system that it lies in.

use super::{Fd, arg, seek};
use crate::{Errno, Result, Sysno, abi, call};

/// The first stretch of data at or behind `at`: its start and its end; `None` behind the last one. Moves the offset.
///
/// # Errors
/// lseek(2)'s.
pub fn extent(fd: Fd, at: u64) -> Result<Option<(u64, u64)>> {
    match seek(fd, at as i64, abi::SEEK_DATA) {
        Ok(start) => seek(fd, start as i64, abi::SEEK_HOLE).map(|end| Some((start, end))),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The kind of file system that an open file lies in (`f_type` of fstatfs(2)).
///
/// # Errors
/// The call's.
pub fn file_system(fd: Fd) -> Result<u64> {
    // struct statfs: 15 words, the type first.
    let mut words = [0u64; 15];
    // SAFETY: the kernel fills the structure.
    unsafe { call(Sysno::fstatfs, [arg(fd), words.as_mut_ptr() as usize]) }?;
    Ok(words[0])
}

/// Whether nothing may be executed from the file system of an open file (`noexec`).
pub fn is_noexec(fd: Fd) -> bool {
    const ST_NOEXEC: u64 = 8;
    // struct statfs: 15 words, the flags of its mount the eleventh.
    let mut words = [0u64; 15];
    // SAFETY: the kernel fills the structure.
    let asked = unsafe { call(Sysno::fstatfs, [arg(fd), words.as_mut_ptr() as usize]) };
    asked.is_ok() && words[10] & ST_NOEXEC != 0
}
