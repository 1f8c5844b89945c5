//! Interval timers.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// One running timer of setitimer(2).
    Itimer, Itimer, 24, {
        /// `ITIMER_REAL` 0, `ITIMER_VIRTUAL` 1, `ITIMER_PROF` 2.
        which: U32,
        /// Zero.
        reserved: U32,
        /// Time to the next expiry, microseconds; never 0.
        value_usec: U64,
        /// Period, microseconds; 0 for a single shot.
        interval_usec: U64,
    }
}
