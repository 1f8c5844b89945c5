//! What a thread may call: seccomp filters, as their programs were installed, or strict mode.

use zerocopy::little_endian::{U16, U32};

use super::record;

/// Most instructions of a filter (`BPF_MAXINSNS`).
pub const PROGRAM_MAX: u32 = 4096;

/// Most instructions of all filters of a thread, with [`FILTER_COST`] for each (`MAX_INSNS_PER_PATH`).
pub const CHAIN_MAX: u32 = (1 << 18) / 8;

/// What the kernel counts for a filter besides its instructions.
pub const FILTER_COST: u32 = 4;

/// How a step is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum How {
    /// `PR_SET_NO_NEW_PRIVS`, which installing a filter takes of those who are not privileged.
    NoNewPrivs = 0,
    /// A filter, by seccomp(2).
    Filter = 1,
    /// A filter with `SECCOMP_FILTER_FLAG_LOG`.
    LoggingFilter = 2,
    /// A filter, by prctl(2): a filter before it forbids seccomp(2).
    FilterByPrctl = 3,
    /// Strict mode.
    Strict = 4,
}

/// Number of [`How`]s.
pub const HOWS: u32 = 5;

record! {
    /// An instruction of a filter (`struct sock_filter`). All programs lie one behind the other, each once.
    Instruction, Instruction, 8, {
        /// What is done.
        code: U16,
        /// Instructions that are passed over where a comparison holds.
        jt: u8,
        /// And where it does not.
        jf: u8,
        /// A number.
        k: U32,
    }
}

record! {
    /// What restricts a thread. Those of a thread lie together, the oldest first, in the order of the threads.
    Seccomp, Seccomp, 16, {
        /// The thread's id at the save.
        tid: U32,
        /// [`How`].
        how: U32,
        /// The program's first instruction; 0 where there is none.
        at: U32,
        /// How many instructions it has; 0 where there is none.
        len: U32,
    }
}
