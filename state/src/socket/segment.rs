//! A TCP segment of the other side's: the end that it has sent before the save, which its kernel will not send again.

use sys::abi::net::{AF_INET, AF_INET6, SOCK_RAW};

use super::Address;
use super::one::One;

/// `IPPROTO_RAW`: what is sent has its headers.
const RAW: u32 = 255;
const TCP: u8 = 6;
/// FIN and ACK.
const FLAGS: u8 = 0x11;
/// Bytes of the headers of IPv4, IPv6, and TCP.
const V4: usize = 20;
const V6: usize = 40;
const HEADER: usize = 20;

/// The segment, with its headers.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    bytes: [u8; V6 + HEADER],
    len: usize,
}

/// What it says.
#[derive(Clone, Copy, Debug)]
pub struct Says {
    /// Number of the end.
    pub number: u32,
    /// The next number that the other side awaits.
    pub awaits: u32,
    /// Its window, as it is written.
    pub window: u32,
}

impl Segment {
    /// From one address to the other.
    #[must_use]
    pub fn of(from: &Address, to: &Address, says: Says) -> Self {
        let mut segment = Self { bytes: [0; V6 + HEADER], len: 0 };
        let mut sum = Sum(0);
        match (from.ip().to_ipv4_mapped(), to.ip().to_ipv4_mapped()) {
            (Some(from), Some(to)) => {
                // Version and length; the kernel fills in lengths and sums.
                segment.push(&[0x45, 0, 0, (V4 + HEADER) as u8, 0, 0, 0x40, 0, 64, TCP, 0, 0]);
                for ip in [from.octets(), to.octets()] {
                    segment.push(&ip);
                    sum.add(&ip);
                }
            }
            _ => {
                segment.push(&[0x60, 0, 0, 0, 0, HEADER as u8, TCP, 64]);
                for ip in [from.ip().octets(), to.ip().octets()] {
                    segment.push(&ip);
                    sum.add(&ip);
                }
            }
        }
        sum.add(&[0, TCP, 0, HEADER as u8]);
        let mut header = [0; HEADER];
        let parts: [&[u8]; 6] = [
            &from.port().to_be_bytes(),
            &to.port().to_be_bytes(),
            &says.number.to_be_bytes(),
            &says.awaits.to_be_bytes(),
            &[(HEADER as u8 / 4) << 4, FLAGS],
            &(says.window as u16).to_be_bytes(),
        ];
        for (to, from) in header.iter_mut().zip(parts.iter().flat_map(|part| part.iter())) {
            *to = *from;
        }
        sum.add(&header);
        for (to, from) in header.iter_mut().skip(16).zip(sum.end()) {
            *to = from;
        }
        segment.push(&header);
        segment
    }

    fn push(&mut self, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(bytes) {
            *to = *from;
        }
        self.len += bytes.len();
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The socket that sends it, as the restart makes it, beside one whose other side it comes from.
    #[must_use]
    pub fn sender(&self, one: &One) -> One {
        let family = if self.len == V4 + HEADER { AF_INET } else { AF_INET6 };
        One { family, kind: SOCK_RAW, protocol: RAW, ..*one }
    }

    /// Where that sends it: to the address without its port.
    #[must_use]
    pub fn target(&self, to: &Address) -> Address {
        let mut bytes = [0; 16];
        let octets = to.ip().octets();
        match to.ip().to_ipv4_mapped() {
            Some(v4) => {
                for (to, from) in bytes.iter_mut().zip(v4.octets()) {
                    *to = from;
                }
                Address::of_inet(AF_INET, 0, bytes)
            }
            None => Address::of_inet(AF_INET6, 0, octets),
        }
    }
}

/// The internet's checksum.
struct Sum(u32);

impl Sum {
    /// An even number of bytes.
    fn add(&mut self, bytes: &[u8]) {
        self.0 += bytes.as_chunks::<2>().0.iter().map(|two| u32::from(u16::from_be_bytes(*two))).sum::<u32>();
    }

    fn end(self) -> [u8; 2] {
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        (!((once & 0xffff) + (once >> 16)) as u16).to_be_bytes()
    }
}
