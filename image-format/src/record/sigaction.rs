//! What a process does on each signal.

use zerocopy::little_endian::U64;

use super::record;

record! {
    /// The action for one signal (`struct kernel_sigaction`), signals 1 to 64 in order.
    Sigaction, Sigaction, 32, {
        /// 0 default, 1 ignore, or the handler's address.
        handler: U64,
        /// `SA_*` bits.
        flags: U64,
        /// Address of the code that returns from the handler.
        restorer: U64,
        /// Signals blocked meanwhile.
        mask: U64,
    }
}
