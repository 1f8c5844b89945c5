//! Several words that change together, which a signal handler may read at any moment, in any thread.
//!
//! Must never wait for a lock: a handler finds all of one value, as a writer counts before and after (`Documentation/locking/seqlock.rst`).

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

/// How often a reader looks for the end of a change. A child of fork(2) has the half of one for ever that another thread was in the middle of.
const LOOKS: u32 = 1 << 20;

/// The words.
#[derive(Debug)]
pub struct Shared<const N: usize> {
    /// Odd while somebody writes.
    turn: AtomicU32,
    words: [AtomicUsize; N],
}

impl<const N: usize> Shared<N> {
    /// All zero.
    pub const fn new() -> Self {
        Self { turn: AtomicU32::new(0), words: [const { AtomicUsize::new(0) }; N] }
    }

    /// What was set last.
    pub fn get(&self) -> [usize; N] {
        let mut looks = 0;
        loop {
            let before = self.turn.load(Ordering::Acquire);
            let words = self.words.each_ref().map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.turn.load(Ordering::Relaxed) == before || looks == LOOKS {
                return words;
            }
            looks += 1;
            sys::arch::pause();
        }
    }

    /// Sets all of them.
    pub fn set(&self, words: [usize; N]) {
        // A handler on this thread would look for an end that cannot come.
        let mask = sys::signal::set_mask(sys::signal::ALL);
        let mut looks = 0;
        let turn = loop {
            let turn = self.turn.load(Ordering::Relaxed);
            let begun = turn | 1;
            if (turn & 1 == 0 || looks == LOOKS)
                && self.turn.compare_exchange(turn, begun, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                break begun;
            }
            looks = (looks + 1).min(LOOKS);
            sys::arch::pause();
        };
        fence(Ordering::Release);
        for (to, word) in self.words.iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
        self.turn.store(turn.wrapping_add(1), Ordering::Release);
        if let Ok(mask) = mask {
            let _ = sys::signal::set_mask(mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicBool;

    use super::*;

    /// Whoever reads while another one writes finds all of one value.
    #[test]
    fn all_words_are_of_one_value() {
        static SHARED: Shared<16> = Shared::new();
        static DONE: AtomicBool = AtomicBool::new(false);
        let readers: std::vec::Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn(|| {
                    while !DONE.load(Ordering::Relaxed) {
                        let [first, rest @ ..] = SHARED.get();
                        assert!(rest.iter().all(|word| *word == first), "{first} and {rest:?}");
                    }
                })
            })
            .collect();
        (0..200_000).for_each(|n| SHARED.set([n; 16]));
        DONE.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|reader| reader.join().is_ok()));
        assert_eq!(SHARED.get(), [199_999; 16]);
    }
}
