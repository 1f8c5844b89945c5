//! Memory for one save: reserved large, touched little, zero.

use state::{Error, Result};
use sys::abi::mm::{MADV_POPULATE_WRITE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE};

use crate::session::Memory;

/// Sizes that are tried, bytes.
const SIZES: [usize; 4] = [4 << 30, 1 << 30, 256 << 20, 64 << 20];

/// A mapping of our own.
#[derive(Debug)]
pub struct Arena {
    start: usize,
    len: usize,
}

impl Arena {
    /// Maps the largest size that can be had.
    ///
    /// # Errors
    /// Not even the smallest.
    pub fn map() -> Result<Self> {
        let mut last = sys::Errno::ENOMEM;
        for len in SIZES {
            let how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
            // SAFETY: a new mapping at a free place.
            match unsafe { sys::memory::map(0, len, PROT_READ | PROT_WRITE, how, -1, 0) } {
                Ok(start) => return Ok(Self { start, len }),
                Err(e) => last = e,
            }
        }
        Err(Error::failed(format_args!("the saver's memory"), "cannot be mapped", last))
    }

    /// Has pages ready where the walk writes while the process stands still, so that this does not wait for them: not more, as
    /// what a small process needs in all takes less time than they would.
    pub fn warm(&mut self, threads: usize) {
        let memory = self.memory();
        let parts =
            [(memory.prefix, 16 << 10, 14 << 10), (memory.scratch, 12 << 10, 1 << 10), (memory.strings, 4 << 10, 0)];
        for (part, all, each) in parts {
            let (start, len) = (part.as_ptr() as usize, part.len().min(all + each * threads.min(256)));
            // SAFETY: this value's own mapping; pages that are not there yet come as zeros.
            let _ = unsafe { sys::memory::advise(start, len, MADV_POPULATE_WRITE) };
        }
    }

    /// The memory, cut up for the walk.
    pub fn memory(&mut self) -> Memory<'_> {
        // SAFETY: this value's own mapping, borrowed as long as the pieces live.
        Memory::of(unsafe { core::slice::from_raw_parts_mut(self.start as *mut u8, self.len) })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping; nothing borrows from it any more.
        let _ = unsafe { sys::memory::unmap(self.start, self.len) };
    }
}
