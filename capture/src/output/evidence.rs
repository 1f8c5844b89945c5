//! Whether what looks like a lock that a thread holds is one.
//!
//! A word that is a thread's id by chance must never be corrected: that is another number in the program's data (a compiler's
//! live ranges, seen in the JVM, have every number up to some thousands). Where a program has data that looks like locks which
//! nobody's id holds, something else must speak for each one that names a thread: that it is a variable of a program or library, or
//! of its holder's stack; that a thread waits for it; or that its holder, or such a variable, has a pointer to it. The others
//! stay as they are.

use std::vec;
use std::vec::Vec;

use image_format::record::memory::{Vma, VmaKind};
use state::Target;
use sys::Sysno;
use sys::abi::mm::PROT_WRITE;

use super::Holder;
use super::held::Candidate;
use super::touched::Touched;

/// Indices in `user_regs_struct`.
const RAX: usize = 10;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;
const RSP: usize = 19;

/// Calls in which a thread waits for a futex; the second one in place of the first.
const WAITING: [u64; 2] = [Sysno::futex as u64, Sysno::restart_syscall as u64];

/// Bytes below the stack pointer that belong to the function that runs (System V ABI, red zone).
const RED_ZONE: u64 = 128;

/// Bytes below the thread pointer where thread-local variables are looked for.
const TLS: u64 = 64 << 10;

/// Bytes of an object that a pointer to its beginning speaks for: longer ones are tables.
const OBJECT: u64 = 4096;

/// Most bytes of a stack, or of variables, that are looked through.
const MOST: u64 = 64 << 20;

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;

/// What there is to be asked.
pub struct Evidence<'a, T> {
    memory: &'a Touched<'a, T>,
    threads: &'a [Holder],
    vmas: &'a [Vma],
}

impl<'a, T: Target> Evidence<'a, T> {
    /// All threads and all mappings, ascending.
    pub const fn new(memory: &'a Touched<'a, T>, threads: &'a [Holder], vmas: &'a [Vma]) -> Self {
        Self { memory, threads, vmas }
    }

    /// The candidates that are locks.
    pub fn confirmed(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let (mut sure, rest): (Vec<_>, Vec<_>) = candidates.iter().copied().partition(|c| self.is_plain(c));
        // Pointers that would speak for one of the others.
        let mut pointers: Vec<(u64, usize)> = Vec::new();
        for (i, candidate) in rest.iter().enumerate() {
            pointers.extend(self.beginnings(candidate).into_iter().map(|beginning| (beginning, i)));
        }
        pointers.sort_unstable();
        let mut named = vec![false; rest.len()];
        if !rest.is_empty() {
            for thread in self.threads {
                let own = |i: usize| rest.get(i).is_some_and(|c| u64::from(c.tid) == thread.tid);
                if (0..rest.len()).any(own) {
                    self.look_up(&thread.regs, &pointers, own, &mut named);
                    let [start, end] = self.live_stack(thread);
                    self.look_through(start, end, &pointers, own, &mut named);
                }
            }
            let data = |(index, vma)| self.is_data(index).then_some(vma);
            for vma in self.vmas.iter().enumerate().filter_map(data) {
                self.look_through(vma.start.get(), vma.end.get(), &pointers, |_| true, &mut named);
            }
        }
        sure.extend(rest.iter().zip(named).filter(|(_, named)| *named).map(|(candidate, _)| *candidate));
        sure
    }

    /// It is a variable of its own, or a thread waits for it.
    fn is_plain(&self, candidate: &Candidate) -> bool {
        let lock = candidate.lock;
        let waits = |regs: &[u64; super::REGS]| {
            regs[RDI] == lock && (WAITING.contains(&regs[ORIG_RAX]) || WAITING.contains(&regs[RAX]))
        };
        let own = |thread: &&Holder| thread.tid == u64::from(candidate.tid);
        let near = |thread: &Holder| {
            let [start, end] = self.live_stack(thread);
            (start..end).contains(&lock) || (thread.fs.saturating_sub(TLS)..thread.fs).contains(&lock)
        };
        self.vma_of(lock).is_some_and(|index| self.is_data(index))
            || self.threads.iter().any(|thread| waits(&thread.regs))
            || self.threads.iter().find(own).is_some_and(near)
    }

    fn vma_of(&self, addr: u64) -> Option<usize> {
        let index = self.vmas.partition_point(|vma| vma.end.get() <= addr);
        self.vmas.get(index).filter(|vma| vma.start.get() <= addr).map(|_| index)
    }

    /// Writable data of a mapped file, or the .bss that follows it without a gap.
    fn is_data(&self, index: usize) -> bool {
        let is = |vma: &Vma, kind| vma.kind.get() == kind as u32 && vma.prot.get() & PROT_WRITE != 0;
        let before = index.checked_sub(1).and_then(|before| self.vmas.get(before));
        self.vmas.get(index).is_some_and(|vma| {
            let follows = before.is_some_and(|b| b.end == vma.start && is(b, VmaKind::FilePrivate));
            is(vma, VmaKind::FilePrivate) || is(vma, VmaKind::Anonymous) && follows
        })
    }

    /// From the stack pointer to the end of its mapping.
    fn live_stack(&self, thread: &Holder) -> [u64; 2] {
        let sp = thread.regs[RSP].saturating_sub(RED_ZONE) & !7;
        let vma = self.vma_of(sp).and_then(|index| self.vmas.get(index));
        vma.map_or([sp, sp], |vma| [sp, vma.end.get()])
    }

    /// Addresses that a pointer has which speaks for a lock: its own, and those where an object may begin that glibc's malloc gave
    /// out and that has the lock in it: in front of it is its size, behind it the next one's (malloc/malloc.c, `struct
    /// malloc_chunk`). None of them is the beginning of a long table.
    fn beginnings(&self, candidate: &Candidate) -> Vec<u64> {
        const HEAD: u64 = 16;
        let (lock, end) = (candidate.lock, candidate.lock + candidate.len);
        let word = |at: u64| {
            let mut bytes = [0; 8];
            self.memory.fill(at, &mut bytes).then(|| u64::from_le_bytes(bytes))
        };
        let size_at = |chunk: u64| {
            let size = word(chunk.checked_sub(8)?)?;
            (size & 8 == 0 && (2 * HEAD..1 << 40).contains(&size)).then_some((size & !15, size & 1 != 0))
        };
        let chunk_len = |chunk: u64| {
            let (size, _) = size_at(chunk)?;
            let (_, in_use) = size_at(chunk + size)?;
            (in_use && chunk + size - 8 >= end).then_some(size)
        };
        let from = lock.saturating_sub(OBJECT).next_multiple_of(HEAD);
        let lens = (from..=lock).step_by(HEAD as usize).map(|chunk| (chunk, chunk_len(chunk)));
        let is_object = |(chunk, len): (u64, Option<u64>)| match len {
            Some(len) => (len <= OBJECT + HEAD).then_some(chunk),
            None => (chunk == lock).then_some(chunk),
        };
        let unaligned = (lock % HEAD != 0).then_some(lock);
        lens.filter_map(is_object).chain(unaligned).collect()
    }

    /// Notes which of the pointers there are among the words.
    fn look_up(&self, words: &[u64], pointers: &[(u64, usize)], counts: impl Fn(usize) -> bool, named: &mut [bool]) {
        let (Some((first, _)), Some((last, _))) = (pointers.first(), pointers.last()) else { return };
        for word in words.iter().filter(|word| (*first..=*last).contains(word)) {
            let begin = pointers.partition_point(|(pointer, _)| pointer < word);
            let same = pointers.iter().skip(begin).take_while(|(pointer, _)| pointer == word);
            for (_, index) in same.filter(|(_, index)| counts(*index)) {
                if let Some(named) = named.get_mut(*index) {
                    *named = true;
                }
            }
        }
    }

    /// The same in memory; what cannot be read says nothing.
    fn look_through(
        &self,
        start: u64,
        end: u64,
        pointers: &[(u64, usize)],
        counts: impl Fn(usize) -> bool,
        named: &mut [bool],
    ) {
        let mut bytes = vec![0; PIECE as usize];
        let end = end.min(start.saturating_add(MOST));
        for at in (start..end).step_by(PIECE as usize) {
            let piece = bytes.get_mut(..(end - at).min(PIECE) as usize).unwrap_or_default();
            if self.memory.fill(at, piece) {
                let words: Vec<u64> = piece.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
                self.look_up(&words, pointers, &counts, named);
            }
        }
    }
}
