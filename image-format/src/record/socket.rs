//! Sockets, and the calls that make each what it was.

use zerocopy::little_endian::U32;

use super::{StrRef, record};

/// Ids from here on are those of sockets that exist at the restart only, to make others: no descriptor leads to them.
pub const HELPERS: u32 = 1 << 31;

record! {
    /// An open file description of a socket.
    Socket, Socket, 32, {
        /// Its id.
        id: U32,
        /// `O_*` flags.
        flags: U32,
        /// In words: `tcp 127.0.0.1:80`.
        name: StrRef,
        /// `AF_*`.
        family: U32,
        /// `SOCK_*`.
        kind: U32,
        /// `IPPROTO_*`, `NETLINK_*`.
        protocol: U32,
        /// Zero.
        reserved: U32,
    }
}

record! {
    /// A call on a socket at the restart.
    SocketStep, SocketStep, 24, {
        /// Place of the [`Socket`] in its table, from 0 on.
        socket: U32,
        /// [`Step`].
        step: U32,
        /// See [`Step`].
        a: U32,
        /// See [`Step`].
        b: U32,
        /// Bytes in the strings' note: see [`Step`].
        bytes: StrRef,
    }
}

/// What a [`SocketStep`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// `socket(family, kind, protocol)`.
    Make = 1,
    /// `socketpair`: the other one is socket `a` (its place in the table, here and below).
    Pair = 2,
    /// `accept` of socket `b`'s connection from socket `a`.
    Accept = 3,
    /// `setsockopt` of level `a`, option `b` to the bytes.
    Option = 4,
    /// `bind` to the address in the bytes; it may fail if `a` is 1, and then replaces no file.
    Bind = 5,
    /// `listen` with backlog `a`.
    Listen = 6,
    /// `connect` to the address in the bytes; or, if there are none, to the one of socket `a`.
    Connect = 7,
    /// Open file `a` goes along with the next message; a socket by its place if `b` is 1, else by its id.
    Right = 8,
    /// The next message goes to the address in the bytes.
    To = 9,
    /// `sendmsg` of the bytes.
    Send = 10,
    /// `shutdown(a)`.
    Shutdown = 11,
    /// [`Step::Option`] that may fail.
    Wish = 12,
    /// `close` of a socket that only helped.
    Close = 13,
    /// The socket file at the path in the bytes is removed, if the last [`Step::Bind`] to a path made it: it is there only so that a
    /// socket has its name.
    Unlink = 14,
    /// The socket file at the path in the bytes gets owner `a` and group `b`, where the user of the restart may give it these.
    Owner = 15,
    /// Waits until `a` bytes wait to be read.
    Arrive = 16,
    /// Waits until option `b` of level `a` is a number whose lowest byte is at least the one in the bytes.
    Reach = 17,
    /// Paths from now on are relative to the directory in the bytes; if there are none, to the one before again.
    Within = 18,
    /// Attaches the packet filter in the bytes, eight for each instruction.
    Filter = 19,
    /// The socket file at the path in the bytes gets mode `a`.
    Mode = 20,
}

/// Most bytes of a packet filter.
pub const FILTER_MAX: usize = 8 * 4096;

impl Step {
    /// The step of this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Make,
            2 => Self::Pair,
            3 => Self::Accept,
            4 => Self::Option,
            5 => Self::Bind,
            6 => Self::Listen,
            7 => Self::Connect,
            8 => Self::Right,
            9 => Self::To,
            10 => Self::Send,
            11 => Self::Shutdown,
            12 => Self::Wish,
            13 => Self::Close,
            14 => Self::Unlink,
            15 => Self::Owner,
            16 => Self::Arrive,
            17 => Self::Reach,
            18 => Self::Within,
            19 => Self::Filter,
            20 => Self::Mode,
            _ => return None,
        })
    }
}
