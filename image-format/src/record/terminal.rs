//! Terminals: the settings, and which descriptors are terminals.

use zerocopy::little_endian::{U16, U32};

use super::{StrRef, record};

record! {
    /// An open file description of a terminal.
    Terminal, Terminal, 76, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// Path: `/dev/pts/N`, `/dev/tty`, …
        path: StrRef,
        /// `struct termios` of the kernel (TCGETS): `c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc[19]`.
        termios: [u8; 36],
        /// Rows when it was saved (for the curious: the new terminal's size holds).
        rows: U16,
        /// Columns.
        columns: U16,
        /// 1 when it was the controlling terminal.
        controlling: U32,
        /// Zero.
        reserved: [U32; 4],
    }
}
