//! Descriptors that are no files: eventfd, timerfd, signalfd, epoll.

use super::{Fd, arg, fd_of};
use crate::{Result, Sysno, abi, call};

/// A call that makes a descriptor: eventfd2(2), timerfd_create(2), signalfd4(2), epoll_create1(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn make(number: Sysno, [a, b, c, d]: [usize; 4]) -> Result<Fd> {
    in_registers(a, b, c, d, number)
}

/// The call itself, which exists once; an array would be built in memory for each.
#[inline(never)]
fn in_registers(a: usize, b: usize, c: usize, d: usize, number: Sysno) -> Result<Fd> {
    // SAFETY: of these calls one alone takes an address, of a mask that it only reads; it copes with bad ones.
    unsafe { call(number, [a, b, c, d]) }.map(fd_of)
}

/// epoll_ctl(2).
///
/// # Errors
/// The call's.
pub fn epoll_control(epoll: Fd, operation: usize, fd: Fd, events: u32, data: u64) -> Result<()> {
    let event = crate::arch::epoll_event(events, data);
    // SAFETY: the kernel only reads the event.
    unsafe { call(Sysno::epoll_ctl, [arg(epoll), operation, arg(fd), event.as_ptr() as usize, 0, 0]) }.map(drop)
}

/// Whether a descriptor is open on what an epoll set watches under `number`, as the `nth` of that number, each with the process
/// whose it is. `None` when the kernel does not tell.
#[must_use]
pub fn is_watched(epoll: (i32, Fd), number: u32, nth: u32, fd: (i32, Fd)) -> Option<bool> {
    // struct kcmp_epoll_slot
    let slot = [epoll.1 as u32, number, nth];
    let (pid, fd) = (fd.0 as usize, fd.1);
    // SAFETY: compares kernel pointers; the kernel only reads the slot.
    unsafe { call(Sysno::kcmp, [pid, epoll.0 as usize, abi::KCMP_EPOLL_TFD, arg(fd), slot.as_ptr() as usize, 0]) }
        .ok()
        .map(|order| order == 0)
}
