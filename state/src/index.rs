//! What has a number, found by that: a walk over all of them for each would be a square.

use image_format::writer::Full;

use crate::Scratch;

/// Items by their numbers, several by the same one.
#[derive(Debug)]
pub struct Index<'b> {
    /// For each part of the numbers the last item, plus one.
    last: &'b mut [u32],
    /// For each item the one before it, plus one.
    before: &'b mut [u32],
}

impl<'b> Index<'b> {
    /// An empty one, for items below `count`.
    ///
    /// # Errors
    /// No room.
    pub fn new(scratch: &mut Scratch<'b>, count: usize) -> Result<Self, Full> {
        let parts = count.next_power_of_two();
        Ok(Self { last: scratch.take(parts)?, before: scratch.take(count)? })
    }

    fn part(&self, number: u64) -> usize {
        // The upper bits of the product depend on all of the number's.
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (mixed as usize) & (self.last.len().wrapping_sub(1))
    }

    /// Puts an item under a number.
    ///
    /// # Errors
    /// It is none of those for which there is room.
    pub fn put(&mut self, number: u64, item: usize) -> Result<(), Full> {
        let part = self.part(number);
        let (last, before) = (self.last.get_mut(part).ok_or(Full)?, self.before.get_mut(item).ok_or(Full)?);
        *before = core::mem::replace(last, item as u32 + 1);
        Ok(())
    }

    /// Items under a number, and perhaps others; the last ones first.
    pub fn under(&self, number: u64) -> impl Iterator<Item = usize> {
        let mut next = self.last.get(self.part(number)).copied().unwrap_or(0);
        core::iter::from_fn(move || {
            let item = next.checked_sub(1)? as usize;
            next = self.before.get(item).copied().unwrap_or(0);
            Some(item)
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn finds_what_was_put() -> Result<(), Full> {
        let mut memory = vec![0; 64 << 10];
        let mut index = Index::new(&mut Scratch::new(&mut memory), 1000)?;
        for item in 0..1000 {
            index.put(item as u64 / 2 * 4096, item)?;
        }
        for item in 0..1000usize {
            let found: Vec<usize> = index.under(item as u64 / 2 * 4096).collect();
            assert!(found.contains(&item) && found.len() < 20, "{item}: {found:?}");
            assert!(found.is_sorted_by(|a, b| a > b));
        }
        assert!(index.put(1, 1000).is_err());
        let mut memory = [0; 64];
        let empty = Index::new(&mut Scratch::new(&mut memory), 0)?;
        assert_eq!(empty.under(7).count(), 0);
        Ok(())
    }
}
