//! Addresses of sockets: as the kernel gives them, and in words.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use sys::abi::net::{ADDRESS_MAX, AF_INET, AF_INET6, AF_NETLINK, AF_UNIX};
use sys::fs::Fd;
use sys::text::Shown;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address; empty where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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
        Self::of(&bytes, len)
    }

    /// As the kernel has it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len as usize).unwrap_or_default()
    }

    fn family(&self) -> u32 {
        let [low, high, ..] = self.bytes;
        u32::from(u16::from_le_bytes([low, high]))
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
        let at = |from: usize| self.bytes.get(from..).unwrap_or_default();
        if self.family() == AF_INET {
            return Ipv4Addr::from(at(4).first_chunk().copied().unwrap_or_default()).to_ipv6_mapped();
        }
        Ipv6Addr::from(at(8).first_chunk().copied().unwrap_or_default())
    }

    /// Whether it says any address.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.ip().is_unspecified() || self.ip() == Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()
    }

    /// Whether both mean the same place.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        (self.port(), self.ip()) == (other.port(), other.ip())
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
            (AF_UNIX, None) => write!(f, "@{}", Shown(self.bytes().get(3..).unwrap_or_default())),
            _ => Ok(()),
        }
    }
}
