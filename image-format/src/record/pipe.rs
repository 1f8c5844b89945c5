//! Pipes and FIFOs: those that lead outside are inherited at restart, those inside the process are made again.

use zerocopy::little_endian::U32;

use super::{StrRef, record};

/// In [`Pipe::next`]: there is none.
pub const NONE: u32 = u32::MAX;

/// In [`Pipe::how`]: the end was opened by a name (of a FIFO, or `/dev/fd/N`), not made by pipe(2).
pub const OPENED: u32 = 1;

/// In [`Pipe::how`]: poll(2) tells that nobody has the other side (any more).
pub const HUNG_UP: u32 = 2;

record! {
    /// One end of a pipe.
    Pipe, Pipe, 32, {
        /// Its id.
        id: U32,
        /// `O_*` flags; the access mode tells the end.
        flags: U32,
        /// Path of a FIFO, also when nothing is there any more; or `pipe:[N]`.
        path: StrRef,
        /// The least id of an end of the same pipe.
        pipe: U32,
        /// The next greater id of an end of the same pipe, or [`NONE`].
        next: U32,
        /// 1 for a FIFO with a name.
        named: U32,
        /// [`OPENED`], [`HUNG_UP`].
        how: U32,
    }
}

record! {
    /// A pipe inside the process, and what it holds: one record, or one for each packet.
    PipeData, PipeData, 32, {
        /// [`Pipe::pipe`] of its ends.
        pipe: U32,
        /// 1 when the bytes are a packet (`O_DIRECT`).
        packet: U32,
        /// Bytes in the strings' note.
        bytes: StrRef,
        /// Size of the pipe's buffer, bytes (`F_GETPIPE_SZ`).
        size: U32,
        /// Permission bits.
        mode: U32,
        /// Owner.
        uid: U32,
        /// Group.
        gid: U32,
    }
}
