//! eventfd(2) counters.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// An open file description of an eventfd.
    Eventfd, Eventfd, 24, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// What the counter holds.
        count: U64,
        /// 1 with `EFD_SEMAPHORE`: a read takes one.
        semaphore: U32,
        /// Zero.
        reserved: U32,
    }
}
