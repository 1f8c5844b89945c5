//! The gate: the page that a restart leaves behind when threads were saved from outside. Each of them goes back into the
//! program through it, so that the rest of the restart can be unmapped. The next save leaves it out.
//!
//! ```text
//! 0 magic │ threads │ length │ the last code │ its orders │ ways in, 16 each │ goals, 8 each │ marks, 1 each │ the leader's frame
//! │ restrictions, 40 each │ the programs of filters
//! ```
//!
//! Must never claim memory as left over through which a thread may still have to go.

use image_format::{PAGE, align_up};

/// What a gate begins with.
pub const MAGIC: [u8; 16] = *b"ckpt gate 2\0\0\0\0\0";

/// Where its parts lie, in bytes from its start, for a number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    threads: u64,
}

impl Gate {
    /// Number of threads.
    pub const THREADS: u64 = 16;
    /// Length of the gate.
    pub const LEN: u64 = 24;
    /// The code that unmaps the rest.
    pub const CODE: u64 = 32;
    /// What that code is to do.
    pub const ORDERS: u64 = 152;
    const WAYS: u64 = 216;

    /// The gate of this many threads.
    #[must_use]
    pub const fn new(threads: u64) -> Self {
        Self { threads }
    }

    /// A thread's way in: code that sets its mark and jumps to its goal.
    #[must_use]
    pub const fn way(self, thread: u64) -> u64 {
        Self::WAYS + 16 * thread
    }

    /// The address at which a thread goes on.
    #[must_use]
    pub const fn goal(self, thread: u64) -> u64 {
        self.way(self.threads) + 8 * thread
    }

    /// The byte that is 1 once a thread has gone through.
    #[must_use]
    pub const fn mark(self, thread: u64) -> u64 {
        self.goal(self.threads) + thread
    }

    /// The leader's signal frame.
    #[must_use]
    pub const fn frame(self) -> u64 {
        align_up(self.mark(self.threads), 64)
    }
}

/// Whether a mapping of `whole` bytes, which begins with these, is a gate that every thread has marked. Whoever wants to drop it must also see
/// that no thread is between its mark and its goal.
#[must_use]
pub fn leftover(bytes: &[u8], whole: u64) -> bool {
    let word = |at: u64| bytes.get(at as usize..)?.first_chunk().map(|word| u64::from_le_bytes(*word));
    let (Some(threads), Some(len)) = (word(Gate::THREADS), word(Gate::LEN)) else { return false };
    if !bytes.starts_with(&MAGIC) || len != whole || len % PAGE != 0 || threads >= len {
        return false;
    }
    let gate = Gate::new(threads);
    let marks = bytes.get(gate.mark(0) as usize..gate.mark(threads) as usize);
    marks.is_some_and(|marks| marks.iter().all(|mark| *mark == 1))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    const LEN: usize = PAGE as usize;

    fn page(threads: u64, marked: u64) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..16].copy_from_slice(&MAGIC);
        bytes[16..24].copy_from_slice(&threads.to_le_bytes());
        bytes[24..32].copy_from_slice(&PAGE.to_le_bytes());
        for thread in 0..marked {
            bytes[Gate::new(threads).mark(thread) as usize] = 1;
        }
        bytes
    }

    #[test]
    fn a_gate_that_all_have_passed_is_left_over() {
        assert!(leftover(&page(1, 1), PAGE));
        assert!(leftover(&page(20, 20), PAGE));
        assert!(!leftover(&page(20, 19), PAGE));
    }

    #[test]
    fn other_memory_is_not() {
        assert!(!leftover(&[], 0));
        assert!(!leftover(&MAGIC, 16));
        assert!(!leftover(&[0; LEN], PAGE));
        assert!(!leftover(&[1; LEN], PAGE));
        assert!(!leftover(&page(u64::MAX, 0), PAGE));
        assert!(!leftover(&page(4000, 0), PAGE));
        let mut longer = [0; 2 * LEN];
        longer[..LEN].copy_from_slice(&page(1, 1));
        assert!(!leftover(&longer, 2 * PAGE), "more than the gate");
    }
}
