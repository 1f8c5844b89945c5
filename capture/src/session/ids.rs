//! A process's ids, and the places in its memory where they may lie: those that a restart under other ids corrects.
//!
//! Must name only places that the kernel knows, or that a C library's or runtime's layout gives. None is searched for.

use image_format::record::thread::{Thread, ThreadFlags};
use state::{Result, Scratch, Target};

use super::Threads;
use crate::traces::{Place, Search};

/// Entries of all robust lists together that are looked at; the words of further ones are traces.
const ROBUST_MAX: usize = 2048;

/// Places of a thread besides its robust list.
const EACH: usize = 5;

/// The ids and their places.
#[derive(Debug)]
pub struct Ids<'b> {
    pid: u32,
    ids: &'b [u32],
    known: &'b [Place],
}

impl<'b> Ids<'b> {
    /// Of a process that stands still, or of a copy of its memory.
    ///
    /// # Errors
    /// The saver's memory is full.
    pub fn collect(target: &impl Target, threads: &impl Threads, scratch: &mut Scratch<'b>) -> Result<Self> {
        let ids = scratch.take::<u32>(threads.count())?;
        let known = scratch.take::<Place>(threads.count() * EACH + ROBUST_MAX)?;
        let mut places = known.iter_mut();
        let mut add = |start: u64, len: u64| {
            if len != 0
                && let Some(place) = places.next()
            {
                *place = [start, start + len];
            }
        };
        let mut entries = 0..ROBUST_MAX;
        for (i, id) in ids.iter_mut().enumerate() {
            let stopped = threads.get(i);
            let thread = stopped.record;
            *id = thread.tid.get();
            if thread.flags.get() & ThreadFlags::TID_WORD.bits() != 0 {
                add(thread.tid_address.get(), 4);
            }
            if thread.runtime_tid.get() != 0 {
                add(thread.runtime_tid.get(), 4);
            }
            if thread.rseq.get() != 0 {
                add(thread.rseq.get(), thread.rseq_len.get().into());
            }
            for [start, end] in stopped.savers {
                add(start, end.saturating_sub(start));
            }
            robust(target, thread, &mut entries, |at| add(at, 4));
        }
        let free = places.len();
        let used = known.len() - free;
        let known = known.get_mut(..used).unwrap_or_default();
        known.sort_unstable();
        ids.sort_unstable();
        Ok(Self { pid: target.pid() as u32, ids, known })
    }

    /// The search for traces of them.
    #[must_use]
    pub fn search(&self) -> Search<'_> {
        Search::new(self.pid, self.ids, self.known)
    }
}

/// Gives the futex words on a thread's robust list, whose holder the kernel releases them for (get_robust_list(2), `struct
/// robust_list_head` of linux/futex.h: next, offset of the word, operation that is pending; bit 0 of a link marks priority inheritance).
fn robust(target: &impl Target, thread: &Thread, entries: &mut impl Iterator, mut add: impl FnMut(u64)) {
    let head = thread.robust_list.get();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        target.read_memory(at, &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
    };
    if head == 0 {
        return;
    }
    let (Some(first), Some(offset), Some(pending)) = (word(head), word(head + 8), word(head + 16)) else { return };
    let mut futex = |entry: u64| add((entry & !1).wrapping_add(offset));
    if pending & !1 != 0 {
        futex(pending);
    }
    let mut entry = first;
    while entry & !1 != head && entries.next().is_some() {
        futex(entry);
        let Some(next) = word(entry & !1) else { return };
        entry = next;
    }
}
