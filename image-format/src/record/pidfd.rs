//! pidfd_open(2), of the process itself or of another one of its tree.

use zerocopy::little_endian::U32;

use super::record;

record! {
    /// An open file description that stands for the process itself, or for that of a [`PidfdOf`].
    Pidfd, Pidfd, 8, {
        /// Its id.
        id: U32,
        /// `O_*` flags; `O_EXCL` for its first thread (`PIDFD_THREAD`).
        flags: U32,
    }
}

record! {
    /// The other process of the tree that a [`Pidfd`] stands for.
    PidfdOf, PidfdOf, 8, {
        /// The pidfd's id.
        id: U32,
        /// The process.
        pid: U32,
    }
}
