//! A thread: its jmp context and what the kernel keeps for it.

use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::record;

/// The saved jmp context: what a call may rely on (System V ABI), and what hangs on the thread.
///
/// Restoring it makes the call that saved it return for the second time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Jmp {
    /// RBX.
    pub rbx: U64,
    /// RBP.
    pub rbp: U64,
    /// R12.
    pub r12: U64,
    /// R13.
    pub r13: U64,
    /// R14.
    pub r14: U64,
    /// R15.
    pub r15: U64,
    /// RSP as it is after the return.
    pub rsp: U64,
    /// RIP: where to go on.
    pub rip: U64,
    /// MXCSR: SSE control and status.
    pub mxcsr: U32,
    /// x87 control word, in the low 16 bits.
    pub x87_cw: U32,
    /// FS base: the thread pointer.
    pub fs_base: U64,
    /// GS base.
    pub gs_base: U64,
    /// Blocked signals, bit N-1 for signal N.
    pub sigmask: U64,
}

/// Where the signal for its parent's end lies in a thread's flags.
pub const DEATH_SIGNAL_SHIFT: u32 = 24;

bitflags::bitflags! {
    /// Facts about a thread.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ThreadFlags: u32 {
        /// The process's first thread (tid = pid).
        const LEADER = 1;
        /// The thread that made the save.
        const CURRENT = 1 << 1;
        /// The word at the tid address held the thread's id (glibc's cached tid): store the new id there.
        const TID_WORD = 1 << 2;
    }
}

record! {
    /// One thread.
    Thread, Thread, 192, {
        /// Thread id when it was saved.
        tid: U32,
        /// [`ThreadFlags`], and in the topmost byte the signal that it gets when its parent ends (`PR_SET_PDEATHSIG`; 0 for none).
        flags: U32,
        /// Registers and mask.
        jmp: Jmp,
        /// `ss_sp` of the alternate signal stack.
        altstack_sp: U64,
        /// `ss_size`.
        altstack_size: U64,
        /// `ss_flags`.
        altstack_flags: I32,
        /// Signature of the rseq area.
        rseq_sig: U32,
        /// The word cleared and woken at the thread's end (set_tid_address(2)); 0 for none.
        tid_address: U64,
        /// Head of the robust futex list; 0 for none.
        robust_list: U64,
        /// Its length argument.
        robust_len: U64,
        /// The registered rseq area; 0 for none.
        rseq: U64,
        /// Its length.
        rseq_len: U32,
        /// Timer slack, nanoseconds (`PR_SET_TIMERSLACK`); 0 when it is not known.
        timer_slack: U32,
        /// Name, padded with NUL (`/proc/PID/comm`).
        comm: [u8; 16],
        /// Where the C library or the language's runtime keeps the thread's id besides the tid address; 0 for nowhere.
        runtime_tid: U64,
    }
}
