//! System V semaphore sets that a process was the last to use.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::{StrRef, record};

record! {
    /// A set that is to be there with its id and its values. It begins as the kernel's `struct semid64_ds`.
    Semaphore, Semaphore, 128, {
        /// The key; 0 where it has none.
        key: U32,
        /// Owner.
        uid: U32,
        /// Owner's group.
        gid: U32,
        /// Who made it.
        cuid: U32,
        /// Group of who made it.
        cgid: U32,
        /// Permission bits.
        mode: U32,
        /// A part of the id.
        seq: U16,
        /// Zero.
        pad: [u8; 22],
        /// Last used.
        otime: I64,
        /// Zero.
        unused: U64,
        /// Made, or changed by semctl(2).
        ctime: I64,
        /// Zero.
        unused2: U64,
        /// How many semaphores.
        count: U64,
        /// Zero.
        unused3: [U64; 2],
        /// The id.
        id: U32,
        /// Zero.
        reserved: U32,
        /// The value of each semaphore, as [`values`] reads them.
        values: StrRef,
        /// Who was the last to use each semaphore, as [`users`] reads them: a process of the image, by its own id; 0: another one.
        users: StrRef,
    }
}

impl Semaphore {
    /// The bytes at its beginning that tell, with the number of semaphores, whether a set is this one: owner, mode and id.
    pub const IDENTITY: usize = 48;
    /// Most semaphores of a set: what semop(2) can number.
    pub const COUNT_MAX: u64 = 1 << 16;
    /// The greatest value (`SEMVMX`).
    pub const VALUE_MAX: u16 = 32_767;

    /// Whether the kernel's `struct semid64_ds` tells of this set.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.as_bytes().get(..Self::IDENTITY) == other.as_bytes().get(..Self::IDENTITY) && self.count == other.count
    }
}

/// The values that a string holds, as the kernel takes them for a whole set; none for one of another length.
#[must_use]
pub fn values(bytes: &[u8]) -> &[U16] {
    <[U16]>::ref_from_bytes(bytes).unwrap_or_default()
}

/// The users that a string holds; none for one of another length.
#[must_use]
pub fn users(bytes: &[u8]) -> &[U32] {
    <[U32]>::ref_from_bytes(bytes).unwrap_or_default()
}
