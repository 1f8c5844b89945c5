//! A process's memory as far as the image has it. Must never read more: the look alone would make pages where there were none.

use state::Target;

use crate::pages::{self, Run};

/// Whose memory, and what of it is saved.
#[derive(Debug)]
pub struct Touched<'a, T> {
    target: &'a T,
    runs: &'a [Run],
}

impl<'a, T: Target> Touched<'a, T> {
    /// The runs of its memory, ascending; those of contents may follow.
    pub fn new(target: &'a T, runs: &'a [Run]) -> Self {
        Self { target, runs: pages::of_memory(runs) }
    }

    /// Reads a piece; what is not saved is zero. False: it cannot be read.
    pub fn fill(&self, at: u64, to: &mut [u8]) -> bool {
        to.fill(0);
        let Some(end) = at.checked_add(to.len() as u64) else { return false };
        let first = self.runs.partition_point(|run| run.addr + run.len <= at);
        let runs = self.runs.get(first..).unwrap_or_default().iter().take_while(|run| run.addr < end);
        let parts = runs.map(|run| (run.addr.max(at), (run.addr + run.len).min(end)));
        let read = |(from, until): (u64, u64)| {
            let part = to.get_mut((from - at) as usize..(until - at) as usize)?;
            self.target.read_memory(from, part).ok()
        };
        parts.map(read).all(|read| read.is_some())
    }
}
