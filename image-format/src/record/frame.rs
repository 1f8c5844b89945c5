//! A thread's full register frame: all that a thread had which was stopped from outside, between any two instructions. And what
//! the kernel has put on its stack for a signal handler that was running.

use zerocopy::little_endian::{U32, U64};

use super::record;

/// General registers of a [`Frame`].
pub const REGS: usize = 27;

record! {
    /// Where a component of the extended state lies in the areas of [`Frame`]s and [`SignalFrame`]s: not every CPU keeps it at
    /// the same place.
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

record! {
    /// The extended state of code that a signal has interrupted, as the kernel has put it into the program's memory: the handler
    /// was running still. Another CPU's kernel would not take it as it is.
    SignalFrame, SignalFrame, 24, {
        /// Address of the XSAVE area, in memory of the program's own that can be written.
        at: U64,
        /// Its components that hold something.
        present: U64,
        /// Bytes of the area (`xstate_size` in `struct _fpx_sw_bytes`); `FP_XSTATE_MAGIC2` lies behind them.
        len: U32,
        /// Zero.
        reserved: U32,
    }
}
