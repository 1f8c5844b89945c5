//! Addresses of sockets: as the kernel gives them, and in words.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use sys::abi::net::{ADDRESS_MAX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX};
use sys::fs::Fd;
use sys::text::Shown;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address; empty where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address {
    bytes: [u8; ADDRESS_MAX],
    len: u32,
}

impl Address {
    /// These bytes.
    #[must_use]
    pub fn of(bytes: &[u8; ADDRESS_MAX], len: usize) -> Self {
        let mut address = Self { bytes: *bytes, len: len as u32 };
        for byte in address.bytes.iter_mut().skip(len) {
            *byte = 0;
        }
        address
    }

    /// A socket's own (or its peer's); empty where it has none.
    #[must_use]
    pub fn read(fd: Fd, peer: bool) -> Self {
        let mut bytes = [0; ADDRESS_MAX];
        let len = sys::socket::address(fd, peer, &mut bytes).unwrap_or(0);
        let address = Self::of(&bytes, len as usize);
        // struct sockaddr_ll is taken whole alone.
        if address.family() == AF_PACKET { Self { len: address.len.max(20), ..address } } else { address }
    }

    /// As the kernel has it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len as usize).unwrap_or_default()
    }

    /// No address.
    #[must_use]
    pub fn none() -> Self {
        Self { bytes: [0; ADDRESS_MAX], len: 0 }
    }

    /// One of IPv4 (whose IP address is the first four bytes) or IPv6.
    #[must_use]
    pub fn of_inet(family: u32, port: u16, ip: [u8; 16]) -> Self {
        let mut address = Self::none();
        let (at, len) = if family == AF_INET { (4, 4) } else { (8, 16) };
        address.len = if family == AF_INET { 16 } else { 28 };
        let [low, high, ..] = family.to_le_bytes();
        let [first, second] = port.to_be_bytes();
        for (to, from) in address.bytes.iter_mut().zip([low, high, first, second]) {
            *to = from;
        }
        for (to, from) in address.bytes.iter_mut().skip(at).zip(ip.iter().take(len)) {
            *to = *from;
        }
        address
    }

    /// The same with another port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        for (to, from) in self.bytes.iter_mut().skip(2).zip(port.to_be_bytes()) {
            *to = from;
        }
        self
    }

    /// `AF_*`; 0 for none.
    #[must_use]
    pub fn family(&self) -> u32 {
        let [low, high, ..] = self.bytes;
        u32::from(u16::from_le_bytes([low, high]))
    }

    /// The bytes of its IP address: four, or sixteen.
    #[must_use]
    pub fn ip_bytes(&self) -> &[u8] {
        let range = match self.family() {
            AF_INET => 4..8,
            AF_INET6 => 8..24,
            _ => 0..0,
        };
        self.bytes.get(range).unwrap_or_default()
    }

    /// Its port, of TCP and UDP; 0 when there is none.
    #[must_use]
    pub fn port(&self) -> u16 {
        let [_, _, high, low, ..] = self.bytes;
        if matches!(self.family(), AF_INET | AF_INET6) { u16::from_be_bytes([high, low]) } else { 0 }
    }

    /// Whether it is a name: not the mere family that unnamed sockets have.
    #[must_use]
    pub fn is_set(&self) -> bool {
        match self.family() {
            AF_INET | AF_INET6 => self.port() != 0,
            // A bound one has a number: whoever binds to none is given one.
            AF_NETLINK => self.bytes.get(4..8) != Some(&[0; 4]),
            _ => self.len > 2,
        }
    }

    /// Its IP address as one of version 6.
    #[must_use]
    pub fn ip(&self) -> Ipv6Addr {
        match (self.ip_bytes().first_chunk::<16>(), self.ip_bytes().first_chunk::<4>()) {
            (Some(v6), _) => Ipv6Addr::from(*v6),
            (_, v4) => Ipv4Addr::from(v4.copied().unwrap_or_default()).to_ipv6_mapped(),
        }
    }

    /// Whether it says any address.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.ip().is_unspecified() || self.ip() == Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()
    }

    /// What it means, whatever its family: port and IP address.
    #[must_use]
    pub fn place(&self) -> (u16, u128) {
        (self.port(), self.ip().to_bits())
    }

    /// Whether both mean the same place.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// A Unix socket's path.
    #[must_use]
    pub fn path(&self) -> Option<&[u8]> {
        let path = self.bytes().get(2..).filter(|path| self.family() == AF_UNIX && path.first() != Some(&0))?;
        let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
        path.get(..end).filter(|path| !path.is_empty())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.family(), self.path()) {
            (AF_INET | AF_INET6, _) => match self.ip().to_ipv4_mapped() {
                Some(ip) if self.family() == AF_INET => write!(f, "{ip}:{}", self.port()),
                _ => write!(f, "[{}]:{}", self.ip(), self.port()),
            },
            (_, Some(path)) => write!(f, "{}", Shown(path)),
            (AF_PACKET, _) => match self.bytes() {
                [_, _, high, low, a, b, c, d, ..] => {
                    let device = u32::from_le_bytes([*a, *b, *c, *d]);
                    write!(f, "{:#06x} of device {device}", u16::from_be_bytes([*high, *low]))
                }
                _ => Ok(()),
            },
            (AF_UNIX, None) => write!(f, "@{}", Shown(self.bytes().get(3..).unwrap_or_default())),
            _ => Ok(()),
        }
    }
}
