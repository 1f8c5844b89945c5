//! Descriptors that are no files: eventfd, timerfd, signalfd, epoll, inotify.

use core::cmp::Ordering;
use core::ffi::CStr;

use super::{Fd, Owned, arg};
use crate::socket::request;
use crate::{Errno, Result, Sysno, abi, call};

/// A call that makes a descriptor.
///
/// # Safety
/// As [`request`].
#[inline(always)]
unsafe fn make(number: Sysno, [a, b, c, d]: [usize; 4]) -> Result<Owned> {
    // SAFETY: the caller vouches.
    unsafe { request(number, [a, b, c, d, 0]) }.map(Owned::own)
}

/// eventfd2(2), with nothing in it.
///
/// ```compile_fail
/// #![forbid(unsafe_code)]
/// // There is no function that makes any call.
/// let words = vec![0u64; 512];
/// let _ = sys::fs::make(sys::Sysno::munmap, [words.as_ptr() as usize, 4096, 0, 0]);
/// ```
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn eventfd(flags: usize) -> Result<Owned> {
    // SAFETY: no memory is touched.
    unsafe { make(Sysno::eventfd2, [0, flags, 0, 0]) }
}

/// timerfd_create(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn timerfd(clock: u32) -> Result<Owned> {
    // SAFETY: no memory is touched.
    unsafe { make(Sysno::timerfd_create, [clock as usize, 0, 0, 0]) }
}

/// signalfd4(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn signalfd(mask: u64) -> Result<Owned> {
    // SAFETY: the kernel only reads the mask.
    unsafe { make(Sysno::signalfd4, [usize::MAX, (&raw const mask) as usize, size_of_val(&mask), 0]) }
}

/// epoll_create1(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn epoll() -> Result<Owned> {
    // SAFETY: no memory is touched.
    unsafe { make(Sysno::epoll_create1, [0; 4]) }
}

/// inotify_init1(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn inotify(flags: u32) -> Result<Owned> {
    // SAFETY: no memory is touched.
    unsafe { make(Sysno::inotify_init1, [flags as usize, 0, 0, 0]) }
}

/// inotify_add_watch(2); the watch's number.
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn watch(inotify: Fd, path: &CStr, mask: u32) -> Result<i32> {
    // SAFETY: the kernel only reads the path.
    unsafe { request(Sysno::inotify_add_watch, [arg(inotify), path.as_ptr() as usize, mask as usize, 0, 0]) }
}

/// inotify_rm_watch(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn unwatch(inotify: Fd, watch: i32) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { request(Sysno::inotify_rm_watch, [arg(inotify), watch as usize, 0, 0, 0]) }.map(drop)
}

/// Most bytes of a file handle (`MAX_HANDLE_SZ`).
const HANDLE_MAX: usize = 128;

/// `struct file_handle`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FileHandle {
    /// How many bytes it has.
    pub len: u32,
    /// Its kind.
    pub kind: u32,
    /// The bytes.
    pub bytes: [u8; HANDLE_MAX],
}

impl Default for FileHandle {
    fn default() -> Self {
        Self { len: 0, kind: 0, bytes: [0; HANDLE_MAX] }
    }
}

/// open_by_handle_at(2).
///
/// # Errors
/// The call's.
pub fn open_by_handle(mount: Fd, handle: &FileHandle, flags: u32) -> Result<Owned> {
    if handle.len as usize > HANDLE_MAX {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the kernel only reads the handle, as many bytes as it says.
    unsafe { make(Sysno::open_by_handle_at, [arg(mount), (&raw const *handle) as usize, flags as usize, 0]) }
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
