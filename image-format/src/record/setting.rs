//! What a process has set for itself by prctl(2), and by files of its own in `/proc`.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// One value that is not the default.
    Setting, Setting, 16, {
        /// A [`Which`], ascending.
        which: U32,
        /// Zero.
        reserved: U32,
        /// Its value.
        value: U64,
    }
}

macro_rules! which {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// What is set; below 0x1_0000 the option by which prctl(2) sets it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Which { $($(#[$doc])* $name = $number,)* }

        /// All of them, ascending.
        pub static WHICH: [u32; [$($number),*].len()] = [$($number),*];

        impl Which {
            /// Its name for people.
            #[must_use]
            pub fn name(which: u32) -> &'static str {
                match which { $($number => $text,)* _ => "unknown" }
            }
        }
    };
}

which! {
    /// `PR_SET_DUMPABLE`.
    Dumpable = 4, "dumpable";
    /// `PR_SET_KEEPCAPS`.
    KeepCaps = 8, "keep-caps";
    /// `PR_SET_TSC`.
    Tsc = 26, "tsc";
    /// `PR_SET_SECUREBITS`.
    SecureBits = 28, "securebits";
    /// `PR_SET_CHILD_SUBREAPER`.
    Subreaper = 36, "child-subreaper";
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivs = 38, "no-new-privs";
    /// `PR_SET_THP_DISABLE`: 1, and flags above it.
    ThpDisable = 41, "thp-disable";
    /// `PR_SET_IO_FLUSHER`.
    IoFlusher = 57, "io-flusher";
    /// `PR_SET_MDWE`.
    Mdwe = 65, "mdwe";
    /// `PR_SET_MEMORY_MERGE`.
    MemoryMerge = 67, "memory-merge";
    /// personality(2).
    Personality = 0x1_0000, "personality";
    /// `/proc/PID/oom_score_adj`; two's complement.
    OomScore = 0x1_0001, "oom-score-adj";
    /// `/proc/PID/coredump_filter`.
    CoredumpFilter = 0x1_0002, "coredump-filter";
    /// `MCL_FUTURE` and `MCL_ONFAULT` of mlockall(2).
    LockFuture = 0x1_0003, "lock-future";
    /// `/proc/PID/loginuid`: who has logged in, as the audit sees it.
    LoginUid = 0x1_0004, "loginuid";
    /// Registered for `MEMBARRIER_CMD_GLOBAL_EXPEDITED`; like those below, 0x2_0000 and the command that registers. The value is 1.
    BarrierGlobal = 0x2_0004, "membarrier-global";
    /// For `MEMBARRIER_CMD_PRIVATE_EXPEDITED`.
    BarrierPrivate = 0x2_0010, "membarrier-private";
    /// For `MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE`.
    BarrierCore = 0x2_0040, "membarrier-sync-core";
    /// For `MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ`.
    BarrierRseq = 0x2_0100, "membarrier-rseq";
}
