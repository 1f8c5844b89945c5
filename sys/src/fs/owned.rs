//! Descriptors made, owned and closed: those that are ours must not outlive their use, as the program would find them.

use super::{Fd, arg, fcntl, fd_of};
use crate::{Result, Sysno, abi, call};

/// A descriptor that is closed when it goes out of scope.
#[derive(Debug)]
pub struct Owned(Fd);

impl Owned {
    /// Takes the responsibility for a descriptor.
    ///
    /// ```compile_fail
    /// #![forbid(unsafe_code)]
    /// // Somebody's file.
    /// drop(sys::fs::Owned::new(3));
    /// ```
    ///
    /// # Safety
    /// Nobody else has it: it is open, or no descriptor at all, and this value alone closes it.
    #[must_use]
    pub const unsafe fn new(fd: Fd) -> Self {
        Self(fd)
    }

    /// Of one that a call has just made.
    pub(crate) const fn own(fd: Fd) -> Self {
        Self(fd)
    }

    /// The number.
    #[must_use]
    pub const fn fd(&self) -> Fd {
        self.0
    }

    /// Gives the responsibility away.
    #[must_use]
    pub const fn release(self) -> Fd {
        let fd = self.0;
        core::mem::forget(self);
        fd
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: this value's own.
        unsafe { close(self.0) };
    }
}

/// close(2); its error tells nothing that could be acted upon.
///
/// ```compile_fail
/// #![forbid(unsafe_code)]
/// // Somebody's file.
/// sys::fs::close(3);
/// ```
///
/// # Safety
/// The caller owns the descriptor, if there is one, and nobody uses its number any more.
pub unsafe fn close(fd: Fd) {
    // SAFETY: the caller vouches.
    let _ = unsafe { call(Sysno::close, [arg(fd)]) };
}

/// close_range(2): all from `first` to `last`, both included.
///
/// # Errors
/// The call's.
///
/// # Safety
/// As [`close`], for each of them.
pub unsafe fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the caller vouches.
    unsafe { call(Sysno::close_range, [first as usize, last as usize, 0]) }.map(drop)
}

/// As [`close_range`], by the next exec (`CLOSE_RANGE_CLOEXEC`).
///
/// # Errors
/// The call's.
pub fn close_range_on_exec(first: u32, last: u32) -> Result<()> {
    const CLOEXEC: usize = 4;
    // SAFETY: sets a flag; whoever calls owns the numbers.
    unsafe { call(Sysno::close_range, [first as usize, last as usize, CLOEXEC]) }.map(drop)
}

/// dup3(2), with close-on-exec as told.
///
/// # Errors
/// The call's.
///
/// # Safety
/// As [`close`], for what `to` is now.
pub unsafe fn dup_to(fd: Fd, to: Fd, cloexec: bool) -> Result<()> {
    let flags = if cloexec { abi::O_CLOEXEC as usize } else { 0 };
    // SAFETY: the caller vouches.
    unsafe { call(Sysno::dup3, [arg(fd), arg(to), flags]) }.map(drop)
}

/// A duplicate, close-on-exec, with the lowest free number from `min` on.
///
/// # Errors
/// The call's.
pub fn dup_above(fd: Fd, min: Fd) -> Result<Fd> {
    fcntl(fd, abi::F_DUPFD_CLOEXEC, arg(min)).map(fd_of)
}

/// A duplicate, close-on-exec, with the lowest free number.
///
/// # Errors
/// The call's.
pub fn duplicate(fd: Fd) -> Result<Owned> {
    dup_above(fd, 0).map(Owned::own)
}
