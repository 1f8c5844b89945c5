//! Descriptors: numbers that point to open file descriptions, several to one where they were dup'ed.

use zerocopy::little_endian::U32;

use super::record;

record! {
    /// One descriptor.
    Descriptor, Descriptor, 16, {
        /// Its number.
        fd: U32,
        /// Id of the open file description: a [`super::regular::Regular`], a
        /// [`super::directory::Directory`], … with the same id.
        file: U32,
        /// 1 when it closes on exec.
        cloexec: U32,
        /// Zero.
        reserved: U32,
    }
}
