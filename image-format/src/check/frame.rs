//! The rules for full frames: one for each thread, which says of the thread what its own record says, and which a signal
//! frame can be made of that the kernel takes.
//!
//! Must let nothing through that would end the program at its very first instruction: by then it is too late to say so.

use zerocopy::little_endian::U64;

use crate::record::frame::{Component, Frame, SignalFrame};
use crate::record::header::Features;
use crate::record::memory::VmaKind;
use crate::record::thread::Thread;

use super::{Check, Result};
use crate::Rule;

/// `__USER_CS` and `__USER_DS`: the segments of every 64-bit program.
const USER_CS: u64 = 0x33;
const USER_DS: u64 = 0x2b;

/// The legacy area and the header of an XSAVE area: what every one begins with.
const XSTATE_MIN: usize = 576;

/// The most bytes of an XSAVE area: far above what any CPU has without AMX.
const XSTATE_MAX: usize = 16 << 10;

/// The most bytes of one with AMX, whose components have their places, too.
const XSTATE_LARGEST: usize = 64 << 10;

/// Bytes of the magic number behind the area of a signal handler's frame.
const MAGIC2: u64 = 4;

/// `PROT_WRITE`.
const PROT_WRITE: u32 = 2;

/// MXCSR in the legacy area, and the header's bytes that must be zero in the standard format.
const MXCSR: usize = 24;
const HEADER_ZEROS: core::ops::Range<usize> = 520..XSTATE_MIN;

impl Check<'_, '_> {
    /// Jmp contexts or full frames: one of the two, and as many frames as threads.
    pub(super) fn frames(&self, threads: &[Thread]) -> Result {
        let header = self.image.header();
        let frames = self.image.rows::<Frame>();
        let kinds = Features::from_bits_truncate(header.required.get());
        let full = kinds.contains(Features::FULL_FRAME);
        if full == kinds.contains(Features::JMP_CONTEXT) {
            return self.bad(Rule::HeaderRequiresNoneBothJmpContextsFrames, header);
        }
        let mut least = 2;
        for component in self.image.each::<Component>() {
            let number = component.number.get();
            let end = component.at.get().saturating_add(component.len.get()) as usize;
            if number < least || number > 62 || (component.at.get() as usize) < XSTATE_MIN || end > XSTATE_LARGEST {
                return self.bad(Rule::ComponentExtendedStateNoCPU, component);
            }
            least = number + 1;
        }
        if frames.len() != if full { threads.len() } else { 0 } {
            return self.bad(Rule::NotManyFramesHeaderThreadsRequire, header);
        }
        for (frame, thread) in frames.iter().zip(threads) {
            self.frame(frame, thread)?;
        }
        self.signal_frames()
    }

    fn signal_frames(&self) -> Result {
        let mut least = 0;
        for frame in self.image.each::<SignalFrame>() {
            let (at, len, present) = (frame.at.get(), u64::from(frame.len.get()), frame.present.get());
            // Of those that are present each has its place, inside the area.
            let fits = |component: &&Component| {
                let end = u64::from(component.at.get()) + u64::from(component.len.get());
                present >> component.number.get() & 1 != 0 && end <= len
            };
            let known =
                self.image.each::<Component>().filter(fits).fold(0b11, |bits, one| bits | 1 << one.number.get());
            let vma = self.mapping_at(at);
            let inside = vma.is_some_and(|vma| {
                let own = vma.prot.get() & PROT_WRITE != 0 && vma.kind.get() < VmaKind::FileShared as u32;
                own && vma.start.get() <= at && at + len + MAGIC2 <= vma.end.get()
            });
            let sane = (XSTATE_MIN as u64..=XSTATE_LARGEST as u64).contains(&len) && at.is_multiple_of(64);
            if !sane || at < least || !inside || present & !known != 0 || !self.requires(Features::SIGNAL_FRAMES) {
                return self.bad(Rule::SignalHandlerFrameNoKernelMade, frame);
            }
            least = at + len;
        }
        Ok(())
    }

    #[inline(never)] // A smaller frame has shorter addresses.
    fn frame(&self, frame: &Frame, thread: &Thread) -> Result {
        let [.., rip, cs, _, rsp, ss, fs_base, gs_base, ds, es, fs, gs] = &frame.regs;
        let jmp = &thread.jmp;
        // What was checked of the thread's own record holds for the frame.
        if (rip, rsp, fs_base, gs_base) != (&jmp.rip, &jmp.rsp, &jmp.fs_base, &jmp.gs_base) {
            return self.bad(Rule::ThreadFrameSaysSomethingElseThanRecord, frame);
        }
        let flat = |selector: &U64| selector.get() == 0 || selector.get() == USER_DS;
        if cs.get() != USER_CS || ss.get() != USER_DS || !flat(ds) || !flat(es) || fs.get() | gs.get() != 0 {
            return self.bad(Rule::ThreadRunsSegmentsNo64BitProgram, frame);
        }
        if frame.xstate_len.get() == 0 {
            return Ok(());
        }
        let area = self.image.xstate(frame).unwrap_or_default();
        if area.len() < XSTATE_MIN || area.len() > XSTATE_MAX {
            return self.bad(Rule::ThreadXSAVEAreaTooShortTooLongOutsideNotes, frame);
        }
        let mxcsr = area.get(MXCSR..MXCSR + 4).and_then(|b| b.try_into().ok()).map_or(u32::MAX, u32::from_le_bytes);
        let zeros = area.get(HEADER_ZEROS).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        // Either would make the kernel refuse the whole area.
        if mxcsr & !0xffff != 0 || !zeros {
            return self.bad(Rule::ThreadXSAVEAreaReservedBits, frame);
        }
        Ok(())
    }
}
