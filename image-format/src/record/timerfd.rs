//! timerfd_create(2) timers.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// An open file description of a timerfd.
    Timerfd, Timerfd, 48, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// Its clock, `CLOCK_*`.
        clock: U32,
        /// `TFD_TIMER_*` that `value_nsec` is to be set with: 0, 1 (`TFD_TIMER_ABSTIME`) or 3 (and `TFD_TIMER_CANCEL_ON_SET`).
        settime: U32,
        /// Expiries that were not read yet.
        ticks: U64,
        /// Time to the next expiry, or its moment on the clock, nanoseconds; 0: not running.
        value_nsec: U64,
        /// Period, nanoseconds; 0 for a single shot.
        interval_nsec: U64,
        /// Zero.
        reserved: U64,
    }
}
