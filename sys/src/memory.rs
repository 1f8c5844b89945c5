//! Memory: mappings and what lies in them.
//!
//! Addresses are plain numbers: most of this memory belongs to a program that is being saved or rebuilt, not to
//! Rust. Whoever maps over, or unmaps, what Rust uses breaks it: these functions are unsafe.

use crate::abi::mm::{MREMAP_FIXED, MREMAP_MAYMOVE, PageRegion, PmScanArg};
use crate::fs::Fd;
use crate::{Result, Sysno, call};

/// mmap(2).
///
/// # Errors
/// The call's.
///
/// # Safety
/// With `MAP_FIXED` nothing that Rust uses lies there.
pub unsafe fn map(addr: usize, len: usize, prot: u32, flags: u32, fd: Fd, offset: u64) -> Result<usize> {
    let args = [addr, len, prot as usize, flags as usize, fd as isize as usize, offset as usize];
    // SAFETY: the caller vouches for the range.
    unsafe { call(Sysno::mmap, args) }
}

/// munmap(2).
///
/// # Errors
/// The call's.
///
/// # Safety
/// Nothing that Rust uses lies there.
pub unsafe fn unmap(addr: usize, len: usize) -> Result<()> {
    // SAFETY: the caller vouches for the range.
    unsafe { call(Sysno::munmap, [addr, len]) }.map(drop)
}

/// mprotect(2).
///
/// # Errors
/// The call's.
///
/// # Safety
/// Rust does not rely on the old protection.
pub unsafe fn protect(addr: usize, len: usize, prot: u32) -> Result<()> {
    // SAFETY: the caller vouches for the range.
    unsafe { call(Sysno::mprotect, [addr, len, prot as usize]) }.map(drop)
}

/// pkey_mprotect(2).
///
/// # Errors
/// The call's.
///
/// # Safety
/// Rust does not rely on the old protection.
pub unsafe fn protect_by_key(addr: usize, len: usize, prot: u32, key: u32) -> Result<()> {
    // SAFETY: the caller vouches for the range.
    unsafe { call(Sysno::pkey_mprotect, [addr, len, prot as usize, key as usize]) }.map(drop)
}

/// pkey_alloc(2): a key with which this thread may do all.
///
/// # Errors
/// The call's.
pub fn new_key() -> Result<usize> {
    // SAFETY: no memory has the key yet.
    unsafe { call(Sysno::pkey_alloc, [0; 2]) }
}

/// pkey_free(2).
pub fn free_key(key: u32) {
    // SAFETY: changes no memory.
    let _ = unsafe { call(Sysno::pkey_free, [key as usize]) };
}

/// mremap(2) to an exact place.
///
/// # Errors
/// The call's.
///
/// # Safety
/// Nothing that Rust uses lies in either range.
pub unsafe fn move_to(from: usize, len: usize, to: usize) -> Result<()> {
    // SAFETY: the caller vouches for the ranges.
    unsafe { call(Sysno::mremap, [from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to]) }.map(drop)
}

/// madvise(2).
///
/// # Errors
/// The call's.
///
/// # Safety
/// The advice does not take away contents that Rust relies on.
pub unsafe fn advise(addr: usize, len: usize, advice: usize) -> Result<()> {
    // SAFETY: the caller vouches for the range.
    unsafe { call(Sysno::madvise, [addr, len, advice]) }.map(drop)
}

/// mlock(2).
///
/// # Errors
/// The call's.
pub fn lock(addr: usize, len: usize) -> Result<()> {
    // SAFETY: changes no contents.
    unsafe { call(Sysno::mlock, [addr, len]) }.map(drop)
}

/// mseal(2): from now on the range can be neither unmapped, moved nor protected otherwise. An empty one shows whether the kernel has it.
///
/// # Errors
/// The call's; `ENOSYS` before Linux 6.10.
pub fn seal(addr: usize, len: usize) -> Result<()> {
    // SAFETY: changes no contents.
    unsafe { call(Sysno::mseal, [addr, len, 0]) }.map(drop)
}

/// mlock2(2) with `MLOCK_ONFAULT`.
///
/// # Errors
/// The call's.
pub fn lock_on_fault(addr: usize, len: usize) -> Result<()> {
    // SAFETY: changes no contents.
    unsafe { call(Sysno::mlock2, [addr, len, 1]) }.map(drop)
}

/// munlock(2); its failure only costs memory.
pub fn unlock(addr: usize, len: usize) {
    // SAFETY: changes no contents.
    let _ = unsafe { call(Sysno::munlock, [addr, len]) };
}

/// mlockall(2).
///
/// # Errors
/// The call's.
pub fn lock_all(flags: u64) -> Result<()> {
    // SAFETY: contents and addresses stay as they are.
    unsafe { call(Sysno::mlockall, [flags as usize]) }.map(drop)
}

/// `PAGEMAP_SCAN` on an open `/proc/PID/pagemap`: how many regions were filled in.
///
/// # Errors
/// ENOTTY before Linux 6.7; else the call's.
pub fn pagemap_scan(pagemap: Fd, scan: &mut PmScanArg, regions: &mut [PageRegion]) -> Result<usize> {
    scan.size = size_of::<PmScanArg>() as u64;
    scan.vec = regions.as_mut_ptr() as u64;
    scan.vec_len = regions.len() as u64;
    // SAFETY: the request works on this structure; the kernel writes only into `regions`.
    unsafe { crate::fs::ioctl(pagemap, crate::abi::mm::PAGEMAP_SCAN, scan) }
}

/// Whether the process of this directory in `/proc` has any shared mapping (`PROCMAP_QUERY`, Linux 6.11).
///
/// # Errors
/// ENOTTY: an older kernel.
pub fn shares_any(proc: crate::fs::Fd) -> Result<bool> {
    /// `_IOWR('f', 17, struct procmap_query)`.
    const PROCMAP_QUERY: usize = 0xc068_6611;
    /// `PROCMAP_QUERY_VMA_SHARED | PROCMAP_QUERY_COVERING_OR_NEXT_VMA`.
    const SHARED_FROM: u64 = 0x8 | 0x10;
    /// `struct procmap_query`: size, flags, address; the kernel fills in the rest.
    type Query = [u64; 13];
    let mut query: Query = [0; 13];
    let [size, flags, ..] = &mut query;
    (*size, *flags) = (size_of::<Query>() as u64, SHARED_FROM);
    let maps = crate::fs::open_at(proc, c"maps", crate::abi::O_RDONLY, 0)?;
    // SAFETY: the request works on a structure of that size.
    match unsafe { crate::fs::ioctl(maps.fd(), PROCMAP_QUERY, &mut query) } {
        Ok(_) => Ok(true),
        Err(crate::Errno::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}
