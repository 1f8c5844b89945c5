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
    /// `bind` to the address in the bytes; it may fail if `a` is 1; a socket file gets mode `b`, unless that is 0.
    Bind = 5,
    /// `listen` with backlog `a`.
    Listen = 6,
    /// `connect` to the address in the bytes, or, if there is none, to the one of socket `a`.
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
}

impl Step {
    /// The step of this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        use Step::{Accept, Bind, Connect, Listen, Make, Option, Pair, Right, Send, Shutdown, To, Wish};
        let all = [Make, Pair, Accept, Option, Bind, Listen, Connect, Right, To, Send, Shutdown, Wish];
        all.into_iter().find(|step| *step as u32 == number)
    }
}
