//! Who gets a signal when a socket has news (`O_ASYNC`).

use zerocopy::little_endian::U32;

use super::record;

record! {
    /// An open file description that is signal-driven, in a tree of processes.
    Sigio, Sigio, 16, {
        /// Its id.
        id: U32,
        /// The process that gets the signal; 0 for none.
        owner: U32,
        /// The signal (`F_SETSIG`); 0 for SIGIO without details.
        signal: U32,
        /// Zero.
        reserved: U32,
    }
}
