//! io_uring(7) instances: made again with the same parameters, registered buffers and files, and rings that hold what they held.
//!
//! The kernel has counters of its own in them, which a program may know, too (liburing has copies): a new instance's are brought to the old
//! ones by as many requests that do nothing. Each request of the program has completed once then, so both counters are one. What cannot
//! be read back is refused: requests in flight, eventfds, restrictions, credentials.

mod look;
mod registered;
mod told;

use core::sync::atomic::Ordering;

use image_format::record::io_uring::{IoUring, word};
use image_format::record::process::FD_MASK;
use image_format::{Checked, ExitCode};
use sys::Errno;
use sys::abi::uring as abi;
use sys::fs::Fd;
use sys::uring::{self, Array, Memory};

use zerocopy::IntoBytes;

use crate::restart::{Error, Result};

pub use look::save;

/// Whether it can be made here.
///
/// # Errors
/// This kernel or user has none, or others.
pub fn check(ring: &IoUring) -> Result<()> {
    let made = set_up(ring).map_err(|e| no_ring(ring.id.get(), e))?;
    // SAFETY: it was made just now.
    unsafe { sys::fs::close(made) };
    Ok(())
}

/// Makes it, with what its rings held, as `base` or a greater number. What is opened and mapped for that goes with the restart's own.
///
/// # Errors
/// As for [`check`].
#[inline(never)] // A smaller frame has shorter addresses.
pub fn restore(image: &Checked<'_>, id: u32, base: Fd) -> Result<Fd> {
    let ring = image.each::<IoUring>().with(id).next();
    ring.ok_or(Errno::ENOENT).and_then(|ring| make(image, ring, base)).map_err(|e| no_ring(id, e))
}

fn no_ring(id: u32, e: Errno) -> Error {
    let what = "descriptor # (io_uring): cannot be had (!): use the save's kernel";
    Error::about(ExitCode::Kernel, what, id & FD_MASK, b"", e)
}

/// An instance with the same parameters, whose rings are laid out in the same way.
#[inline(never)] // As above.
fn set_up(ring: &IoUring) -> sys::Result<Fd> {
    let mut now = ring.params;
    let made = uring::setup(now.sq_entries.get(), zerocopy::transmute_mut!(&mut now))?;
    // Newer kernels have more features.
    now.features = (now.features.get() & ring.params.features.get()).into();
    if now.as_bytes() == ring.params.as_bytes() { Ok(made) } else { Err(Errno::EOPNOTSUPP) }
}

fn make(image: &Checked<'_>, ring: &IoUring, base: Fd) -> sys::Result<Fd> {
    let made = set_up(ring)?;
    let params = &ring.params;
    let contents = image.contents(ring.rings);
    let memory = Memory::map(made, abi::OFF_SQ_RING, contents.len())?;
    let (goal, kept) = (word(contents, params.sq_head), word(contents, params.cq_head));
    // The kernel has just said that they lie there.
    memory.word(params.sq_tail.get()).store(goal, Ordering::Release);
    while memory.word(params.sq_head.get()).load(Ordering::Acquire) != goal {
        // SAFETY: all submissions are zero as yet, which is a request that does nothing.
        if unsafe { uring::submit(made, params.sq_entries.get()) }? == 0 {
            return Err(Errno::EIO);
        }
        // What the program has not taken is never taken: the kernel keeps in mind how much is free.
        let done = memory.word(params.cq_tail.get()).load(Ordering::Acquire);
        let taken = if goal.wrapping_sub(done) < goal.wrapping_sub(kept) { kept } else { done };
        memory.word(params.cq_head.get()).store(taken, Ordering::Release);
    }
    let submissions = image.contents(ring.sqes);
    let sqes = Memory::map(made, abi::OFF_SQES, submissions.len())?;
    // SAFETY: all requests have completed.
    unsafe {
        memory.fill(contents);
        sqes.fill(submissions);
    }
    sys::fs::dup_above(made, base)
}

/// Registers what was registered, when memory and descriptors are in place.
///
/// # Errors
/// The kernel's.
#[inline(never)] // As above.
pub fn finish(image: &Checked<'_>, ring: &IoUring, open: Fd) -> sys::Result<()> {
    for (what, array) in [(Array::Buffers, ring.buffers), (Array::Files, ring.files)] {
        let array = image.contents(array);
        if !array.is_empty() {
            // SAFETY: the buffers are the program's memory, or what lies there until that comes; nothing is submitted before the program does.
            unsafe { uring::register(open, what, array) }?;
        }
    }
    Ok(())
}
