//! Signals: actions, masks, what is pending, sending.

use crate::abi::Timespec;
use crate::abi::signal::{Altstack, SIG_IGN, SIG_SETMASK, Sigaction, Siginfo};
use crate::{Result, Sysno, call};

/// Bytes of the kernel's signal set.
const SET: usize = 8;

/// The bit of a signal in a mask.
#[must_use]
pub const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// All signals.
pub const ALL: u64 = u64::MAX;

/// rt_sigaction(2) that asks.
///
/// # Errors
/// The call's.
pub fn action(signal: i32) -> Result<Sigaction> {
    let mut old = Sigaction::default();
    // SAFETY: the kernel fills `old`.
    unsafe { call(Sysno::rt_sigaction, [signal as usize, 0, (&raw mut old) as usize, SET]) }?;
    Ok(old)
}

/// rt_sigaction(2) that sets; returns the old one.
///
/// # Errors
/// The call's.
///
/// # Safety
/// The handler, if any, is a function that may run at any instant.
pub unsafe fn set_action(signal: i32, new: &Sigaction) -> Result<Sigaction> {
    let mut old = Sigaction::default();
    let (new, to) = ((&raw const *new) as usize, (&raw mut old) as usize);
    // SAFETY: the kernel reads `new` and fills `old`; the caller vouches for the handler.
    unsafe { call(Sysno::rt_sigaction, [signal as usize, new, to, SET]) }?;
    Ok(old)
}

/// Gives a signal its default action.
///
/// # Errors
/// EINVAL: it has no other one.
pub fn set_default(signal: i32) -> Result<()> {
    // SAFETY: the default action is no code.
    unsafe { set_action(signal, &Sigaction::default()) }.map(drop)
}

/// Ignores a signal.
///
/// # Errors
/// EINVAL: it cannot be ignored.
pub fn ignore(signal: i32) -> Result<()> {
    let ignore = Sigaction { handler: SIG_IGN, ..Sigaction::default() };
    // SAFETY: to ignore is no code.
    unsafe { set_action(signal, &ignore) }.map(drop)
}

/// rt_sigprocmask(2) of this thread; returns the old mask.
///
/// # Errors
/// The call's.
pub fn set_mask(mask: u64) -> Result<u64> {
    change_mask(SIG_SETMASK, mask)
}

/// rt_sigprocmask(2) with `SIG_BLOCK`, `SIG_UNBLOCK` or `SIG_SETMASK`.
///
/// # Errors
/// The call's.
pub fn change_mask(how: usize, mask: u64) -> Result<u64> {
    let mut old = 0u64;
    let (new, to) = ((&raw const mask) as usize, (&raw mut old) as usize);
    // SAFETY: the kernel reads `mask` and fills `old`.
    unsafe { call(Sysno::rt_sigprocmask, [how, new, to, SET]) }?;
    Ok(old)
}

/// sigaltstack(2) that sets.
///
/// # Errors
/// The call's.
///
/// # Safety
/// Nothing else uses the region.
pub unsafe fn set_altstack(new: &Altstack) -> Result<()> {
    // SAFETY: the kernel reads `new`; the caller vouches for the region.
    unsafe { call(Sysno::sigaltstack, [(&raw const *new) as usize, 0]) }.map(drop)
}

/// Takes a signal of `set`, which is blocked, off its queue once one is there.
///
/// # Errors
/// EINTR.
pub fn await_pending(set: u64) -> Result<()> {
    // SAFETY: the kernel reads the set.
    unsafe { call(Sysno::rt_sigtimedwait, [(&raw const set) as usize, 0, 0, SET]) }.map(drop)
}

/// Takes one pending signal of `set` off its queue, the thread's own queue first; EAGAIN when there is none.
///
/// # Errors
/// The call's.
pub fn take_pending(set: u64) -> Result<Siginfo> {
    let mut info = Siginfo::zeroed();
    let now = Timespec::default();
    let args = [(&raw const set) as usize, (&raw mut info) as usize, (&raw const now) as usize, SET];
    // SAFETY: the kernel reads set and time and fills `info`.
    unsafe { call(Sysno::rt_sigtimedwait, args) }?;
    Ok(info)
}

/// rt_sigqueueinfo(2): to the process. Any `si_code` only to oneself, from the first thread.
///
/// # Errors
/// The call's.
pub fn queue(pid: i32, signal: i32, info: &Siginfo) -> Result<()> {
    let at = (&raw const *info) as usize;
    // SAFETY: the kernel only reads `info`.
    unsafe { call(Sysno::rt_sigqueueinfo, [pid as usize, signal as usize, at]) }.map(drop)
}

/// rt_tgsigqueueinfo(2): to one thread.
///
/// # Errors
/// The call's.
pub fn queue_thread(pid: i32, tid: i32, signal: i32, info: &Siginfo) -> Result<()> {
    let at = (&raw const *info) as usize;
    // SAFETY: the kernel only reads `info`.
    unsafe { call(Sysno::rt_tgsigqueueinfo, [pid as usize, tid as usize, signal as usize, at]) }.map(drop)
}

/// The number of a signal named `USR1`, `SIGUSR1`, `RTMIN+2` or `10`.
#[must_use]
pub fn number(name: &[u8]) -> Option<i32> {
    const NAMES: [&[u8]; 31] = [
        b"HUP", b"INT", b"QUIT", b"ILL", b"TRAP", b"ABRT", b"BUS", b"FPE", b"KILL", b"USR1", b"SEGV", b"USR2", b"PIPE",
        b"ALRM", b"TERM", b"STKFLT", b"CHLD", b"CONT", b"STOP", b"TSTP", b"TTIN", b"TTOU", b"URG", b"XCPU", b"XFSZ",
        b"VTALRM", b"PROF", b"WINCH", b"IO", b"PWR", b"SYS",
    ];
    let name = name.strip_prefix(b"SIG").unwrap_or(name);
    // The kernel's first real-time signal is 32; libcs keep 32 and 33 (and musl 34) for themselves.
    let numbered = crate::text::decimal(name).or_else(|| {
        let rest = name.strip_prefix(b"RTMIN")?;
        if rest.is_empty() { Some(34) } else { Some(34 + crate::text::decimal(rest.strip_prefix(b"+")?)?) }
    });
    let n = match numbered {
        Some(n) => i32::try_from(n).ok()?,
        None => NAMES.iter().position(|n| *n == name)? as i32 + 1,
    };
    (1..=64).contains(&n).then_some(n)
}
