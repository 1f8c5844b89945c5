//! What a thread may call: seccomp filters, as their programs were installed, or strict mode.

use zerocopy::little_endian::{U16, U32, U64};

use super::record;

/// Most instructions of a filter (`BPF_MAXINSNS`).
pub const PROGRAM_MAX: usize = 4096;

/// Most instructions of all filters of a thread, with [`FILTER_COST`] for each (`MAX_INSNS_PER_PATH`).
pub const CHAIN_MAX: usize = (1 << 18) / 8;

/// What the kernel counts for a filter besides its instructions.
pub const FILTER_COST: usize = 4;

/// How a step is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `PR_SET_NO_NEW_PRIVS`, which installing a filter takes of those who are not privileged.
    NoNewPrivs,
    /// A filter, by seccomp(2).
    Filter,
    /// A filter with `SECCOMP_FILTER_FLAG_LOG`.
    LoggingFilter,
    /// A filter, by prctl(2): a filter before it forbids seccomp(2).
    FilterByPrctl,
    /// A filter that all threads of the process share (`SECCOMP_FILTER_FLAG_TSYNC`): a step of the first thread's.
    SharedFilter,
    /// The same with `SECCOMP_FILTER_FLAG_LOG`.
    SharedLoggingFilter,
    /// Strict mode.
    Strict,
}

impl How {
    const ALL: [Self; 7] = [
        Self::NoNewPrivs,
        Self::Filter,
        Self::LoggingFilter,
        Self::FilterByPrctl,
        Self::SharedFilter,
        Self::SharedLoggingFilter,
        Self::Strict,
    ];

    /// Number and first two arguments of the call (x86_64: prctl(2), seccomp(2)).
    #[must_use]
    pub const fn call(self) -> [u32; 3] {
        match self {
            Self::NoNewPrivs => [157, 38, 1],
            Self::Filter => [317, 1, 0],
            Self::LoggingFilter => [317, 1, 2],
            Self::FilterByPrctl => [157, 22, 2],
            Self::SharedFilter => [317, 1, 1],
            Self::SharedLoggingFilter => [317, 1, 3],
            Self::Strict => [157, 22, 1],
        }
    }

    /// The step that makes this call.
    #[must_use]
    pub fn of(step: &Seccomp) -> Option<Self> {
        let call = [step.number.get(), step.first.get(), step.second.get()];
        Self::ALL.into_iter().find(|how| how.call() == call)
    }

    /// Whether it has a program.
    #[must_use]
    pub const fn is_filter(self) -> bool {
        !matches!(self, Self::NoNewPrivs | Self::Strict)
    }

    /// Whether all threads have it by this one step.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::SharedFilter | Self::SharedLoggingFilter)
    }

    /// The step by which all threads have a filter, in the place of one of each.
    #[must_use]
    pub const fn shared(self) -> Option<Self> {
        match self {
            Self::Filter => Some(Self::SharedFilter),
            Self::LoggingFilter => Some(Self::SharedLoggingFilter),
            _ => None,
        }
    }
}

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
    /// A step that restricts a thread: a call as it is made at the restart, by then followed by the others and the programs. Those of
    /// a thread lie together, the oldest first, in the order of the threads. The last record has a `tid` of 0 and is no step: its
    /// `first` is 1 where a step takes privilege.
    Seccomp, Seccomp, 40, {
        /// Number of the call ([`How`]).
        number: U32,
        /// Its first argument.
        first: U32,
        /// Its second.
        second: U32,
        /// The thread's id at the save.
        tid: U32,
        /// Its third, where there is a program: where the next field lies, in bytes from the first record. Else 0.
        third: U64,
        /// How many instructions the program has; 0: there is none.
        len: U64,
        /// Where it begins, in bytes from the first record; the programs follow the last one.
        at: U64,
    }
}
