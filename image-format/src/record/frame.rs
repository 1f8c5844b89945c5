//! A thread's full register frame: all that a thread had which was stopped from outside, between any two instructions.

use zerocopy::little_endian::{U32, U64};

use super::record;

/// General registers of a [`Frame`].
pub const REGS: usize = 27;

record! {
    /// Where a component of the extended state lies in the areas of [`Frame`]s: not every CPU keeps it at the same place.
    Component, Component, 16, {
        /// Its number, the bit in XCR0: 2 is AVX. x87 and SSE, 0 and 1, have the same place everywhere.
        number: U32,
        /// Offset in the area, bytes.
        at: U32,
        /// Bytes.
        len: U32,
        /// Zero.
        reserved: U32,
    }
}

record! {
    /// The registers of the thread at the same place in the table of threads.
    Frame, Frame, 232, {
        /// `struct user_regs_struct`: r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax,
        /// rip, cs, eflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs.
        regs: [U64; REGS],
        /// Where the bytes of this thread's `NT_X86_XSTATE` note begin, from the first byte of the notes.
        xstate_at: U64,
        /// Their number; 0 when there are none.
        xstate_len: U32,
        /// Zero.
        reserved: U32,
    }
}
