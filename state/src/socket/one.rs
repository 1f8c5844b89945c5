//! A socket as it was found, and what becomes of it at the restart.

use sys::Errno;
use sys::abi::net::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP, IPPROTO_UDPLITE,
    SOCK_DGRAM, SOCK_RAW, SOCK_STREAM,
};
use sys::text::Text;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;
use crate::{Error, Object};
use image_format::record::process::FD_MASK;

/// What becomes of a socket at the restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// Bound or not, connected to something outside that needs no connection (UDP) or not.
    Plain = 0,
    /// Listens.
    Listens = 1,
    /// One of two Unix sockets that are connected to each other, whatever made them so.
    Paired = 2,
    /// One of two TCP sockets that are connected to each other: it connects.
    Client = 3,
    /// The other one: it is accepted.
    Accepted = 4,
    /// What is left of a connection whose other side is not saved: a helper takes the other side's place, and leaves.
    Remnant = 5,
    /// Its attempt to connect has failed, and nobody has been told.
    Failed = 6,
    /// It is about to connect.
    Connects = 7,
    /// Connected to a listener that has not accepted it.
    Waits = 8,
    /// Standard input, output or error, connected to another process: the restart's own take its place, as with pipes.
    Outside = 9,
    /// Connected to another process, and carried so.
    Kept = 10,
}

/// No other socket.
pub const NONE: u32 = u32::MAX;

/// Halves of a connection that were shut down.
pub const READS: u32 = 1;
pub const WRITES: u32 = 2;

/// A socket of the process.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct One {
    pub id: u32,
    pub fd: u32,
    pub flags: u32,
    pub ino: u32,
    pub family: u32,
    pub kind: u32,
    pub protocol: u32,
    /// Of TCP's states, in all families.
    pub state: u32,
    pub role: u32,
    /// Of a listener.
    pub backlog: u32,
    /// Its place in the table, or [`NONE`].
    pub peer: u32,
    /// Inode of a Unix socket's peer; 0 when it has none any more, [`NONE`] when there never was one.
    pub peer_ino: u32,
    /// Halves that were shut down: [`READS`], [`WRITES`].
    pub shut: u32,
    /// 1: the other side has sent its last byte.
    pub end: u32,
    /// 1: an error waits, as the connection was reset.
    pub reset: u32,
    /// Inode of the file that a Unix socket was bound to.
    pub file: u32,
    /// Type and mode of that file; 0 where nothing has its name any more.
    pub mode: u32,
    pub user: u32,
    pub group: u32,
    pub local: Address,
    pub remote: Address,
}

impl One {
    pub fn is(&self, role: Role) -> bool {
        self.role == role as u32
    }

    /// Whether it is standard input, output or error: then the descriptor that it is known by is one of these.
    pub fn is_standard(&self) -> bool {
        self.id & FD_MASK <= 2
    }

    pub fn is_inet(&self) -> bool {
        matches!(self.family, AF_INET | AF_INET6)
    }

    pub fn is_tcp(&self) -> bool {
        self.is_inet() && self.kind == SOCK_STREAM
    }

    pub fn is_unix(&self) -> bool {
        self.family == AF_UNIX
    }

    /// Whether its ports exclude others from them.
    pub fn has_ports(&self) -> bool {
        self.is_inet() && (self.is_tcp() || matches!(self.protocol, IPPROTO_UDP | IPPROTO_UDPLITE))
    }

    /// Of a Unix socket: whether it has connections, and no mere addresses.
    pub fn connects(&self) -> bool {
        self.kind != SOCK_DGRAM
    }

    /// In words.
    pub fn name(&self) -> Text<256> {
        let kind = match (self.family, self.kind) {
            (AF_UNIX, _) => "unix",
            (AF_NETLINK, _) => "netlink",
            (AF_PACKET, _) => "packet",
            (_, SOCK_STREAM) => "tcp",
            (_, SOCK_RAW) => "raw",
            _ if matches!(self.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6) => "ping",
            _ if self.protocol == IPPROTO_UDPLITE => "udplite",
            _ => "udp",
        };
        let mut name = Text::of(format_args!("{kind}"));
        if self.local.is_set() {
            name.add(format_args!(" {}", self.local));
        }
        if self.remote.is_set() && self.is_inet() | self.is_unix() {
            name.add(format_args!(" to {}", self.remote));
        }
        name
    }
}

#[cold]
pub fn refuse(one: &One, why: &'static str, remedy: &'static str) -> Error {
    Error::refused(Object::descriptor(one.fd, format_args!("socket {}", one.name())), why, remedy)
}

#[cold]
pub fn failed(one: &One, why: &'static str) -> impl Fn(Errno) -> Error + use<> {
    let one = *one;
    move |e| Error::failed(Object::descriptor(one.fd, format_args!("socket {}", one.name())), why, e)
}
