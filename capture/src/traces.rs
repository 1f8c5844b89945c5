//! Traces of ids: whether a process's memory holds its process or thread ids where a restart does not put new ones.
//!
//! A program that keeps its id and compares it with `getpid()` later goes on only under the same id. What a restart corrects is
//! known by layout: the tid address, the futex words of the robust list, the C library's thread descriptor. Any other word that
//! may be an id is a trace, and a process with a trace is not restarted under other ids unless the user asks for it. A trace chooses
//! the way of a restart; nothing is ever written because of one.
//!
//! An id is looked for in the forms that language runtimes give to small integers:
//!
//! | form of id n | who |
//! |---|---|
//! | `n`, 32 bits, aligned | C, Java, Go, CPython's digits, V8's 64-bit small integers |
//! | `2n`, `2n + 1` | OCaml, Ruby, SBCL, V8 with compressed pointers |
//! | `4n` to `4n + 3` | GAP, Emacs Lisp |
//! | `n` as a 64-bit floating-point number | Lua, R, Octave, JavaScript |
//! | `n` as decimal digits (the process id alone) | file names, messages, Tcl |

use core::sync::atomic::{AtomicU64, Ordering};

use memchr::memmem;
use sys::text::Text;

/// 32-bit words that are looked at together: a whole number of any CPU's vectors.
const BLOCK: usize = 256;

/// Nothing was found.
const NOTHING: u64 = u64::MAX;

/// Addresses that may hold an id: the first, and the first behind them.
pub type Place = [u64; 2];

/// Values from `least` to `least + span`.
#[derive(Clone, Copy, Debug, Default)]
struct Band {
    least: u32,
    span: u32,
}

impl Band {
    const fn new(least: u32, last: u32) -> Self {
        Self { least, span: last.wrapping_sub(least) }
    }

    /// All ones when the word lies in the band. Written with signed comparison, since the oldest vector instructions have no other.
    const fn mask(self, word: u32) -> u32 {
        const SIGN: u32 = 1 << 31;
        let at = word.wrapping_sub(self.least.wrapping_add(SIGN)) as i32;
        if at <= (self.span ^ SIGN) as i32 { u32::MAX } else { 0 }
    }
}

/// The search for one process's ids.
#[derive(Debug)]
pub struct Search<'a> {
    /// Ascending.
    ids: &'a [u32],
    /// Addresses that may hold ids, ascending.
    known: &'a [Place],
    bands: [Band; 4],
    digits: Text<12>,
    first: AtomicU64,
}

impl<'a> Search<'a> {
    /// Looks for `ids`, ascending and not empty, outside the ranges of `known`, ascending; `pid` is one of the ids.
    #[must_use]
    pub fn new(pid: u32, ids: &'a [u32], known: &'a [Place]) -> Self {
        let least = ids.first().copied().unwrap_or(pid);
        let last = ids.last().copied().unwrap_or(pid);
        let times = |factor: u32, more: u32| Band::new(least.wrapping_mul(factor), last.wrapping_mul(factor) + more);
        let bands = [Band::new(least, last), times(2, 1), times(4, 3), Band::new(float(least).1, float(last).1)];
        Self { ids, known, bands, digits: Text::of(format_args!("{pid}")), first: AtomicU64::new(NOTHING) }
    }

    /// Where the first trace was found; `None` as long as there is none.
    #[must_use]
    pub fn found(&self) -> Option<u64> {
        Some(self.first.load(Ordering::Relaxed)).filter(|at| *at != NOTHING)
    }

    /// Looks at registers.
    pub fn registers(&self, words: impl IntoIterator<Item = u64>) {
        for word in words {
            let halves = (word as u32, (word >> 32) as u32);
            if self.is_id(halves.0) || self.is_id(halves.1) || self.is_float(halves) {
                self.first.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Looks at memory that lies at `addr`, a multiple of 8. After the first trace there is nothing left to look for.
    pub fn memory(&self, addr: u64, bytes: &[u8]) {
        if self.found().is_some() {
            return;
        }
        let (words, _) = bytes.as_chunks::<4>();
        for (block, at) in words.chunks(BLOCK).zip((addr..).step_by(BLOCK * 4)) {
            if self.is_near(block) {
                self.block(at, block);
            }
        }
        self.text(addr, bytes);
    }

    /// Whether a word may be an id in one of its forms. All memory goes through it: no branch.
    fn is_near(&self, block: &[[u8; 4]]) -> bool {
        let [a, b, c, d] = self.bands;
        let near = |word: &[u8; 4]| {
            let word = u32::from_le_bytes(*word);
            a.mask(word) | b.mask(word) | c.mask(word) | d.mask(word)
        };
        block.iter().fold(0, |all, word| all | near(word)) != 0
    }

    fn block(&self, addr: u64, block: &[[u8; 4]]) {
        let mut before = 0;
        for (word, at) in block.iter().map(|word| u32::from_le_bytes(*word)).zip((addr..).step_by(4)) {
            if self.is_id(word) {
                self.note(at, 4);
            } else if at % 8 == 4 && self.is_float((before, word)) {
                self.note(at - 4, 8);
            }
            before = word;
        }
    }

    /// Whether a word is an id, or twice or four times one with a tag behind it.
    fn is_id(&self, word: u32) -> bool {
        (0..=2).any(|shift| self.has(word >> shift))
    }

    fn has(&self, id: u32) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Whether the low and high half of a word are a floating-point number that is an id.
    fn is_float(&self, (low, high): (u32, u32)) -> bool {
        let Band { least, span } = self.bands[3];
        high.wrapping_sub(least) <= span && {
            let number = f64::from_bits(u64::from(high) << 32 | u64::from(low));
            let id = number as u32;
            f64::from(id) == number && self.has(id)
        }
    }

    fn text(&self, addr: u64, bytes: &[u8]) {
        let digits = self.digits.as_bytes();
        let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        for at in memmem::find_iter(bytes, digits) {
            if !is_digit(at.checked_sub(1)) && !is_digit(Some(at + digits.len())) {
                self.note(addr + at as u64, digits.len() as u64);
            }
        }
    }

    /// Notes a trace, unless it lies where ids may be.
    fn note(&self, at: u64, len: u64) {
        let next = self.known.partition_point(|known| known[1] <= at);
        if self.known.get(next).is_none_or(|known| known[0] >= at + len) {
            self.first.fetch_min(at, Ordering::Relaxed);
        }
    }
}

/// The low and high half of an id as a floating-point number.
fn float(id: u32) -> (u32, u32) {
    let bits = f64::from(id).to_bits();
    (bits as u32, (bits >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const IDS: [u32; 3] = [31_999, 32_000, 32_007];

    fn found(bytes: &[u8]) -> Option<u64> {
        let search = Search::new(32_000, &IDS, &[[0x1010, 0x1014]]);
        search.memory(0x1000, bytes);
        search.found()
    }

    fn at(place: usize, what: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        bytes[place..place + what.len()].copy_from_slice(what);
        bytes
    }

    #[test]
    fn each_form_is_found_where_it_lies() {
        for id in IDS {
            for word in [id, 2 * id, 2 * id + 1, 4 * id, 4 * id + 1, 4 * id + 2] {
                assert_eq!(found(&at(0x104, &word.to_le_bytes())), Some(0x1104), "{word}");
            }
            assert_eq!(found(&at(0x108, &f64::from(id).to_le_bytes())), Some(0x1108));
        }
        assert_eq!(found(&at(0x107, b"/run/32000.pid")), Some(0x110c));
    }

    #[test]
    fn what_is_no_id_is_not() {
        assert_eq!(found(&[0; 8192]), None);
        for word in [31_998u32, 32_001, 2 * 32_003, 32_008] {
            assert_eq!(found(&at(0x100, &word.to_le_bytes())), None, "{word}");
        }
        assert_eq!(found(&at(0x108, &32_003f64.to_le_bytes())), None);
        assert_eq!(found(&at(0x108, &32_000.5f64.to_le_bytes())), None);
        for text in [&b"132000"[..], b"320001", b"3200"] {
            assert_eq!(found(&at(0x107, text)), None, "{text:?}");
        }
    }

    #[test]
    fn places_that_may_hold_ids_are_left_out() {
        assert_eq!(found(&at(0x10, &32_000u32.to_le_bytes())), None);
        assert_eq!(found(&at(0x14, &32_000u32.to_le_bytes())), Some(0x1014));
    }

    #[test]
    fn registers_are_looked_at() {
        let search = Search::new(32_000, &IDS, &[]);
        search.registers([0, u64::MAX, 0x7fff_0000_1234]);
        assert_eq!(search.found(), None);
        search.registers([32_007 << 32]);
        assert_eq!(search.found(), Some(0));
    }

    /// Large ids need more than the upper half of a floating-point number.
    #[test]
    fn the_largest_ids_are_floating_point_numbers_too() {
        let ids = [4_194_301];
        let search = Search::new(ids[0], &ids, &[]);
        search.memory(0, &at(16, &4_194_301f64.to_le_bytes()));
        assert_eq!(search.found(), Some(16));
        let other = Search::new(ids[0], &ids, &[]);
        other.memory(0, &at(16, &4_194_300f64.to_le_bytes()));
        assert_eq!(other.found(), None);
    }
}
