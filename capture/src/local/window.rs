//! The saver's own memory: one mapping, made for a save and gone after it, that no image contains.
//!
//! ```text
//! ┌───────┬────────────────┬──────┬───────┬─────────┬──────┬──────┬─────────┐
//! │ slots │ leader's stack │ left │ notes │ strings │ vmas │ runs │ scratch │
//! └───────┴────────────────┴──────┴───────┴─────────┴──────┴──────┴─────────┘
//! ```
//!
//! It is reserved large and touched little. Sizes are shares of the whole, so that it also works where only a
//! few megabytes can be had.

use core::ops::Range;
use core::sync::atomic::{AtomicI32, AtomicU32};

use image_format::record::thread::Thread;
use state::Error;
use sys::Errno;
use sys::abi::mm::{MADV_DONTDUMP, MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE};
use sys::abi::signal::{Siginfo, Ucontext};
use sys::arch::Context;

use crate::session::Memory;

/// Sizes that are tried, in bytes: all address space that a large save needs, or what a limit leaves.
const SIZES: [usize; 5] = [1 << 30, 256 << 20, 64 << 20, 24 << 20, 8 << 20];

/// The leader's stack, bytes.
const STACK: usize = 256 << 10;

/// Bytes of the list of sockets that are left in some way, see [`Window::left`].
const LEFT: usize = 64 << 10;

/// Pending signals that are kept for each thread, and for the process.
pub const PENDING_MAX: usize = 64;

/// What others may look at while a thread runs.
#[derive(Debug)]
pub struct Signs {
    /// 0: not stopped yet; 1: stands still; 2: failed, see [`Kept::error`].
    pub state: AtomicU32,
    /// Its id; 0 when it ended before it stopped.
    pub tid: AtomicI32,
}

/// What one thread leaves here while it stands still: its own until its state says so, and the leader's from then on.
pub struct Kept {
    /// The round that it was stopped in.
    pub round: u32,
    /// Its record.
    pub record: Thread,
    /// The frame that the signal interrupted; null for a call.
    pub interrupted: *const Ucontext,
    /// What the thread blocks, while it is stepped out of the vdso.
    pub mask: u64,
    /// How many signals were taken off its queue.
    pub pending_len: usize,
    /// Those signals.
    pub pending: [Siginfo; PENDING_MAX],
    /// Why it failed.
    pub error: Option<Error>,
}

/// A thread's place. Nobody has a reference to all of it: the thread runs on its stack.
#[repr(C)]
pub struct Slot {
    /// What others may look at.
    pub signs: Signs,
    /// What it leaves.
    pub kept: Kept,
    /// Its jmp context.
    pub context: Context,
    /// Where it runs meanwhile.
    pub stack: [u8; 24 << 10],
}

/// The saver's memory.
#[derive(Debug)]
pub struct Window {
    start: usize,
    len: usize,
}

impl Window {
    /// Maps the largest size that can be had.
    ///
    /// # Errors
    /// Not even the smallest.
    pub fn map() -> sys::Result<Self> {
        let mut last = Errno::ENOMEM;
        for len in SIZES {
            let how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
            // SAFETY: a new mapping at a free place.
            match unsafe { sys::memory::map(0, len, PROT_NONE, how, -1, 0) } {
                Ok(start) => {
                    // Made without access, so that mlockall(MCL_FUTURE) finds nothing to fill.
                    sys::memory::unlock(start, len);
                    // SAFETY: the mapping just made.
                    unsafe { sys::memory::protect(start, len, PROT_READ | PROT_WRITE) }?;
                    // The kernel joins neighbours that are alike: with this flag it is unlike the program's memory.
                    // SAFETY: takes no contents away.
                    let _ = unsafe { sys::memory::advise(start, len, MADV_DONTDUMP) };
                    return Ok(Self { start, len });
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Its addresses.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.start as u64..(self.start + self.len) as u64
    }

    fn share(&self, eighths: usize) -> usize {
        (self.len / 8 * eighths) & !4095
    }

    /// How many threads fit.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.share(1) / size_of::<Slot>()
    }

    /// The slot of a thread, below [`Window::slots`].
    #[must_use]
    pub fn slot(&self, index: usize) -> *mut Slot {
        (self.start + index.min(self.slots() - 1) * size_of::<Slot>()) as *mut Slot
    }

    /// Where the leader's stack begins (it grows down from here).
    #[must_use]
    pub fn leader_stack(&self) -> usize {
        self.start + self.share(1) + STACK
    }

    /// Room for what is done to sockets at the process's end: a descriptor and a number for each, all zero.
    ///
    /// # Safety
    /// What it returned before is not used any more.
    pub unsafe fn left(&self) -> &'static mut [[u32; 2]] {
        // SAFETY: the part of this mapping that nothing else uses, zeroed by the kernel, and aligned as the stack's end is.
        unsafe { core::slice::from_raw_parts_mut(self.leader_stack() as *mut [u32; 2], LEFT / size_of::<[u32; 2]>()) }
    }

    /// The rest, cut up for the walk.
    ///
    /// # Safety
    /// Called once: the pieces are handed out as exclusive references.
    pub unsafe fn memory(&self) -> Memory<'static> {
        let start = self.leader_stack() + LEFT;
        // SAFETY: the part of this mapping that nothing else uses, zeroed by the kernel.
        Memory::of(unsafe { core::slice::from_raw_parts_mut(start as *mut u8, self.start + self.len - start) })
    }

    /// Unmaps it.
    ///
    /// # Safety
    /// Nobody runs on it or refers to it any more.
    pub unsafe fn unmap(self) {
        // SAFETY: the caller vouches.
        let _ = unsafe { sys::memory::unmap(self.start, self.len) };
    }
}

impl Slot {
    /// The end of its stack.
    #[must_use]
    pub fn stack_top(slot: *mut Self) -> usize {
        // SAFETY: only an address is computed, inside the slot.
        unsafe { (&raw mut (*slot).stack).add(1) as usize & !15 }
    }
}
