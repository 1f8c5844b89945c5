//! Pipes: made, looked at, copied without taking anything out.

use super::{Fd, Owned, arg, ioctl};
use crate::{Result, Sysno, abi, call};

/// struct pollfd.
#[repr(C)]
struct Polled {
    fd: Fd,
    /// What is waited for.
    events: u16,
    /// What happened.
    seen: u16,
}

/// pipe2(2), close-on-exec: the end for reading, the end for writing.
///
/// # Errors
/// The call's.
pub fn pipe(flags: u32) -> Result<[Owned; 2]> {
    let mut ends = [-1; 2];
    let flags = (flags | abi::O_CLOEXEC) as usize;
    // SAFETY: the kernel writes two numbers.
    unsafe { call(Sysno::pipe2, [ends.as_mut_ptr() as usize, flags, 0, 0, 0, 0]) }?;
    Ok(ends.map(Owned::own))
}

/// tee(2) without waiting: what one pipe holds is in another, too; returns how many bytes.
///
/// # Errors
/// The call's.
pub fn tee(from: Fd, to: Fd, len: usize) -> Result<usize> {
    // SAFETY: no memory is touched.
    unsafe { call(Sysno::tee, [arg(from), arg(to), len, abi::SPLICE_F_NONBLOCK, 0, 0]) }
}

/// How many bytes a pipe holds (`FIONREAD`).
///
/// # Errors
/// The call's.
pub fn waiting(fd: Fd) -> Result<usize> {
    let mut bytes = 0i32;
    // SAFETY: the request fills a number of this size.
    unsafe { ioctl(fd, abi::FIONREAD, &mut bytes) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Whether nobody has the other end.
///
/// # Errors
/// The call's.
pub fn hung_up(fd: Fd) -> Result<bool> {
    Ok(ready(fd, 0)? & (abi::POLLHUP | abi::POLLERR) != 0)
}

/// Waits until one of these has something to read, an error or a hang-up; at most `limit`. Tells for each whether it is so; all false when the
/// time is over (ppoll(2)).
///
/// # Errors
/// The call's; EINTR.
pub fn wait_for_any<const N: usize>(fds: [Fd; N], limit: Option<abi::Timespec>) -> Result<[bool; N]> {
    let mut entries = fds.map(|fd| Polled { fd, events: abi::POLLIN, seen: 0 });
    let limit = limit.as_ref().map_or(0, |limit| (&raw const *limit) as usize);
    // SAFETY: the kernel reads and writes as many entries of 8 bytes, and reads the time.
    unsafe { call(Sysno::ppoll, [entries.as_mut_ptr() as usize, N, limit, 0, 0, 0]) }?;
    Ok(entries.map(|entry| entry.seen != 0))
}

/// What a descriptor is ready for among `events`, errors and hang-ups, without waiting.
///
/// # Errors
/// The call's.
pub fn ready(fd: Fd, events: u16) -> Result<u16> {
    ready_within(fd, events, 0)
}

/// As [`ready`], once it is, or after so many milliseconds, below a whole second's (ppoll(2)).
///
/// # Errors
/// The call's.
pub fn ready_within(fd: Fd, events: u16, milliseconds: i64) -> Result<u16> {
    let mut entry = Polled { fd, events, seen: 0 };
    let within = abi::Timespec { sec: 0, nsec: milliseconds * 1_000_000 };
    let (entries, limit) = ((&raw mut entry) as usize, (&raw const within) as usize);
    // SAFETY: the kernel reads and writes one entry of 8 bytes, and reads the time.
    unsafe { call(Sysno::ppoll, [entries, 1, limit, 0, 0, 0]) }?;
    Ok(entry.seen)
}
