//! Words of the program's memory that hold a thread's id: a restart under new ids writes the new one there.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// The low 30 bits of the word at an address are the id of a thread that holds a lock there.
    IdWord, IdWord, 16, {
        /// Address.
        addr: U64,
        /// The thread's id when it was saved; 0 for an entry that is not used.
        tid: U32,
        /// Zero.
        reserved: U32,
    }
}
