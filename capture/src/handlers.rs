//! Signal handlers that are running: the kernel has put the extended state of what they interrupted on a stack, in the form of
//! this CPU. Found, so that a restart on another one gives it that one's form, or refuses.
//!
//! Looked for on each thread's stack, from where it is to the stack's end; where a handler has a stack of its own, on the
//! one that it interrupted, too. Must never hold the process up: it reads what is to be written.

use core::mem::offset_of;
use core::ops::Range;

use image_format::record::frame::{Component, SignalFrame};
use image_format::record::header::Features;
use image_format::record::memory::{Vma, VmaKind};
use image_format::writer::Full;
use image_format::{NoteType, PAGE};
use state::frame::{FIXED, SW_BYTES, XSTATE_BV};
use state::{Result, Save, Target};
use sys::abi::mm::PROT_WRITE;
use sys::abi::signal::{FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, Sigcontext, Ucontext};

use crate::pages::{self, Run};
use crate::session::Threads;

/// Most frames that can be carried.
const FRAMES_MAX: usize = 4096;

/// Bytes that are looked at, at most, above a place where a thread stands: the usual limit of a stack.
const STACK: u64 = 8 << 20;

/// Longest area, with AMX; what the image's rules allow.
const LONGEST: usize = 64 << 10;

/// How often a handler's own stack leads to another one.
const HOPS: usize = 4;

/// Where the context lies below the area (`struct rt_sigframe`: the area is aligned to 64, the frame put right below it).
const CONTEXT: u64 = 448;

/// A place where a thread stands, or stood when a signal came.
type Place = [u64; 2];

/// Whom to ask, and what is known.
struct Search<'a, T> {
    target: &'a T,
    vmas: &'a [Vma],
    runs: &'a [Run],
    components: &'a [Component],
    block: &'a mut [u8],
    found: &'a mut [SignalFrame],
    count: usize,
}

/// Writes the frames' table. Returns what a reader must know, and the components that they hold.
///
/// # Errors
/// No room.
pub fn save<T: Target>(
    save: &mut Save<'_, '_, T>,
    threads: &impl Threads,
    vmas: &[Vma],
    runs: &[Run],
    components: &[Component],
) -> Result<(Features, u64)> {
    let mut search = Search {
        vmas,
        runs: pages::of_memory(runs),
        components,
        block: save.scratch.bytes(16 << 10)?,
        found: save.scratch.take(FRAMES_MAX)?,
        count: 0,
        target: &*save.target,
    };
    let places = save.scratch.take::<Place>(threads.count() + FRAMES_MAX)?;
    let (mut from, mut to) = (0, threads.count());
    for (i, place) in places.iter_mut().enumerate().take(to) {
        let record = threads.get(i).record;
        let at = record.jmp.rsp.get();
        let own = record.altstack_sp.get()..record.altstack_sp.get().saturating_add(record.altstack_size.get());
        *place = [at, if own.contains(&at) { own.end } else { u64::MAX }];
    }
    for _ in 0..HOPS {
        if from == to {
            break;
        }
        let (now, next) = places.split_at_mut_checked(to).ok_or(Full)?;
        let now = now.get_mut(from..).unwrap_or_default();
        now.sort_unstable();
        let mut met = 0;
        let mut last = 0u64;
        for [at, end] in now.iter().copied() {
            let range = search.stack(at, end);
            // What lies on two stacks is looked at once, but for an area that begins in the part that was seen already.
            let range = range.start.max(last.saturating_sub(PAGE))..range.end;
            last = last.max(range.end);
            search.look(range, &mut |place| {
                if let Some(slot) = next.get_mut(met) {
                    *slot = [place, u64::MAX];
                    met += 1;
                }
            })?;
        }
        (from, to) = (to, to + met);
    }
    let found = search.found.get_mut(..search.count).unwrap_or_default();
    found.sort_unstable_by_key(|frame| frame.at.get());
    let (mut least, mut held) = (0, 0);
    save.notes.begin(NoteType::SignalFrame)?;
    for frame in found.iter() {
        // One that was met twice, or remains of an older one.
        if frame.at.get() >= least {
            save.notes.push(frame)?;
            least = frame.at.get() + u64::from(frame.len.get());
            held |= frame.present.get();
        }
    }
    save.notes.end()?;
    Ok((if least == 0 { Features::empty() } else { Features::SIGNAL_FRAMES }, held))
}

impl<T: Target> Search<'_, T> {
    /// What is looked at of the stack on which somebody stands at `at`.
    fn stack(&self, at: u64, end: u64) -> Range<u64> {
        let vma = self.vmas.get(self.vmas.partition_point(|vma| vma.end.get() <= at));
        let own = |vma: &&Vma| {
            let private = vma.prot.get() & PROT_WRITE != 0 && vma.kind.get() < VmaKind::FileShared as u32;
            private && vma.start.get() <= at
        };
        vma.filter(own).map_or(0..0, |vma| at..vma.end.get().min(end).min(at.saturating_add(STACK)))
    }

    /// Looks at what is saved of a range; `met` gets each other address at which a thread stopped.
    fn look(&mut self, range: Range<u64>, met: &mut impl FnMut(u64)) -> Result<()> {
        let first = self.runs.partition_point(|run| run.addr + run.len <= range.start);
        let runs = self.runs.get(first..).unwrap_or_default();
        for run in runs.iter().take_while(|run| run.addr < range.end) {
            let mut at = run.addr.max(range.start & !(PAGE - 1));
            let end = (run.addr + run.len).min(range.end);
            while at < end {
                let len = ((end - at) as usize).min(self.block.len());
                if self.target.read_memory(at, self.block.get_mut(..len).ok_or(Full)?).is_err() {
                    break;
                }
                for line in (0..len).step_by(64) {
                    // The magic number lies in the eighth line of an area.
                    let word = self.block.get(line + SW_BYTES % 64..).and_then(|line| line.first_chunk());
                    let area = (at + line as u64).wrapping_sub(SW_BYTES as u64 / 64 * 64);
                    if word == Some(&FP_XSTATE_MAGIC1.to_le_bytes())
                        && range.contains(&area)
                        && let Some(frame) = self.frame(area)
                        // Without its context it is what remains of an older one, and other data may lie in it.
                        && let Some(place) = self.interrupted(area)
                    {
                        *self.found.get_mut(self.count).ok_or(Full)? = frame;
                        self.count += 1;
                        if !range.contains(&place) {
                            met(place);
                        }
                    }
                }
                at += len as u64;
            }
        }
        Ok(())
    }

    fn read<const LEN: usize>(&self, at: u64) -> Option<[u8; LEN]> {
        let mut bytes = [0; LEN];
        self.target.read_memory(at, &mut bytes).ok().map(|()| bytes)
    }

    /// The area at this address, if the kernel would take it.
    fn frame(&self, at: u64) -> Option<SignalFrame> {
        let head = self.read::<FIXED>(at)?;
        let word = |at: usize| head.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let (extended, features, len) = (word(SW_BYTES + 4), long(SW_BYTES + 8), word(SW_BYTES + 16));
        let zeros = head.get(XSTATE_BV + 8..).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        let present = long(XSTATE_BV);
        if !(FIXED..=LONGEST).contains(&(len as usize)) || extended.checked_sub(4) != Some(len) || !zeros {
            return None;
        }
        if present & !(features | 0b11) != 0 || self.read(at + u64::from(len))? != FP_XSTATE_MAGIC2.to_le_bytes() {
            return None;
        }
        let mut held = present & 0b11;
        for one in self.components.iter().filter(|one| present >> one.number.get() & 1 != 0) {
            let fits = one.at.get().checked_add(one.len.get()).is_some_and(|end| end <= len);
            // Not every CPU tells what is in use: what holds zeros is as after a reset.
            if fits && !self.is_zero(at + u64::from(one.at.get()), u64::from(one.len.get())) {
                held |= 1 << one.number.get();
            }
        }
        Some(SignalFrame { at: at.into(), present: held.into(), len: len.into(), reserved: 0.into() })
    }

    fn is_zero(&self, at: u64, len: u64) -> bool {
        (at..at + len).step_by(64).all(|here| {
            let mut bytes = [0; 64];
            let part = bytes.get_mut(..(at + len - here).min(64) as usize).unwrap_or_default();
            self.target.read_memory(here, part).is_ok() && bytes == [0; 64]
        })
    }

    /// The stack pointer of what was interrupted, when the context still stands below the area.
    fn interrupted(&self, area: u64) -> Option<u64> {
        let context = area.checked_sub(CONTEXT)? + offset_of!(Ucontext, mcontext) as u64;
        let word = |at: usize| self.read(context + at as u64).map(u64::from_le_bytes);
        let own = word(offset_of!(Sigcontext, fpstate))? == area;
        word(offset_of!(Sigcontext, rsp)).filter(|_| own)
    }
}
