//! A thread's full register frame: all that a thread had which was stopped from outside, between any two instructions.

use zerocopy::little_endian::{U32, U64};

use super::record;

/// General registers of a [`Frame`].
pub const REGS: usize = 27;

record! {
    /// The registers of the thread at the same place in the table of threads.
    Frame, Frame, 232, {
        /// `struct user_regs_struct`: see [`Regs`].
        regs: [U64; REGS],
        /// Where the bytes of this thread's `NT_X86_XSTATE` note begin, from the first byte of the notes.
        xstate_at: U64,
        /// Their number; 0 when there are none.
        xstate_len: U32,
        /// Zero.
        reserved: U32,
    }
}

/// The registers by name, in the order of `struct user_regs_struct` (arch/x86/include/asm/user_64.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct Regs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The number of the system call under way; told, not restored.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

impl Frame {
    /// The registers by name.
    #[must_use]
    #[rustfmt::skip] // One line of the kernel's structure each.
    pub fn regs(&self) -> Regs {
        let [
            r15, r14, r13, r12, rbp, rbx,
            r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi,
            orig_rax, rip, cs, eflags, rsp, ss,
            fs_base, gs_base, ds, es, fs, gs,
        ] = self.regs.map(U64::get);
        Regs {
            r15, r14, r13, r12, rbp, rbx,
            r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi,
            orig_rax, rip, cs, eflags, rsp, ss,
            fs_base, gs_base, ds, es, fs, gs,
        }
    }
}
