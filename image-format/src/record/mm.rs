//! What the kernel keeps for the whole address space: where code, data, heap, stack, arguments lie.

use zerocopy::little_endian::U64;

use super::{StrRef, record};

record! {
    /// The mm fields (`struct prctl_mm_map`, include/uapi/linux/prctl.h); all are addresses.
    Mm, Mm, 104, {
        /// Start of the executable's code.
        start_code: U64,
        /// End of it.
        end_code: U64,
        /// Start of initialised data.
        start_data: U64,
        /// End of it.
        end_data: U64,
        /// Start of the heap.
        start_brk: U64,
        /// The program break.
        brk: U64,
        /// Bottom of the main stack.
        start_stack: U64,
        /// Start of the arguments' strings.
        arg_start: U64,
        /// End of them.
        arg_end: U64,
        /// Start of the environment's strings.
        env_start: U64,
        /// End of them.
        env_end: U64,
        /// Path of the executable.
        exe: StrRef,
        /// Zero.
        reserved: U64,
    }
}
