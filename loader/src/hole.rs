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
    [PREFERRED, LOWEST].into_iter().find_map(|lowest| {
        let mut at = lowest;
        // Between two of theirs I have few.
        for (their_start, their_end) in theirs.clone().chain([(end, end)]) {
            for (start, stop) in mine.clone() {
                if start.min(their_start).saturating_sub(at) >= len {
                    return Some(at);
                }
                if start < their_start {
                    at = at.max(stop);
                }
            }
            if their_start.saturating_sub(at) >= len {
                return Some(at);
            }
            at = at.max(their_end);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    const PAGE: u64 = 4096;
    const END: u64 = PAGE << 22;

    fn hole(mine: &[(u64, u64)], theirs: &[(u64, u64)], len: u64) -> Option<u64> {
        find(mine.iter().copied(), theirs.iter().copied(), len, END)
    }

    #[test]
    fn a_hole_touches_neither_list() {
        let mut state = 7u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        for _ in 0..2000 {
            let mut list = || {
                let mut at = super::PREFERRED;
                [(); 5].map(|()| {
                    let start = at + below(4) * PAGE;
                    at = start + (1 + below(3)) * PAGE;
                    (start, at)
                })
            };
            let (mine, theirs) = (list(), list());
            let len = PAGE * 2;
            let free = |at: u64| mine.iter().chain(&theirs).all(|(start, end)| at + len <= *start || *end <= at);
            let first = (0..).map(|page| super::PREFERRED + page * PAGE).find(|at| free(*at));
            assert_eq!(hole(&mine, &theirs, len), first, "{mine:x?} {theirs:x?}");
        }
    }

    #[test]
    fn where_all_is_taken_there_is_none() {
        assert_eq!(hole(&[(0, PAGE << 4)], &[(PAGE << 4, END)], PAGE), None);
        assert_eq!(hole(&[], &[(super::PREFERRED - PAGE, END)], PAGE), Some(super::LOWEST));
        assert_eq!(
            hole(&[(0, super::PREFERRED - PAGE)], &[(super::PREFERRED, END)], PAGE),
            Some(super::PREFERRED - PAGE)
        );
    }
}
