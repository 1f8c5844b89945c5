//! A moment until which a thread waits in a call that will be made again: where the clock is another one, it is moved.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// A `struct timespec` of the program's.
    Deadline, Deadline, 16, {
        /// Its address.
        at: U64,
        /// The clock: `CLOCK_MONOTONIC` (1) or `CLOCK_BOOTTIME` (7).
        clock: U32,
        /// The thread.
        tid: U32,
    }
}
