//! Reading and writing bytes, at the offset of a description or at one of the caller's.

use super::{Fd, arg, retry};
use crate::{Errno, Result, Sysno, call};

/// read(2), again when interrupted.
///
/// # Errors
/// The call's.
pub fn read(fd: Fd, to: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes only into `to`.
    retry(|| unsafe { call(Sysno::read, [arg(fd), to.as_mut_ptr() as usize, to.len()]) })
}

/// pread(2), again when interrupted.
///
/// # Errors
/// The call's.
pub fn pread(fd: Fd, to: &mut [u8], at: u64) -> Result<usize> {
    // SAFETY: the kernel writes only into `to`.
    retry(|| unsafe { call(Sysno::pread64, [arg(fd), to.as_mut_ptr() as usize, to.len(), at as usize]) })
}

/// pread(2) until `to` is full.
///
/// # Errors
/// The call's; EIO when the file ends first.
pub fn pread_exact(fd: Fd, mut to: &mut [u8], mut at: u64) -> Result<()> {
    while !to.is_empty() {
        let n = pread(fd, to, at)?;
        if n == 0 {
            return Err(Errno::EIO);
        }
        to = to.get_mut(n..).ok_or(Errno::EIO)?;
        at += n as u64;
    }
    Ok(())
}

/// pread(2) to an address: memory of a process under construction, which is no Rust object.
///
/// # Errors
/// The call's.
///
/// # Safety
/// `len` bytes at `addr` belong to no Rust object.
pub unsafe fn pread_to(fd: Fd, addr: usize, len: usize, at: u64) -> Result<usize> {
    // SAFETY: the caller vouches for the range.
    retry(|| unsafe { call(Sysno::pread64, [arg(fd), addr, len, at as usize]) })
}

/// write(2) of all bytes.
///
/// # Errors
/// The call's.
pub fn write_all(fd: Fd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the kernel only reads the bytes.
        let n = retry(|| unsafe { call(Sysno::write, [arg(fd), bytes.as_ptr() as usize, bytes.len()]) })?;
        // Nothing was written, and never will be.
        bytes = bytes.get(n..).filter(|_| n > 0).ok_or(Errno::EIO)?;
    }
    Ok(())
}

/// pwrite(2) from an address, which may fault: EFAULT is an error, not a signal.
///
/// # Errors
/// The call's.
pub fn pwrite_from(fd: Fd, addr: usize, len: usize, at: u64) -> Result<usize> {
    // SAFETY: the kernel only reads the memory and copes with pages that are not there.
    retry(|| unsafe { call(Sysno::pwrite64, [arg(fd), addr, len, at as usize]) })
}

/// pwrite(2) of all bytes.
///
/// # Errors
/// The call's.
pub fn pwrite_all(fd: Fd, mut bytes: &[u8], mut at: u64) -> Result<()> {
    while !bytes.is_empty() {
        let n = pwrite_from(fd, bytes.as_ptr() as usize, bytes.len(), at)?;
        // The memory of a process that has ended takes nothing.
        bytes = bytes.get(n..).filter(|_| n > 0).ok_or(Errno::EIO)?;
        at += n as u64;
    }
    Ok(())
}

/// sync_file_range(2): writing these bytes of the page cache out begins, and goes on beside the caller. It makes nothing durable: fsync(2)
/// does, and has the errors.
pub fn begin_writeback(fd: Fd, at: u64, len: u64) {
    const SYNC_FILE_RANGE_WRITE: usize = 2;
    // SAFETY: touches no memory.
    let _ = unsafe { call(Sysno::sync_file_range, [arg(fd), at as usize, len as usize, SYNC_FILE_RANGE_WRITE]) };
}
