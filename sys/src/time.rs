//! Clocks and interval timers.

use crate::abi::{Itimerval, Timespec};
use crate::{Result, Sysno, call};

/// clock_gettime(2) by system call: the vdso may be on the move.
#[must_use]
pub fn now(clock: usize) -> Timespec {
    let mut time = Timespec::default();
    // SAFETY: the kernel fills `time`.
    let _ = unsafe { call(Sysno::clock_gettime, [clock, (&raw mut time) as usize, 0, 0, 0, 0]) };
    time
}

/// A clock's reading in nanoseconds.
#[must_use]
pub fn nanoseconds(clock: usize) -> u64 {
    let t = now(clock);
    (t.sec as u64).saturating_mul(1_000_000_000).saturating_add(t.nsec as u64)
}

/// getitimer(2).
///
/// # Errors
/// The call's.
pub fn itimer(which: u32) -> Result<Itimerval> {
    let mut value = Itimerval::default();
    // SAFETY: the kernel fills `value`.
    unsafe { call(Sysno::getitimer, [which as usize, (&raw mut value) as usize, 0, 0, 0, 0]) }?;
    Ok(value)
}

/// setitimer(2).
///
/// # Errors
/// The call's.
pub fn set_itimer(which: u32, value: &Itimerval) -> Result<()> {
    // SAFETY: the kernel only reads `value`.
    unsafe { call(Sysno::setitimer, [which as usize, (&raw const *value) as usize, 0, 0, 0, 0]) }.map(drop)
}
