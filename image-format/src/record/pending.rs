//! Signals that were sent and not yet delivered.

use zerocopy::little_endian::U32;

use super::record;

record! {
    /// One pending signal.
    Pending, Pending, 136, {
        /// The thread that it is for; 0 for the process.
        tid: U32,
        /// Zero.
        reserved: U32,
        /// `siginfo_t` as the kernel gave it.
        siginfo: [u8; 128],
    }
}
