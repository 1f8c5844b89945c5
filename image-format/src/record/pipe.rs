//! Pipes and FIFOs whose other end is outside the process: inherited at restart.

use zerocopy::little_endian::{U32, U64};

use super::{StrRef, record};

record! {
    /// One end of a pipe.
    Pipe, Pipe, 32, {
        /// Its id.
        id: U32,
        /// `O_*` flags; the access mode tells the end.
        flags: U32,
        /// Inode, to tell pipes apart.
        ino: U64,
        /// Path of a FIFO, or `pipe:[N]`.
        path: StrRef,
        /// 1 for a FIFO with a name.
        named: U32,
        /// Zero.
        reserved: U32,
    }
}
