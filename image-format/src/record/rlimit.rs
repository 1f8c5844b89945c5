//! Resource limits.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// One limit of getrlimit(2).
    Rlimit, Rlimit, 24, {
        /// `RLIMIT_*`.
        resource: U32,
        /// Zero.
        reserved: U32,
        /// Soft limit; all ones for none.
        soft: U64,
        /// Hard limit; all ones for none.
        hard: U64,
    }
}
