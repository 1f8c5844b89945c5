//! What earlier restarts have left in the program's memory: no part of the next image.

use core::ops::Range;

use image_format::record::memory::{Vma, VmaKind};
use sys::abi::mm::{PROT_EXEC, PROT_READ, PROT_WRITE};

use super::outside;
use crate::Target;
use crate::gate::{Begun, HEAD, begun};

/// How many marks are looked at at a time.
const MARKS: u64 = 1024;

/// Gates that nobody needs any more, each with what is written of it. There is one, as every save leaves it out, unless threads stood in
/// one at a save before this; any more stay until the next save.
#[derive(Default)]
pub(super) struct Leftover {
    gates: [Range<u64>; 4],
    count: usize,
    /// A thread stands in a gate, or has still to go through one. Where its way leads from there only that gate knows, and it may be an
    /// older one: none is left out.
    in_use: bool,
    /// Restarts that lie behind the process.
    pub(super) restarts: u32,
}

impl Leftover {
    /// Looks at one mapping.
    pub(super) fn see<T: Target>(&mut self, target: &T, vma: &Vma) {
        let (start, end) = (vma.start.get(), vma.end.get());
        let mut head = [0; HEAD];
        if vma.kind.get() != VmaKind::Anonymous as u32
            || vma.prot.get() & (PROT_READ | PROT_EXEC) != PROT_READ | PROT_EXEC
            || target.read_memory(start, &mut head).is_err()
        {
            return;
        }
        let Some(Begun { gate, len, restarts }) = begun(&head, end - start) else { return };
        self.restarts = restarts.max(self.restarts);
        // All have gone through it, and it was made read-only by the last.
        if target.stands_in(&(start..end))
            || vma.prot.get() & PROT_WRITE != 0
            || !is_passed(target, start + gate.mark(0)..start + gate.arrival(0))
        {
            self.in_use = true;
        } else if let Some(slot) = self.gates.get_mut(self.count) {
            *slot = start..start + len;
            self.count += 1;
        }
    }

    /// Takes the gates out of `vmas`; returns how many of these are left. What is written of a gate lies behind its code, and the kernel
    /// may have joined it with what is the program's: that stays, in the place that the code leaves.
    pub(super) fn leave_out(&self, vmas: &mut [Vma]) -> usize {
        let gates = self.gates.get(..self.count).filter(|_| !self.in_use).unwrap_or(&[]);
        let (mut gates, mut kept) = (gates.iter().peekable(), 0);
        for i in 0..vmas.len() {
            let Some(vma) = vmas.get(i).copied() else { break };
            while gates.next_if(|gate| gate.end <= vma.start.get()).is_some() {}
            let is_gates = |gate: &Range<u64>| {
                let is_data = vma.kind.get() == VmaKind::Anonymous as u32 && vma.prot.get() == PROT_READ | PROT_WRITE;
                gate.start == vma.start.get() || is_data
            };
            let gate = gates.peek().filter(|gate| is_gates(gate)).map_or(0..0, |gate| (*gate).clone());
            for piece in outside(vma, &gate).into_iter().flatten() {
                if let Some(slot) = vmas.get_mut(kept) {
                    *slot = piece;
                    kept += 1;
                }
            }
        }
        kept
    }
}

/// Whether every thread has set its mark.
fn is_passed<T: Target>(target: &T, all: Range<u64>) -> bool {
    let mut marks = [0; MARKS as usize];
    let mut at = all.start;
    while at < all.end {
        let Some(marks) = marks.get_mut(..(all.end - at).min(MARKS) as usize) else { return false };
        if target.read_memory(at, marks).is_err() || marks.iter().any(|mark| *mark != 1) {
            return false;
        }
        at += marks.len() as u64;
    }
    true
}
