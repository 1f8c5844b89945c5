//! System V semaphore sets that a process was the last to use.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{StrRef, record};

record! {
    /// A set that is to be there with its id and its values. It begins as the kernel's `struct semid64_ds`.
    Semaphore, Semaphore, 120, {
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
        /// A [`Value`] for each semaphore among the strings.
        values: StrRef,
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

/// A semaphore of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Value {
    /// Its value.
    pub value: U16,
    /// Zero.
    pub reserved: U16,
    /// The process of the image that was the last to use it, by its own id; 0: another one.
    pub pid: U32,
}

impl Value {
    /// Those that a string holds; none for one of another length.
    #[must_use]
    pub fn all(bytes: &[u8]) -> &[Self] {
        <[Self]>::ref_from_bytes(bytes).unwrap_or_default()
    }
}
