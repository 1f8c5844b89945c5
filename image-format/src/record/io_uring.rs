//! io_uring(7) instances: how each is made, and what its rings hold.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{StrRef, record};

/// `struct io_uring_params` as io_uring_setup(2) fills it: what an instance is made with, and where words lie in its rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct Params {
    pub sq_entries: U32,
    pub cq_entries: U32,
    pub flags: U32,
    pub sq_thread_cpu: U32,
    pub sq_thread_idle: U32,
    pub features: U32,
    pub wq_fd: U32,
    pub reserved: [U32; 3],
    pub sq_head: U32,
    pub sq_tail: U32,
    pub sq_ring_mask: U32,
    pub sq_ring_entries: U32,
    pub sq_flags: U32,
    pub sq_dropped: U32,
    pub sq_array: U32,
    pub sq_reserved: [U32; 3],
    pub cq_head: U32,
    pub cq_tail: U32,
    pub cq_ring_mask: U32,
    pub cq_ring_entries: U32,
    pub cq_overflow: U32,
    pub cq_cqes: U32,
    pub cq_flags: U32,
    pub cq_reserved: [U32; 3],
}
static_assertions::const_assert_eq!(size_of::<Params>(), 120);

/// A word of rings that lies within 256 bytes from their beginning, as all do that the kernel and a program share.
#[must_use]
pub fn word(rings: &[u8], at: U32) -> u32 {
    crate::word::word(rings, at.get() as u8)
}

record! {
    /// An open file description of an io_uring instance.
    IoUring, IoUring, 160, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// `struct io_uring_params` as io_uring_setup(2) fills it for such an instance.
        params: Params,
        /// What the program maps at `IORING_OFF_SQ_RING`, byte for byte, whole pages: heads, tails, completions, the index array.
        rings: StrRef,
        /// The same at `IORING_OFF_SQES`: submissions.
        sqes: StrRef,
        /// Registered buffers: an array of `struct iovec`.
        buffers: StrRef,
        /// Registered files: an array of the program's own descriptors, each 4 bytes; -1: none.
        files: StrRef,
    }
}
