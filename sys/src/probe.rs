//! Finding out by trying what this kernel lets this user do, where a version number would only be a guess.
//!
//! Every call here changes nothing that outlives it, or is to be made in a child process that ends after it. Must never
//! touch a process that is not a child of the caller.

use crate::abi::Timespec;
use crate::fs::Owned;
use crate::{Errno, Result, Sysno, call, ptrace};

/// What a tracer may do with a child of its own.
#[derive(Clone, Copy, Debug)]
pub struct Tracing {
    /// `PTRACE_SEIZE` and `PTRACE_INTERRUPT`.
    pub stop: Result<()>,
    /// `PTRACE_GETSIGMASK`.
    pub mask: Result<()>,
    /// `PTRACE_GET_RSEQ_CONFIGURATION`.
    pub rseq: Result<()>,
    /// Writing to `/proc/PID/mem`.
    pub memory: Result<()>,
}

/// Traces a child for a moment; `memory` writes to its memory meanwhile.
#[must_use]
pub fn trace(pid: i32, memory: impl FnOnce() -> Result<()>) -> Tracing {
    let stopped = || {
        ptrace::seize(pid, 0)?;
        ptrace::interrupt(pid)?;
        match ptrace::wait(pid, true)? {
            Some(ptrace::Event::Stopped(..)) => Ok(()),
            _ => Err(Errno::ESRCH),
        }
    };
    if let Err(e) = stopped() {
        return Tracing { stop: Err(e), mask: Err(e), rseq: Err(e), memory: Err(e) };
    }
    let tracing = Tracing {
        stop: Ok(()),
        mask: ptrace::signal_mask(pid).map(drop),
        rseq: ptrace::rseq(pid).map(drop),
        memory: memory(),
    };
    let _ = ptrace::detach(pid, 0);
    tracing
}

/// Waits for a signal that ends this process: what a child does that is looked at.
pub fn sleep() -> ! {
    loop {
        let day = Timespec { sec: 86400, nsec: 0 };
        // SAFETY: the kernel reads the time.
        let _ = unsafe { call(Sysno::nanosleep, [(&raw const day) as usize, 0, 0, 0, 0, 0]) };
    }
}

/// kcmp(2): whether descriptor 0 of both is one open file.
///
/// # Errors
/// The call's; EBADF without such a descriptor means that the call is there.
pub fn kcmp(a: i32, b: i32) -> Result<()> {
    // SAFETY: compares, touches no memory.
    match unsafe { call(Sysno::kcmp, [a as usize, b as usize, 0, 0, 0, 0]) } {
        Ok(_) | Err(Errno::EBADF) => Ok(()),
        Err(e) => Err(e),
    }
}

/// pidfd_getfd(2) of descriptor 0.
///
/// # Errors
/// The call's; EBADF without such a descriptor means that the call is there.
pub fn pidfd_getfd(pid: i32) -> Result<()> {
    // SAFETY: makes descriptors, touches no memory.
    let pidfd = unsafe { call(Sysno::pidfd_open, [pid as usize, 0, 0, 0, 0, 0]) }?;
    let pidfd = Owned::own(i32::try_from(pidfd).map_err(|_| Errno::EIO)?);
    // SAFETY: as above.
    match unsafe { call(Sysno::pidfd_getfd, [pidfd.fd() as usize, 0, 0, 0, 0, 0]) } {
        Ok(fd) => {
            drop(Owned::own(i32::try_from(fd).map_err(|_| Errno::EIO)?));
            Ok(())
        }
        Err(Errno::EBADF) => Ok(()),
        Err(e) => Err(e),
    }
}

/// `PAGEMAP_SCAN` of one page of this process.
///
/// # Errors
/// The call's; ENOTTY before Linux 6.7.
pub fn pagemap_scan() -> Result<()> {
    const PAGEMAP_SCAN: usize = 0xc060_6610;
    const PAGE_IS_PRESENT: u64 = 8;
    let pagemap = crate::fs::open(c"/proc/self/pagemap", crate::abi::O_RDONLY, 0)?;
    let mut found = [0u64; 3];
    let here = (&raw const found) as u64 & !4095;
    let vec = found.as_mut_ptr() as u64;
    // size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, any of, returned.
    let mut arg = [96, 0, here, here + 4096, 0, vec, 1, 1, 0, 0, PAGE_IS_PRESENT, PAGE_IS_PRESENT];
    let at = arg.as_mut_ptr() as usize;
    // SAFETY: the kernel writes `walk_end` and at most one region.
    unsafe { call(Sysno::ioctl, [pagemap.fd() as usize, PAGEMAP_SCAN, at, 0, 0, 0]) }.map(drop)
}

/// userfaultfd(2) for faults of user mode.
///
/// # Errors
/// The call's.
pub fn userfaultfd() -> Result<()> {
    const UFFD_USER_MODE_ONLY: usize = 1;
    let flags = UFFD_USER_MODE_ONLY | crate::abi::O_CLOEXEC as usize;
    // SAFETY: makes a descriptor, touches no memory.
    let fd = unsafe { call(Sysno::userfaultfd, [flags, 0, 0, 0, 0, 0]) }?;
    drop(Owned::own(i32::try_from(fd).map_err(|_| Errno::EIO)?));
    Ok(())
}

/// `PR_TIMER_CREATE_RESTORE_IDS`, switched on and off.
///
/// # Errors
/// The call's; EINVAL before Linux 6.16.
pub fn timer_ids() -> Result<()> {
    let set = |on: usize| {
        // SAFETY: sets a flag of this process.
        unsafe { crate::process::prctl(crate::abi::PR_TIMER_CREATE_RESTORE_IDS, on, 0, 0) }
    };
    set(1)?;
    set(0).map(drop)
}

/// The end of the heap.
#[must_use]
pub fn brk() -> u64 {
    // SAFETY: with 0 it only asks.
    unsafe { call(Sysno::brk, [0; 6]) }.unwrap_or(0) as u64
}
