//! signalfd(2) descriptors.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// An open file description of a signalfd.
    Signalfd, Signalfd, 16, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// Signals that it takes, bit N-1 for signal N.
        mask: U64,
    }
}
