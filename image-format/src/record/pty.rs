//! Pseudo-terminals with both ends inside the process.

use zerocopy::little_endian::U32;

use super::{StrRef, record};

/// In `modes`: the slave cannot be opened by its name.
pub const LOCKED: u32 = 1;
/// As above: reads of the master begin with a byte that tells of the slave's state (`TIOCPKT`).
pub const PACKETS: u32 = 2;

record! {
    /// An open file description of either end.
    Pty, Pty, 72, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// Path: `/dev/ptmx`, `/dev/pts/N`.
        path: StrRef,
        /// Number of the terminal: N.
        number: U32,
        /// 0: the master; 1: a slave.
        slave: U32,
        /// `struct termios` of the kernel (TCGETS).
        termios: [u8; 36],
        /// `struct winsize` of the kernel (TIOCGWINSZ).
        size: [u8; 8],
        /// Of the master: [`LOCKED`], [`PACKETS`].
        modes: U32,
    }
}
