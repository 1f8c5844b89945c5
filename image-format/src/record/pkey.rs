//! Memory protection keys that the process has allocated. Which memory has which says [`super::memory::Vma::key`].

use zerocopy::little_endian::{U32, U64};

use super::record;

/// Greatest number of a key: PKRU has two bits for each.
pub const KEY_MAX: u32 = 15;

record! {
    /// The keys of the process, once if it has any.
    Pkey, Pkey, 16, {
        /// A bit for each key. The first one, which all memory has, is not among them.
        keys: U32,
        /// The key that the kernel has chosen for memory for execution alone; 0: none.
        execute_only: U32,
        /// Zero.
        reserved: U64,
    }
}
