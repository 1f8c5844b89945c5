//! The rules for seccomp filters: programs that the kernel takes, and chains that it has room for.
//!
//! Must let nothing through that the kernel would refuse: threads get their filters when nothing else is left to do. The smaller stub
//! refuses all filters.

use crate::record::header::Features;
use crate::record::seccomp::{CHAIN_MAX, FILTER_COST, How, Instruction, PROGRAM_MAX, Seccomp};
use crate::record::thread::Thread;

use super::{Check, MATCH_MAX, Result};
use crate::Rule;

/// Codes that the kernel takes in a filter (kernel/seccomp.c, `seccomp_check_filter`), a bit for each; `LD|W|ABS`, `LD|W|LEN`,
/// `LDX|W|LEN` and what computes, compares, keeps and returns.
const CODES: [u64; 4] = {
    let codes = [
        0x20, 0x80, 0x81, 0x06, 0x16, 0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x54, 0x5c, 0x44, 0x4c, 0xa4,
        0xac, 0x64, 0x6c, 0x74, 0x7c, 0x84, 0x00, 0x01, 0x07, 0x87, 0x60, 0x61, 0x02, 0x03, 0x05, 0x15, 0x1d, 0x35,
        0x3d, 0x25, 0x2d, 0x45, 0x4d,
    ];
    let mut bits = [0; 4];
    let mut rest: &[u8] = &codes;
    while let [code, more @ ..] = rest {
        #[allow(clippy::indexing_slicing, reason = "by the compiler, which would say so")]
        {
            bits[(*code >> 6) as usize] |= 1u64 << (*code & 63);
        }
        rest = more;
    }
    bits
};

/// `sizeof(struct seccomp_data)`.
const DATA: u32 = 64;

/// Where a step keeps length and address of its program.
const PROGRAM: usize = core::mem::offset_of!(Seccomp, len);

/// Words of memory that a filter has (`BPF_MEMWORDS`).
const WORDS: u32 = 16;

impl Check<'_, '_> {
    /// Chains of filters, in the order of the threads.
    pub(super) fn seccomp(&self, threads: &[Thread]) -> Result {
        let programs = self.image.rows::<Instruction>();
        let rows = self.image.rows::<Seccomp>();
        let (Some((end, mut steps)), row) = (rows.split_last(), size_of::<Seccomp>()) else { return Ok(()) };
        if !self.requires(Features::SECCOMP.union(Features::FULL_FRAME)) {
            return self.bad(Rule::FiltersWithoutTheirFeatureWithoutFrames, end);
        }
        let (mut work, mut at, mut privilege) = (steps.len().saturating_mul(threads.len()), 0, 0);
        // What all threads have by the first one's steps: instructions, and whether they get no privileges.
        let (mut common, mut free) = (0, false);
        for (place, thread) in threads.iter().enumerate() {
            let (mut sum, mut before) = (common, if free { Some(How::NoNewPrivs) } else { None });
            while let [step, rest @ ..] = steps
                && step.tid == thread.tid
                && step.tid.get() != 0
            {
                let how = How::of(step);
                let from = (step.at.get() as usize).checked_sub(rows.len() * row).filter(|from| from.is_multiple_of(8));
                let program = from.and_then(|from| programs.get(from / 8..)?.get(..step.len.get() as usize));
                let program = program.unwrap_or_default();
                let is_filter = how.is_some_and(How::is_filter);
                let third = if is_filter { at + PROGRAM as u64 } else { 0 };
                sum += FILTER_COST + program.len();
                work = work.saturating_add(program.len());
                // Nothing comes behind strict mode, and nothing but a filter behind one; what all share comes first.
                let is_shared = how.is_some_and(How::is_shared);
                let ordered = match before {
                    None => how.is_some(),
                    Some(How::NoNewPrivs) => how.is_some_and(|how| how != How::NoNewPrivs),
                    Some(before) => before.is_filter() && is_filter && (before.is_shared() || !is_shared),
                } && !(is_shared && (place != 0 || thread.tid != self.image.header().pid));
                let room = program.len() <= PROGRAM_MAX && sum <= CHAIN_MAX && work <= MATCH_MAX;
                let whole = is_filter != program.is_empty() && step.len.get() == program.len() as u64;
                if !ordered || !room || !whole || step.third.get() != third {
                    return self.bad(Rule::FiltersUnknownOutOrderTooLongTooMany, step);
                }
                if is_filter && !is_program(program) {
                    return self.bad(Rule::FilterNoKernelTakes, step);
                }
                privilege |= u32::from(is_filter && before.is_none());
                if is_shared {
                    (common, free) = (sum, before.is_some_and(|before| !before.is_shared()) || free);
                }
                (before, steps, at) = (how, rest, at + row as u64);
            }
        }
        if let Some(step) = steps.first() {
            return self.bad(Rule::FilterNoThreadImageOutOrder, step);
        }
        if end.tid.get() != 0 || (end.first.get() == 0) != (privilege == 0) {
            return self.bad(Rule::FiltersWithoutTheirEnd, end);
        }
        Ok(())
    }
}

/// As the kernel checks it (kernel/seccomp.c, `seccomp_check_filter`; net/core/filter.c, `bpf_check_classic` and
/// `check_load_and_stores`).
#[inline(never)] // A smaller frame has shorter addresses.
fn is_program(program: &[Instruction]) -> bool {
    // For each instruction the words that are written on every way to it.
    let mut written = [u16::MAX; PROGRAM_MAX];
    let mut valid = 0;
    for (pc, instruction) in program.iter().enumerate() {
        let left = program.len() - pc - 1;
        let (code, k) = (u32::from(instruction.code.get()), instruction.k.get());
        valid &= written.get(pc).copied().unwrap_or_default();
        let word = 1u16.checked_shl(k).unwrap_or_default();
        let jumps = match code {
            0x05 => [k, k],
            _ if code & 7 == 5 => [instruction.jt.into(), instruction.jf.into()],
            _ => [0; 2],
        };
        let fine = match code {
            0x20 => k < DATA && k.is_multiple_of(4),
            0x34 => k != 0,
            0x64 | 0x74 => k < 32,
            0x02 | 0x03 | 0x60 | 0x61 => k < WORDS,
            _ => true,
        };
        let known = CODES.get(code as usize >> 6).is_some_and(|bits| bits >> (code & 63) & 1 != 0);
        // The last one returns.
        let ends = left != 0 || code & 7 == 6;
        let loads = [0x60, 0x61].contains(&code);
        if !known || !fine || !ends || loads && valid & word == 0 {
            return false;
        }
        if [0x02, 0x03].contains(&code) {
            valid |= word;
        }
        if code & 7 == 5 {
            for to in jumps {
                if to as usize >= left {
                    return false;
                }
                if let Some(words) = written.get_mut(pc + 1 + to as usize) {
                    *words &= valid;
                }
            }
            valid = u16::MAX;
        }
    }
    true
}
