//! The gate: the page that a restart leaves behind when threads were saved from outside. Each of them goes back into the
//! program through it, so that the rest of the restart can be unmapped. The next save leaves it out.
//!
//! ```text
//! 0 magic │ restarts │ threads │ lengths │ the last code │ its orders │ ways in, 16 each │ goals, 8 each │ marks, 1 each │ the leader's frame (of held threads: arrivals, 1 each │ the word │ all frames)
//! │ restrictions, 40 each │ the programs of filters │ of a stopped process: goals for when it goes on
//! ```
//!
//! Must never claim memory as left over through which a thread may still have to go.

use image_format::{PAGE, align_up};

/// What a gate begins with.
pub const MAGIC: [u8; 12] = *b"ckpt gate 4\0";

/// In the word that tells the number of threads: those threads wait in the gate for what the leader restricts them in. Their frames lie
/// there, too, and all that is written lies behind the pages of the code.
const HELD: u64 = 1 << 63;

/// Where its parts lie, in bytes from its start, for a number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    threads: u64,
    held: bool,
}

impl Gate {
    /// Restarts that lie behind the process: four bytes.
    pub const RESTARTS: u64 = 12;
    /// Number of threads, and whether they are held.
    pub const THREADS: u64 = 16;
    /// Length of the gate's first mapping.
    pub const LEN: u64 = 24;
    /// Length of all of it: held threads' frames lie in a mapping behind the first one.
    pub const ALL: u64 = 32;
    /// The code that unmaps the rest.
    pub const CODE: u64 = 40;
    /// What that code is to do.
    pub const ORDERS: u64 = 376;
    const WAYS: u64 = 496;

    /// The gate of this many threads; `held`: they wait for the leader.
    #[must_use]
    pub const fn new(threads: u64, held: bool) -> Self {
        Self { threads, held }
    }

    /// What its word for the number of threads says.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.threads | if self.held { HELD } else { 0 }
    }

    /// A thread's way in: code that sets its mark and jumps to its goal.
    #[must_use]
    pub const fn way(self, thread: u64) -> u64 {
        Self::WAYS + 16 * thread
    }

    /// Where what is written begins: with held threads, in a mapping of its own.
    #[must_use]
    pub const fn data(self) -> u64 {
        let ways = self.way(self.threads);
        if self.held { align_up(ways, PAGE) } else { ways }
    }

    /// The address at which a thread goes on.
    #[must_use]
    pub const fn goal(self, thread: u64) -> u64 {
        self.data() + 8 * thread
    }

    /// The byte that is 1 once a thread has gone through.
    #[must_use]
    pub const fn mark(self, thread: u64) -> u64 {
        self.goal(self.threads) + thread
    }

    /// The byte that is 1 once a held thread waits, and 2 when it has nothing left to do but to go.
    #[must_use]
    pub const fn arrival(self, thread: u64) -> u64 {
        self.mark(self.threads) + thread
    }

    /// The word that held threads wait for.
    #[must_use]
    pub const fn release(self) -> u64 {
        align_up(self.arrival(self.threads), 8)
    }

    /// A held thread's signal frame, of so many bytes; else the leader's, the only one.
    #[must_use]
    pub const fn frame(self, thread: u64, room: u64) -> u64 {
        if self.held { align_up(self.release() + 8, 64) + thread * room } else { align_up(self.mark(self.threads), 64) }
    }

    /// Where the frames end.
    #[must_use]
    pub const fn frames_end(self, room: u64) -> u64 {
        if self.held { self.frame(self.threads, room) } else { self.frame(0, room) + room }
    }
}

/// A gate that was found.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// Where its parts lie.
    pub gate: Gate,
    /// Length of all of it.
    pub len: u64,
    /// Restarts that lie behind the process.
    pub restarts: u32,
}

/// The gate that a mapping of `whole` bytes begins, by its own beginning. It is left over when every thread has marked it, and none is
/// between its mark and its goal.
#[must_use]
pub fn begun(bytes: &[u8], whole: u64) -> Option<Begun> {
    let restarts = bytes.get(Gate::RESTARTS as usize..)?.first_chunk().map(|word| u32::from_le_bytes(*word))?;
    let word = |at: u64| bytes.get(at as usize..)?.first_chunk().map(|word| u64::from_le_bytes(*word));
    let (threads, len, all) = (word(Gate::THREADS)?, word(Gate::LEN)?, word(Gate::ALL)?);
    let gate = Gate::new(threads & !HELD, threads & HELD != 0);
    let sound = bytes.starts_with(&MAGIC) && len == whole && len % PAGE == 0 && gate.threads < len && all % PAGE == 0;
    let fits =
        || if gate.held { gate.data() == len && gate.frame(0, 0) < all } else { gate.frame(0, 0) < len && all == len };
    (sound && fits()).then_some(Begun { gate, len: all, restarts })
}

/// Bytes of a gate that [`begun`] wants to see.
pub const HEAD: usize = Gate::CODE as usize;

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn head(gate: Gate, len: u64) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..12].copy_from_slice(&MAGIC);
        bytes[12] = 7;
        bytes[16..24].copy_from_slice(&gate.word().to_le_bytes());
        bytes[24..32].copy_from_slice(&len.to_le_bytes());
        bytes[32..40].copy_from_slice(&(len + if gate.held { 8 * PAGE } else { 0 }).to_le_bytes());
        bytes
    }

    #[test]
    fn a_gate_is_known_by_its_beginning() {
        for (threads, held, len) in
            [(1, false, PAGE), (20, false, PAGE), (1000, false, 8 * PAGE), (1, true, PAGE), (1000, true, 5 * PAGE)]
        {
            let gate = Gate::new(threads, held);
            let found = begun(&head(gate, len), len);
            let all = len + if held { 8 * PAGE } else { 0 };
            let found = found.map(|found| (found.gate.mark(0), found.len, found.restarts));
            assert_eq!(found, Some((gate.mark(0), all, 7)), "{threads} {held}");
        }
    }

    #[test]
    fn other_memory_is_none() {
        assert!(begun(&[], 0).is_none());
        assert!(begun(&MAGIC, 16).is_none());
        assert!(begun(&[0; HEAD], PAGE).is_none());
        assert!(begun(&[1; HEAD], PAGE).is_none());
        assert!(begun(&head(Gate::new(HELD - 1, false), PAGE), PAGE).is_none());
        assert!(begun(&head(Gate::new(4000, false), PAGE), PAGE).is_none());
        assert!(begun(&head(Gate::new(1, true), 2 * PAGE), 2 * PAGE).is_none());
        assert!(begun(&head(Gate::new(1, false), PAGE), 2 * PAGE).is_none(), "more than the gate");
    }

    #[test]
    fn parts_follow_each_other() {
        for (threads, held) in [(1, false), (7, false), (7, true), (500, true)] {
            let gate = Gate::new(threads, held);
            assert!(gate.way(threads) <= gate.goal(0) && gate.goal(threads) <= gate.mark(0));
            assert!(gate.mark(threads) <= gate.arrival(0) && gate.arrival(threads) <= gate.release());
            assert!(!held || gate.release() + 8 <= gate.frame(0, 128));
            assert!(gate.frame(threads - 1, 128) + 128 <= gate.frames_end(128));
        }
    }
}
