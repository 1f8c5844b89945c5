//! Open directories.

use zerocopy::little_endian::{U32, U64};

use super::{StrRef, record};

record! {
    /// An open file description of a directory.
    Directory, Directory, 24, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// Position, as the file system numbers it.
        offset: U64,
        /// Absolute path; with a slash at its end: it was removed.
        path: StrRef,
    }
}
