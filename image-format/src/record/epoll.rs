//! epoll(7) sets, and what they watch.

use zerocopy::little_endian::{U32, U64};

use super::record;

record! {
    /// An open file description of an epoll set.
    Epoll, Epoll, 8, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
    }
}

record! {
    /// One descriptor that an epoll set watches.
    Watch, Watch, 24, {
        /// Id of the set, an [`Epoll`].
        epoll: U32,
        /// The number under which it was added. The program may have closed or re-used that since.
        fd: U32,
        /// Id of the open file description that is watched.
        file: U32,
        /// `EPOLL*`.
        events: U32,
        /// The program's own word.
        data: U64,
    }
}
