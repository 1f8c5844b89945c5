//! A hole in the address space: free in this process and in the program to be restored.
//!
//! What outlives the old mappings moves there. Both lists are ascending and disjoint.

/// Lowest address to use: below lie the pages that no process may map (`vm.mmap_min_addr`), with room to spare.
const LOWEST: u64 = 0x10_0000;

/// Where to look first: above what 32-bit habits fill.
const PREFERRED: u64 = 0x1_0000_0000;

/// The start of a hole of `len` bytes below `end` that neither list touches.
pub fn find(
    mine: impl Iterator<Item = (u64, u64)> + Clone,
    theirs: impl Iterator<Item = (u64, u64)> + Clone,
    len: u64,
    end: u64,
) -> Option<u64> {
    first(mine.clone(), theirs.clone(), len, PREFERRED, end).or_else(|| first(mine, theirs, len, LOWEST, end))
}

fn first(
    mine: impl Iterator<Item = (u64, u64)>,
    theirs: impl Iterator<Item = (u64, u64)>,
    len: u64,
    lowest: u64,
    end: u64,
) -> Option<u64> {
    let (mut a, mut b) = (mine.peekable(), theirs.peekable());
    let mut at = lowest;
    loop {
        let next = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) if x.0 <= y.0 => a.next(),
            (Some(_) | None, Some(_)) => b.next(),
            (Some(_), None) => a.next(),
            (None, None) => None,
        };
        let (start, stop) = next.unwrap_or((end, end));
        if start.saturating_sub(at) >= len {
            return Some(at);
        }
        if start >= end {
            return None;
        }
        at = at.max(stop);
    }
}
