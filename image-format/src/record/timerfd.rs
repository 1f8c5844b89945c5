//! timerfd_create(2) timers.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// An open file description of a timerfd.
    Timerfd, Timerfd, 56, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// Its clock, `CLOCK_*`.
        clock: U32,
        /// `TFD_TIMER_*` that the value is to be set with: 0, 1 (`TFD_TIMER_ABSTIME`) or 3 (and `TFD_TIMER_CANCEL_ON_SET`).
        settime: U32,
        /// Expiries that were not read yet.
        ticks: U64,
        /// Period, seconds and nanoseconds; 0 for a single shot.
        interval: [U64; 2],
        /// Time to the next expiry, or its moment on the clock, seconds and nanoseconds; 0: not running.
        value: [U64; 2],
    }
}
