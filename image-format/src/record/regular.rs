//! Open regular files.

use zerocopy::little_endian::{U32, U64};

use super::{Identity, StrRef, record};

record! {
    /// An open file description of a regular file.
    Regular, Regular, 72, {
        /// Its id, unique among all descriptions.
        id: U32,
        /// `O_*` flags as F_GETFL gives them, plus `O_PATH`.
        flags: U32,
        /// Offset in bytes.
        offset: U64,
        /// Absolute path.
        path: StrRef,
        /// The file as it was.
        identity: Identity,
        /// Zero.
        reserved: U64,
    }
}
