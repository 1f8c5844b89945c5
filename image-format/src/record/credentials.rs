//! Users, groups and capabilities of a process.

use zerocopy::little_endian::{U32, U64};

use super::{StrRef, record};

/// Most supplementary groups that are carried.
pub const GROUPS_MAX: usize = 1024;

record! {
    /// The credentials of a process. With feature `CREDENTIALS`, of a tree whose processes have different ones, it gets them at each restart;
    /// else at one by root, where they are another user's.
    Credentials, Credentials, 88, {
        /// User ids: real, effective, saved, for files.
        uid: [U32; 4],
        /// Group ids, in the same order.
        gid: [U32; 4],
        /// Supplementary groups: four bytes each among the strings.
        groups: StrRef,
        /// `PR_GET_DUMPABLE`.
        dumpable: U32,
        /// Zero.
        reserved: U32,
        /// Effective capabilities.
        effective: U64,
        /// Permitted capabilities.
        permitted: U64,
        /// Inheritable capabilities.
        inheritable: U64,
        /// The bounding set.
        bounding: U64,
        /// Ambient capabilities.
        ambient: U64,
    }
}
