//! Locks on files: fcntl(2) of the process and of the open file description, flock(2), and leases.

use zerocopy::little_endian::{U32, U64};

use super::record;

/// How a lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LockKind {
    /// `F_SETLK`: the process owns it.
    Posix = 1,
    /// `F_OFD_SETLK`: the open file description owns it.
    Ofd = 2,
    /// `flock`.
    Flock = 3,
    /// `F_SETLEASE`: the open file description has it; the process gets a signal when somebody else opens the file. Requires
    /// [`Features::LEASES`](super::header::Features::LEASES).
    Lease = 4,
}

impl LockKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(n: u32) -> Option<Self> {
        Some(match n {
            1 => Self::Posix,
            2 => Self::Ofd,
            3 => Self::Flock,
            4 => Self::Lease,
            _ => return None,
        })
    }
}

record! {
    /// One lock that is held.
    Lock, Lock, 32, {
        /// A descriptor of the file that it is on.
        fd: U32,
        /// [`LockKind`].
        kind: U32,
        /// 1 for a write lock, 0 for a read lock.
        write: U32,
        /// Of a lease: the signal that tells of its end (`F_SETSIG`), 0 for SIGIO. Else zero.
        signal: U32,
        /// First byte.
        start: U64,
        /// Number of bytes; 0 to the end of the file, however it grows.
        len: U64,
    }
}
