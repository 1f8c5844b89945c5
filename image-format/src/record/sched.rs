//! Scheduling of threads, and the CPUs that they keep to.

use zerocopy::little_endian::{I32, U32, U64};

use super::record;

record! {
    /// A thread's scheduling, when it is not the default one: `struct sched_attr` (sched_setattr(2)) with the thread's id in the place
    /// of its size, and the I/O priority.
    Sched, Sched, 56, {
        /// The thread's id.
        tid: U32,
        /// `SCHED_*`.
        policy: U32,
        /// `SCHED_FLAG_*`.
        flags: U64,
        /// Nice value, -20 to 19.
        nice: I32,
        /// Real-time priority, 1 to 99, or 0.
        priority: U32,
        /// `SCHED_DEADLINE`: nanoseconds of work in a period.
        runtime: U64,
        /// `SCHED_DEADLINE`: nanoseconds until it must be done.
        deadline: U64,
        /// `SCHED_DEADLINE`: nanoseconds of a period.
        period: U64,
        /// Class and level of ioprio_set(2); 0 when none was set.
        io_priority: U32,
        /// Zero.
        reserved: U32,
    }
}

/// One past the greatest number of a CPU (`NR_CPUS` is at most that on x86).
pub const CPUS_MAX: u32 = 8192;

record! {
    /// 64 CPUs that a thread keeps to (sched_setaffinity(2)), of a thread that keeps to others than its process's parent does.
    Affinity, Affinity, 16, {
        /// The thread's id.
        tid: U32,
        /// Number of the first of them, a multiple of 64 below [`CPUS_MAX`].
        first: U32,
        /// Bit N for CPU `first` + N.
        cpus: U64,
    }
}
