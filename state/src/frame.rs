//! A signal frame, from which rt_sigreturn(2) gives a thread all that it had at once: registers, extended state, mask,
//! alternate stack.
//!
//! Used by the restart, and by the saver to lead a thread back. Layout: arch/x86/include/asm/sigframe.h (`rt_sigframe`),
//! arch/x86/kernel/fpu/signal.c.

use core::mem::offset_of;

use sys::abi::ptrace::UserRegs;
use sys::abi::signal::{
    Altstack, FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, Sigcontext, UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS,
    Ucontext,
};

/// Offset of `struct _fpx_sw_bytes` in an XSAVE area of a frame, and of XCR0 in that of a core.
pub const SW_BYTES: usize = 464;

/// Offset of the XSAVE header, which begins with the components that are present.
pub const XSTATE_BV: usize = 512;

/// Offset of the extended state in the room for a frame, bytes; it must be a multiple of 64.
const STATE_AT: usize = 384;

/// Bytes that a frame needs with an extended state of this length.
#[must_use]
pub const fn size(xstate: usize) -> usize {
    STATE_AT + xstate + 4
}

/// Flags that sigreturn takes from a frame (`FIX_EFLAGS`).
const EFLAGS: u64 = 0x0005_0dd5;

/// Where the general registers begin, r8 to rip, and their places in [`UserRegs`].
const REGS_AT: usize = offset_of!(Ucontext, mcontext);
const ORDER: [u8; 17] = [9, 8, 7, 6, 3, 2, 1, 0, 14, 13, 4, 5, 12, 10, 11, 19, 16];

/// Bytes of an XSAVE area that have the same place everywhere: x87, SSE and the header.
pub const FIXED: usize = 576;

/// A component's place in an area that was saved, and in one of this CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Move {
    /// The component's bit.
    pub bit: u64,
    /// Offset there.
    pub from: u32,
    /// Offset here.
    pub to: u32,
    /// Bytes; 0 for none.
    pub len: u32,
}

/// What becomes of the saved extended states.
#[derive(Clone, Copy, Debug)]
pub struct Xstate<'m> {
    /// The components that are given back.
    pub features: u64,
    /// Bytes of an area of this CPU.
    pub len: u32,
    /// Where they go, but for the two whose places are fixed.
    pub moves: &'m [Move],
}

/// Builds a frame in `to`, zeros, which will lie at address `at`, a multiple of 64. `saved` is an XSAVE area as in a core, or
/// empty. Returns the stack pointer for the sigreturn.
#[must_use]
pub fn build(
    to: &mut [u8],
    at: u64,
    regs: &UserRegs,
    mask: u64,
    stack: Altstack,
    saved: &[u8],
    xstate: &Xstate<'_>,
) -> Option<u64> {
    let mcontext = Sigcontext {
        eflags: regs.eflags & EFLAGS | 0x202,
        cs: regs.cs as u16,
        ss: regs.ss as u16,
        fpstate: if saved.is_empty() { 0 } else { at + STATE_AT as u64 },
        ..Sigcontext::default()
    };
    let flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
    let context = Ucontext { flags, link: 0, stack, mcontext, sigmask: mask };
    put(to, 0, context.as_bytes())?;
    let words = regs.words();
    for (place, number) in (0..).zip(ORDER) {
        put(to, REGS_AT + 8 * place, &words.get(usize::from(number))?.to_le_bytes())?;
    }
    if !saved.is_empty() {
        let len = xstate.len;
        // Of the components that the core had, those that there are here. XRSTOR refuses an area that claims another.
        let word = |at: usize| Some(u64::from_le_bytes(*saved.get(at..)?.first_chunk()?) & xstate.features);
        let (features, present) = (word(SW_BYTES)?, word(XSTATE_BV)?);
        // The magic number, the length with the closing one, the components, the length, zeros.
        let sw = [u64::from(FP_XSTATE_MAGIC1) | u64::from(len + 4) << 32, features, u64::from(len), 0, 0, 0];
        put(to, STATE_AT, saved.get(..FIXED)?)?;
        for Move { from, to: place, len, .. } in xstate.moves {
            let from = *from as usize;
            // A shorter area has no more than that.
            put(to, STATE_AT + *place as usize, saved.get(from..from + *len as usize).unwrap_or_default())?;
        }
        put(to, STATE_AT + SW_BYTES, sw.map(u64::to_le_bytes).as_flattened())?;
        put(to, STATE_AT + XSTATE_BV, &present.to_le_bytes())?;
        put(to, STATE_AT + len as usize, &FP_XSTATE_MAGIC2.to_le_bytes())?;
    }
    // The kernel finds the frame eight bytes below: where a return address would be.
    Some(at)
}

/// What the kernel has put into a program's memory for a signal handler gets the form that this CPU's kernel takes: `area` is an
/// XSAVE area of the saving one and the magic number behind it, `present` what it holds. The kernel takes a smaller area than its own.
pub fn convert(area: &mut [u8], present: u64, xstate: &Xstate<'_>) -> Option<()> {
    let mut kept = present & 0b11;
    // Ascending and downwards: nothing is overwritten that has still to move.
    for one in xstate.moves.iter().filter(|one| one.bit & present != 0 && one.to <= one.from) {
        for i in 0..one.len {
            let byte = *area.get((one.from + i) as usize)?;
            *area.get_mut((one.to + i) as usize)? = byte;
        }
        kept |= one.bit;
    }
    let len = xstate.len.min((area.len() as u32).checked_sub(4)?);
    put(area, XSTATE_BV, &kept.to_le_bytes())?;
    put(area, SW_BYTES + 4, &(len + 4).to_le_bytes())?;
    put(area, SW_BYTES + 16, &len.to_le_bytes())?;
    put(area, len as usize, &FP_XSTATE_MAGIC2.to_le_bytes())
}

/// Puts bytes in their place.
#[inline(never)] // So that it exists once.
fn put(to: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    for (to, from) in to.get_mut(at..at + bytes.len())?.iter_mut().zip(bytes) {
        *to = *from;
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn word(area: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(*area[at..].first_chunk().unwrap())
    }

    /// AVX stays, what is lower there moves, what is missing there or higher is forgotten; the area ends where that CPU's does.
    #[test]
    fn a_frame_gets_another_cpus_form() {
        let mut area = [0; 2696 + 4];
        area[576..832].fill(2);
        area[1088..1152].fill(5);
        area[1152..1664].fill(6);
        area[2688..2696].fill(9);
        let moves = [
            Move { bit: 1 << 2, from: 576, to: 576, len: 256 },
            Move { bit: 1 << 5, from: 1088, to: 832, len: 64 },
            Move { bit: 1 << 6, from: 1152, to: 896, len: 512 },
            Move { bit: 1 << 9, from: 960, to: 2432, len: 8 },
        ];
        let xstate = Xstate { features: 0x267, len: 2440, moves: &moves };
        convert(&mut area, 0x2e7, &xstate).unwrap();
        assert!(area[576..832].iter().all(|b| *b == 2) && area[832..896].iter().all(|b| *b == 5));
        assert!(area[896..1408].iter().all(|b| *b == 6));
        assert_eq!([word(&area, 512), word(&area, 468), word(&area, 480)], [0x67, 2444, 2440]);
        assert_eq!(word(&area, 2440), FP_XSTATE_MAGIC2);
    }

    /// A smaller area keeps its size.
    #[test]
    fn a_smaller_frame_stays() {
        let mut area = [0; 832 + 4];
        let moves = [Move { bit: 1 << 2, from: 576, to: 576, len: 256 }];
        convert(&mut area, 7, &Xstate { features: 0xe7, len: 2696, moves: &moves }).unwrap();
        assert_eq!([word(&area, 512), word(&area, 468), word(&area, 480)], [7, 836, 832]);
        assert_eq!(word(&area, 832), FP_XSTATE_MAGIC2);
        assert!(convert(&mut area[..600], 7, &Xstate { features: 7, len: 832, moves: &moves }).is_none());
    }
}
