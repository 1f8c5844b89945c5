//! POSIX timers.

use zerocopy::little_endian::{I32, U32, U64};

use super::record;

/// The numbers by which the kernel lists timers of CPU-time clocks (`make_process_cpuclock(0, CPUCLOCK_SCHED)`, and of a thread;
/// include/linux/posix-timers.h): the own process, the thread that has made the timer.
pub const PROCESS_CPU: i32 = -6;
/// As above.
pub const THREAD_CPU: i32 = -2;

record! {
    /// One timer of timer_create(2).
    PosixTimer, PosixTimer, 48, {
        /// Its id.
        id: U32,
        /// Its clock.
        clock: I32,
        /// `sigev_signo`.
        signal: U32,
        /// `sigev_notify`: `SIGEV_SIGNAL` 0, `SIGEV_NONE` 1, `SIGEV_THREAD_ID` 4.
        notify: U32,
        /// The thread that gets the signal, with `SIGEV_THREAD_ID`; else 0.
        tid: U32,
        /// With [`THREAD_CPU`] the thread whose processor time it counts; 0: the one that makes it, which is the only one.
        owner: U32,
        /// `sigev_value`.
        value: U64,
        /// Time to the next expiry, nanoseconds; 0: not running.
        left_nsec: U64,
        /// Period, nanoseconds; 0 for a single shot.
        interval_nsec: U64,
    }
}
