//! inotify(7): what is watched, under which numbers.

use zerocopy::little_endian::U32;

use super::{StrRef, record};

record! {
    /// An open file description of an inotify instance.
    Inotify, Inotify, 8, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
    }
}

record! {
    /// A watch of one.
    InotifyWatch, InotifyWatch, 24, {
        /// Id of the [`Inotify`].
        inotify: U32,
        /// Its number, 1 or greater.
        wd: U32,
        /// `IN_*`.
        mask: U32,
        /// Zero.
        reserved: U32,
        /// What is watched.
        path: StrRef,
    }
}
