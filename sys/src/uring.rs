//! io_uring(7): instances, their memory, and the few calls that ask about them or bring them where others were.
//!
//! Must never submit what the program has written: the kernel would do it for whoever submits it.

use core::sync::atomic::AtomicU32;

use crate::abi::mm::{MADV_POPULATE_READ, MAP_SHARED, PROT_READ, PROT_WRITE};
use crate::abi::uring::{
    ENTER_GETEVENTS, REGISTER_EVENTFD, REGISTER_PBUF_RING, REGISTER_PBUF_STATUS, REGISTER_RESTRICTIONS,
};
use crate::fs::Fd;
use crate::{Errno, Result, Sysno, call};

/// Bytes of `struct io_uring_params`.
pub const PARAMS: usize = 120;

/// io_uring_setup(2) with the bytes of a `struct io_uring_params`, which begins with the number of entries.
///
/// # Errors
/// The call's.
pub fn setup(entries: u32, params: &mut [u8; PARAMS]) -> Result<Fd> {
    // SAFETY: the kernel reads the structure and fills it.
    unsafe { call(Sysno::io_uring_setup, [entries as usize, params.as_mut_ptr() as usize]) }.map(|fd| fd as Fd)
}

/// io_uring_enter(2) that submits nothing and waits for nothing: completions that are due come into the ring. `argument` is read with
/// [`ENTER_EXT_ARG`].
///
/// # Errors
/// The call's.
pub fn look(fd: Fd, flags: usize, argument: &[u64]) -> Result<()> {
    let (at, len) = (argument.as_ptr() as usize, size_of_val(argument));
    // SAFETY: nothing is submitted, and the kernel only reads the argument.
    unsafe { call(Sysno::io_uring_enter, [fd as usize, 0, 0, flags, at, len]) }.map(drop)
}

/// io_uring_enter(2): submits some of what is in the rings, and returns how much of it.
///
/// # Errors
/// The call's.
///
/// # Safety
/// What is submitted changes no memory that Rust relies on.
pub unsafe fn submit(fd: Fd, count: u32) -> Result<usize> {
    // SAFETY: the caller vouches for the submissions.
    unsafe { call(Sysno::io_uring_enter, [fd as usize, count as usize, 0, ENTER_GETEVENTS, 0, 0]) }
}

/// What can be registered as an array: `struct iovec`, or numbers of descriptors (-1: none).
#[derive(Clone, Copy, Debug)]
pub enum Array {
    /// `IORING_REGISTER_BUFFERS`.
    Buffers = 0,
    /// `IORING_REGISTER_FILES`.
    Files = 2,
}

/// io_uring_register(2) of an array.
///
/// # Errors
/// The call's.
///
/// # Safety
/// What is submitted later may have the kernel write into the buffers: they are no memory that Rust relies on.
pub unsafe fn register(fd: Fd, what: Array, array: &[u8]) -> Result<()> {
    // Elements of 16 and 4 bytes.
    let count = array.len() >> (4 - what as u32);
    // SAFETY: the kernel reads the array; for what it does with the buffers the caller vouches.
    unsafe { call(Sysno::io_uring_register, [fd as usize, what as usize, array.as_ptr() as usize, count]) }.map(drop)
}

/// Registers nothing, and so tells by its error what may be registered: EBADFD where restrictions may not, any more; EINVAL where the
/// instance is not enabled yet; EACCES where it is restricted; EEXIST where another thread alone may.
#[must_use]
pub fn probe(fd: Fd) -> Errno {
    let none = [fd as usize, REGISTER_RESTRICTIONS, 0, 0];
    // SAFETY: no memory is touched.
    unsafe { call(Sysno::io_uring_register, none) }.err().unwrap_or(Errno::EBADFD)
}

/// Whether an eventfd is registered: asks to register one that does not exist, and looks at the error.
///
/// # Errors
/// The call's.
pub fn has_eventfd(fd: Fd) -> Result<bool> {
    let none = -1i32;
    // SAFETY: the kernel reads a number.
    match unsafe { call(Sysno::io_uring_register, [fd as usize, REGISTER_EVENTFD, (&raw const none) as usize, 1]) } {
        Err(Errno::EBUSY) => Ok(true),
        Err(Errno::EBADF) => Ok(false),
        Err(e) => Err(e),
        Ok(_) => Err(Errno::EIO),
    }
}

/// Whether there is a group of provided buffers of this id.
///
/// # Errors
/// The call's.
pub fn has_buffers(fd: Fd, group: u16) -> Result<bool> {
    // struct io_uring_buf_status; struct io_uring_buf_reg, with an address of the kernel's own.
    let mut status = [0u32; 10];
    status[0] = group.into();
    let ring = [0xffff_8000_0000_0000, 1 | u64::from(group) << 32, 0, 0, 0u64];
    // SAFETY: the kernel reads the structure and fills it.
    let told =
        unsafe { call(Sysno::io_uring_register, [fd as usize, REGISTER_PBUF_STATUS, status.as_mut_ptr() as usize, 1]) };
    match told {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        // A group of another kind; or a kernel before Linux 6.8, which says so when one more is tried that cannot be.
        Err(Errno::EINVAL) => {
            let again = [fd as usize, REGISTER_PBUF_RING, ring.as_ptr() as usize, 1];
            // SAFETY: the kernel reads the structure, and takes no address of its own for a ring.
            match unsafe { call(Sysno::io_uring_register, again) } {
                Err(Errno::EFAULT) => Ok(false),
                Err(Errno::EEXIST) | Ok(_) => Ok(true),
                Err(e) => Err(e),
            }
        }
        Err(e) => Err(e),
    }
}

/// Words in a page.
const WORDS: usize = 1024;

/// Memory of an instance, shared with the kernel, and perhaps with a program. It stays mapped.
#[derive(Debug)]
pub struct Memory {
    at: usize,
    len: usize,
}

impl Memory {
    /// Maps a part of it.
    ///
    /// # Errors
    /// The call's: EINVAL or EFAULT where it has less.
    #[inline(always)] // Its constants are shorter there.
    pub fn map(fd: Fd, offset: u64, len: usize) -> Result<Self> {
        // SAFETY: a new mapping at a free place.
        let at = unsafe { crate::memory::map(0, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset) }?;
        // Since Linux 6.14 what is too long is mapped all the same, and a fault there. Before, the kernel does not do this to such memory.
        // SAFETY: reads nothing but the mapping.
        match unsafe { crate::memory::advise(at, len, MADV_POPULATE_READ) } {
            Err(Errno::EFAULT) => Err(Errno::EFAULT),
            _ => Ok(Self { at, len }),
        }
    }

    /// Its words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: mapped, this long, page-aligned; others change it, and atomics may be changed.
        unsafe { core::slice::from_raw_parts(self.at as *const AtomicU32, self.len / 4) }
    }

    /// The word at an offset in its first page, in bytes.
    #[must_use]
    pub fn word(&self, at: u32) -> &AtomicU32 {
        // SAFETY: as above; a page is there at least, as nothing shorter is mapped.
        let page = unsafe { &*(self.at as *const [AtomicU32; WORDS]) };
        #[allow(clippy::indexing_slicing, reason = "below the length")]
        &page[at as usize / 4 % WORDS]
    }

    /// Writes to it, from its beginning.
    ///
    /// # Safety
    /// Nobody else writes to it meanwhile: the kernel has no request.
    pub unsafe fn fill(&self, bytes: &[u8]) {
        // SAFETY: mapped, and as long; the caller vouches for the rest.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at as *mut u8, self.len.min(bytes.len())) };
    }

    /// Gives it up.
    pub fn unmap(self) {
        // SAFETY: nothing refers to it but this value.
        let _ = unsafe { crate::memory::unmap(self.at, self.len) };
    }
}
