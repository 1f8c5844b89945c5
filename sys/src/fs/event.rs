//! Descriptors that are no files: eventfd, timerfd, signalfd, epoll.

use core::cmp::Ordering;

use super::{Fd, arg};
use crate::{Result, Sysno, abi, call};

/// A call that makes a descriptor: eventfd2(2), timerfd_create(2), signalfd4(2), epoll_create1(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn make(number: Sysno, [a, b, c, d]: [usize; 4]) -> Result<Fd> {
    crate::socket::request(number, [a, b, c, d, 0])
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

/// Whether a descriptor's description comes before, is, or comes behind what an epoll set watches under `number`, as the `nth` of that
/// number, each with the process whose it is: in the order of [`super::order_of_descriptions`]. `None` when the kernel does not tell.
#[must_use]
pub fn order_of_watched(epoll: (i32, Fd), number: u32, nth: u32, fd: (i32, Fd)) -> Option<Ordering> {
    // struct kcmp_epoll_slot
    let slot = [epoll.1 as u32, number, nth];
    let (pid, fd) = (fd.0 as usize, fd.1);
    // SAFETY: compares kernel pointers; the kernel only reads the slot.
    let told =
        unsafe { call(Sysno::kcmp, [pid, epoll.0 as usize, abi::KCMP_EPOLL_TFD, arg(fd), slot.as_ptr() as usize, 0]) };
    super::same::order(told.ok()?)
}
