//! Character devices that hold no state: `/dev/null`, `/dev/zero`, `/dev/full`, `/dev/random`, `/dev/urandom`.

use zerocopy::little_endian::{U32, U64};

use super::{StrRef, record};

record! {
    /// An open file description of such a device.
    Device, Device, 36, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// `st_rdev`.
        rdev: U64,
        /// Absolute path.
        path: StrRef,
        /// Permission bits.
        mode: U32,
        /// Owner.
        uid: U32,
        /// Group.
        gid: U32,
    }
}
