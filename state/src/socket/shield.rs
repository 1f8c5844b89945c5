//! Between the end of a process whose connections are carried and its restart nobody has their addresses, and this machine would tell
//! whoever sends something that the connection is gone. A table of nftables lets nothing of them in meanwhile.
//!
//! Nothing here allocates: messages of netfilter's netlink are built in place. Must never touch a table of another name.

use sys::Errno;
use sys::abi::net::{AF_INET, AF_INET6, AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW};
use sys::fs::Owned;

use super::Address;
use super::one::One;

/// `NETLINK_NETFILTER`
pub const NETFILTER: u32 = 12;

/// Letters of a table's name.
pub const NAME: usize = 13;

/// Bytes of the longest batch that is built: see [`RULES`].
const BATCH: usize = 8192;

/// Rules in a batch.
pub const RULES: usize = 8;

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`, `NFNL_SUBSYS_NFTABLES`.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NFTABLES: u16 = 10;
/// `NFT_MSG_NEWTABLE`, `_DELTABLE`, `_NEWCHAIN`, `_NEWRULE`.
const NEWTABLE: u16 = NFTABLES << 8;
const DELTABLE: u16 = NFTABLES << 8 | 2;
const NEWCHAIN: u16 = NFTABLES << 8 | 3;
const NEWRULE: u16 = NFTABLES << 8 | 6;
/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_CREATE`, `NLM_F_APPEND`.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NLMSG_ERROR`; `NLA_F_NESTED`.
const ERROR: u16 = 2;
const NESTED: u16 = 0x8000;

/// The name of the tables of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; NAME]);

impl Name {
    /// One that no other has.
    ///
    /// # Errors
    /// No random numbers.
    pub fn new() -> sys::Result<Self> {
        let mut random = [0; 4];
        sys::process::random(&mut random)?;
        let mut name = *b"ckpt-00000000";
        for (letters, byte) in name.as_mut_slice().rchunks_mut(2).zip(random) {
            for (letter, half) in letters.iter_mut().zip([byte >> 4, byte & 15]) {
                *letter = b"0123456789abcdef".get(usize::from(half)).copied().unwrap_or(b'0');
            }
        }
        Ok(Self(name))
    }

    /// Its letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A batch of messages.
pub struct Batch {
    bytes: [u8; BATCH],
    len: usize,
    full: bool,
    sequence: u32,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self { bytes: [0; BATCH], len: 0, full: false, sequence: 0 };
        batch.message(BEGIN, REQUEST, (0, NFTABLES), |_| {});
        batch
    }

    /// The batch that makes a table with a chain which sees what comes in.
    #[must_use]
    pub fn table(name: &Name, family: u32) -> Self {
        let mut batch = Self::new();
        batch.message(NEWTABLE, REQUEST | CREATE | ACKNOWLEDGE, (family, 0), |b| b.text(1, &name.0));
        batch.message(NEWCHAIN, REQUEST | CREATE | ACKNOWLEDGE, (family, 0), |b| {
            b.text(1, &name.0);
            b.text(3, b"input");
            b.nested(4, |b| {
                // LOCAL_IN, before filters.
                b.number(1, 1);
                b.number(2, -300i32 as u32);
            });
            b.text(7, b"filter");
        });
        batch.end()
    }

    /// The batch that removes the table.
    #[must_use]
    pub fn without(name: &Name, family: u32) -> Self {
        let mut batch = Self::new();
        batch.message(DELTABLE, REQUEST, (family, 0), |b| b.text(1, &name.0));
        batch.end()
    }

    /// The batch that lets nothing of these connections in, [`RULES`] at most: their own addresses and the other sides'.
    #[must_use]
    pub fn rules<'a>(name: &Name, family: u32, connections: impl Iterator<Item = &'a (Address, Address)>) -> Self {
        let mut batch = Self::new();
        for (local, remote) in connections {
            batch.message(NEWRULE, REQUEST | CREATE | APPEND | ACKNOWLEDGE, (family, 0), |b| {
                b.text(1, &name.0);
                b.text(2, b"input");
                b.nested(4, |b| {
                    let ends = [remote, local].map(Ip::of);
                    // Behind the header's first part: the sender, then the receiver.
                    let mut at = if family == AF_INET { 12 } else { 8 };
                    for end in &ends {
                        b.matches(1, at, end.bytes());
                        at += end.bytes().len() as u32;
                    }
                    // NFT_META_L4PROTO
                    b.expression(b"meta", |b| {
                        b.number(1, 1);
                        b.number(2, 16);
                    });
                    b.is_equal(&[6]);
                    let ports = [remote, local].map(|at| at.port().to_be_bytes());
                    b.matches(2, 0, ports.as_flattened());
                    b.expression(b"immediate", |b| {
                        // NFT_REG_VERDICT: NF_DROP.
                        b.number(1, 0);
                        b.nested(2, |b| b.nested(2, |b| b.number(1, 0)));
                    });
                });
            });
        }
        batch.end()
    }

    /// Its bytes; empty when they did not fit.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).filter(|_| !self.full).unwrap_or_default()
    }

    fn end(mut self) -> Self {
        self.message(END, REQUEST, (0, NFTABLES), |_| {});
        self
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(to) => to.copy_from_slice(bytes),
            None => self.full = true,
        }
        self.len += bytes.len();
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// `struct nlmsghdr` and `struct nfgenmsg`, and what `fill` adds.
    fn message(&mut self, what: u16, how: u16, (family, resource): (u32, u16), fill: impl FnOnce(&mut Self)) {
        let start = self.len;
        self.push(&[0; 4]);
        self.push(&what.to_le_bytes());
        self.push(&how.to_le_bytes());
        self.push(&self.sequence.to_le_bytes());
        self.push(&[0; 4]);
        self.push(&[family as u8, 0]);
        self.push(&resource.to_be_bytes());
        fill(self);
        let len = (self.len - start) as u32;
        self.put(start, &len.to_le_bytes());
        self.sequence += 1;
    }

    /// An attribute, padded.
    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.len;
        self.push(&[0; 2]);
        self.push(&kind.to_le_bytes());
        fill(self);
        let len = (self.len - start) as u16;
        self.put(start, &len.to_le_bytes());
        while !self.len.is_multiple_of(4) {
            self.push(&[0]);
        }
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, fill);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, |b| b.push(&value.to_be_bytes()));
    }

    fn text(&mut self, kind: u16, text: &[u8]) {
        self.attribute(kind, |b| {
            b.push(text);
            b.push(&[0]);
        });
    }

    fn expression(&mut self, name: &[u8], data: impl FnOnce(&mut Self)) {
        self.nested(1, |b| {
            b.text(1, name);
            b.nested(2, data);
        });
    }

    /// What was loaded is this.
    fn is_equal(&mut self, value: &[u8]) {
        self.expression(b"cmp", |b| {
            b.number(1, 1);
            b.number(2, 0);
            b.nested(3, |b| b.attribute(1, |b| b.push(value)));
        });
    }

    /// These bytes lie at this place behind a header: 1 for the network's, 2 for the transport's.
    fn matches(&mut self, header: u32, at: u32, value: &[u8]) {
        self.expression(b"payload", |b| {
            b.number(1, 1);
            b.number(2, header);
            b.number(3, at);
            b.number(4, value.len() as u32);
        });
        self.is_equal(value);
    }
}

/// An IP address as it lies in a packet.
struct Ip {
    bytes: [u8; 16],
    len: usize,
}

impl Ip {
    fn of(at: &Address) -> Self {
        match at.ip().to_ipv4_mapped() {
            Some(v4) => {
                let mut bytes = [0; 16];
                for (to, from) in bytes.iter_mut().zip(v4.octets()) {
                    *to = from;
                }
                Self { bytes, len: 4 }
            }
            None => Self { bytes: at.ip().octets(), len: 16 },
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The family of the packets of a connection.
#[must_use]
pub fn family(remote: &Address) -> u32 {
    if remote.ip().to_ipv4_mapped().is_some() { AF_INET } else { AF_INET6 }
}

/// A socket that takes batches.
///
/// # Errors
/// This kernel has no nftables.
pub fn open() -> sys::Result<Owned> {
    sys::socket::make(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETFILTER)
}

/// A socket that takes batches, as the restart makes it.
#[must_use]
pub fn like(one: &One) -> One {
    One { family: AF_NETLINK, kind: SOCK_RAW, protocol: NETFILTER, ..*one }
}

/// Has a batch done: all of it, or nothing.
///
/// # Errors
/// EPERM: this user may not; EOPNOTSUPP: this kernel has none.
pub fn submit(socket: &Owned, batch: &Batch) -> sys::Result<()> {
    let bytes = batch.bytes();
    let mut answers = [0; BATCH];
    // An answer for each message but those around them, or one error that ends all.
    let mut left = batch.sequence.saturating_sub(2);
    let mut len =
        if bytes.is_empty() { Err(Errno::EMSGSIZE) } else { sys::socket::ask(socket.fd(), bytes, &mut answers) }?;
    loop {
        let mut rest = answers.get(..len).ok_or(Errno::EMSGSIZE)?;
        while let Some((head, body)) = rest.split_at_checked(16) {
            let [a, b, c, d, low, high, ..] = *head else { break };
            let size = u32::from_le_bytes([a, b, c, d]) as usize;
            let error = body.first_chunk().map_or(0, |code| i32::from_le_bytes(*code));
            if u16::from_le_bytes([low, high]) == ERROR {
                if error != 0 {
                    return Err(Errno::new(-error));
                }
                left = left.saturating_sub(1);
            }
            rest = rest.get(size.max(16).next_multiple_of(4)..).unwrap_or_default();
        }
        if left == 0 {
            return Ok(());
        }
        len = sys::socket::more(socket.fd(), &mut answers)?;
    }
}
