//! Pseudo-terminals: the ends that are inside the process, and what is done with each master so that it becomes what it was.

use zerocopy::little_endian::U32;

use super::{StrRef, record};

record! {
    /// An open file description of either end.
    Pty, Pty, 24, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// Path: `/dev/ptmx`, `/dev/pts/N`.
        path: StrRef,
        /// Number of the terminal: N.
        number: U32,
        /// Id of the master: its own, or a slave's; [`HUNG_UP`]: none, it was hung up.
        master: U32,
    }
}

record! {
    /// A request to a terminal at the restart, when all descriptors are open.
    PtyStep, PtyStep, 24, {
        /// Id of the [`Pty`] that is the master.
        master: U32,
        /// Number of an ioctl(2) that only reads, or [`WRITE`], or [`CHMOD`].
        request: U32,
        /// What it reads; bytes in the strings' note.
        bytes: StrRef,
        /// 1: the slave is opened for it, and closed.
        slave: U32,
        /// How many bytes must come back to the master, and are dropped: the echo tells that all was taken. With [`CHMOD`], the mode.
        echo: U32,
    }
}

/// As a master: there is none any more.
pub const HUNG_UP: u32 = u32::MAX;

/// As a request: the bytes are written.
pub const WRITE: u32 = 0;
/// As a request: the slave's permissions are set.
pub const CHMOD: u32 = 1;
/// The longest [`WRITE`]: of this length most fit into the kernel's queue, which takes buffers of whole powers of two.
pub const WRITE_MAX: usize = 1023;
/// What an ioctl(2) has for its argument: `struct termios`; others need less.
pub const ARGUMENT: usize = 36;

/// Every ioctl(2) that a [`PtyStep`] may make (ioctls.h): `TCSETS`, `TIOCEXCL`, `TIOCSCTTY`, `TIOCSWINSZ`, `TIOCPKT`, `TIOCSPTLCK`.
pub const REQUESTS: [u32; 6] = [0x5402, 0x540c, 0x540e, 0x5414, 0x5420, 0x4004_5431];
