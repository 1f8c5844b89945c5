//! Who gets a signal when a descriptor has news (`F_SETOWN`, `F_SETSIG`, `O_ASYNC`).

use zerocopy::little_endian::U32;

use super::record;

/// In [`Sigio::how`]: what the owner is, as `F_SETOWN_EX` numbers it: 0 a thread, 1 a process, 2 a process group.
pub const KIND: u32 = 3;
/// It is signal-driven (`O_ASYNC`).
pub const DRIVEN: u32 = 4;
/// The owner is the process group of the tree's root, whichever that is.
pub const ROOT_GROUP: u32 = 8;

record! {
    /// An open file description that has an owner or a signal for its news, or is signal-driven.
    Sigio, Sigio, 16, {
        /// Its id.
        id: U32,
        /// Who gets the signal; 0 for nobody, and with [`ROOT_GROUP`].
        owner: U32,
        /// The signal (`F_SETSIG`); 0 for SIGIO without details.
        signal: U32,
        /// [`KIND`], [`DRIVEN`], [`ROOT_GROUP`].
        how: U32,
    }
}
