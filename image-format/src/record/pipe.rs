//! Pipes and FIFOs: those that lead outside are inherited at restart, those inside the process are made again.

use zerocopy::little_endian::{U32, U64};

use super::{StrRef, record};

/// In [`PipeData`]: nobody has that end.
pub const CLOSED: u32 = u32::MAX;

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
        /// 1 for an end of a pipe without a name that was opened again by way of another one (`/dev/fd/N`).
        again: U32,
    }
}

record! {
    /// What a pipe inside the process holds: one record, or one for each packet.
    PipeData, PipeData, 24, {
        /// Id of the [`Pipe`] that is the end for reading, or [`CLOSED`].
        read: U32,
        /// Id of the end for writing, or [`CLOSED`].
        write: U32,
        /// Bytes in the strings' note.
        bytes: StrRef,
        /// Size of the pipe's buffer, bytes (`F_GETPIPE_SZ`).
        size: U32,
        /// 1 when the bytes are a packet (`O_DIRECT`).
        packet: U32,
    }
}
