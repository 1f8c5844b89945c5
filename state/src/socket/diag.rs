//! What the kernel tells of sockets beside their own descriptors: sock_diag(7).
//!
//! It tells of the network namespace that it is asked in. Must never be taken at its word there for a process of another one.

use sys::Errno;
use sys::abi::net::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, NETLINK_SOCK_DIAG,
    SOCK_CLOEXEC, SOCK_DGRAM, TCP_LISTEN,
};
use sys::fs::Owned;

use super::Address;
use crate::Target;

/// `SOCK_DIAG_BY_FAMILY`, `SOCK_DESTROY`; `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`.
const BY_FAMILY: u32 = 20;
const DESTROY: u32 = 21;
const REQUEST: u32 = 1;
const ACKNOWLEDGE: u32 = 4;
const DUMP: u32 = 0x300;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u32 = 2;
const DONE: u32 = 3;
/// Bytes of `struct nlmsghdr`, `struct unix_diag_msg`, `struct inet_diag_msg`.
const HEAD: usize = 16;
const UNIX: usize = 16;
const INET: usize = 72;
/// Bytes of an answer: the kernel gives a page to one about one socket, and twice as much at once to one about many.
const ANSWER: usize = 16 << 10;

/// Most waiting connections that the kernel tells of at once: they lie in a page.
pub const BACKLOG_MAX: usize = 1024;

/// A socket to ask through.
#[derive(Debug)]
pub struct Diag(Owned);

/// What the kernel says of a Unix socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnixFacts {
    pub state: u32,
    /// Inode of its file.
    pub file: u32,
    /// Inode of its peer: 0 when that has gone, or has no descriptor yet; `None` when there never was one.
    pub peer: Option<u32>,
    /// Of a listener how many may wait.
    pub backlog: u32,
    pub shut: u32,
}

/// What the kernel says of an internet socket.
#[derive(Clone, Copy, Debug)]
pub struct InetFacts {
    pub state: u32,
    /// 0: no descriptor leads to it.
    pub ino: u32,
    /// Sequence numbers that wait to be read.
    pub received: u32,
    pub shut: u32,
    pub local: Address,
    pub remote: Address,
}

impl Diag {
    /// Opens one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> sys::Result<Self> {
        sys::socket::make(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG).map(Self)
    }

    /// Asks about the Unix socket with this inode.
    ///
    /// # Errors
    /// ENOENT: there is none here.
    pub fn unix(&self, ino: u32) -> sys::Result<UnixFacts> {
        /// `UDIAG_SHOW_VFS`, `_PEER`, `_RQLEN`.
        const SHOW: u32 = 2 | 4 | 16;
        let mut answer = [0; 512];
        let answer = self.about_unix(ino, SHOW, &mut answer)?;
        Ok(unix_facts(answer))
    }

    /// Inodes of the sockets whose connections wait at the listener with this inode, in the order in which they will be accepted; 0 for
    /// one that has gone. How many.
    ///
    /// # Errors
    /// EMSGSIZE: more than the kernel tells.
    pub fn backlog(&self, ino: u32, to: &mut [u32; BACKLOG_MAX]) -> sys::Result<usize> {
        /// `UDIAG_SHOW_ICONS`
        const SHOW: u32 = 8;
        let mut answer = [0; 8192];
        let answer = self.about_unix(ino, SHOW, &mut answer)?;
        let clients = attributes(answer, UNIX).find(|(kind, _)| *kind == 3).map_or(&[][..], |(_, value)| value);
        let clients = clients.as_chunks::<4>().0;
        for (to, client) in to.iter_mut().zip(clients) {
            *to = u32::from_le_bytes(*client);
        }
        if clients.len() > to.len() { Err(Errno::EMSGSIZE) } else { Ok(clients.len()) }
    }

    fn about_unix<'a>(&self, ino: u32, show: u32, answer: &'a mut [u8]) -> sys::Result<&'a [u8]> {
        let all = u32::MAX;
        let request = [40, BY_FAMILY | REQUEST << 16, 0, 0, AF_UNIX, all, ino, show, all, all];
        let mut bytes = [0; 40];
        put(&mut bytes, 0, &request);
        self.ask(&bytes, answer)
    }

    fn ask<'a>(&self, request: &[u8], answer: &'a mut [u8]) -> sys::Result<&'a [u8]> {
        let len = sys::socket::ask(self.0.fd(), request, answer)?;
        let answer = answer.get(..len).ok_or(Errno::EMSGSIZE)?;
        if word(answer, 4) & 0xffff == ERROR {
            // nlmsgerr: a negative errno.
            return Err(Errno::new(word(answer, HEAD).wrapping_neg() as i32));
        }
        Ok(answer)
    }

    /// Each message of an answer about many, whose first `len` bytes are there.
    fn each_part(&self, mut len: usize, answer: &mut [u8], mut each: impl FnMut(&[u8])) -> sys::Result<()> {
        loop {
            let mut rest = answer.get(..len).ok_or(Errno::EMSGSIZE)?;
            while rest.len() >= HEAD {
                let size = (word(rest, 0) as usize).clamp(HEAD, rest.len());
                match word(rest, 4) & 0xffff {
                    DONE => return Ok(()),
                    ERROR => return Err(Errno::new(word(rest, HEAD).wrapping_neg() as i32)),
                    _ => each(rest.get(..size).unwrap_or_default()),
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
            len = sys::socket::more(self.0.fd(), answer)?;
        }
    }

    /// The TCP socket whose own address is `local`, and its peer's `remote`, both as one of these has them. `None`: there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connection(&self, local: &Address, remote: &Address) -> sys::Result<Option<InetFacts>> {
        let mut answer = [0; 1024];
        match self
            .ask(&inet_request(BY_FAMILY, 0, (local.family(), IPPROTO_TCP, u32::MAX), (local, remote)), &mut answer)
        {
            // Where no connection is, a listener is looked for.
            Ok(answer) => Ok(Some(inet_facts(answer)).filter(|facts| facts.state != TCP_LISTEN)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Calls `each` with all sockets of this protocol (TCP: of these states, a bit each) and family.
    ///
    /// # Errors
    /// The kernel's.
    pub fn each_inet(
        &self,
        (family, protocol): (u32, u32),
        states: u32,
        mut each: impl FnMut(&InetFacts),
    ) -> sys::Result<()> {
        let none = Address::none();
        let mut answer = [0; ANSWER];
        let request = inet_request(BY_FAMILY, DUMP, (family, protocol, states), (&none, &none));
        let first = self.ask(&request, &mut answer)?.len();
        self.each_part(first, &mut answer, |part| each(&inet_facts(part)))
    }

    /// Calls `each` with inode and state of all netlink sockets.
    ///
    /// # Errors
    /// ENOENT: this kernel does not tell.
    pub fn each_netlink(&self, mut each: impl FnMut(u32, u32)) -> sys::Result<()> {
        /// `NDIAG_PROTO_ALL`
        const ALL: u32 = 0xff;
        let mut request = [0; 36];
        put(&mut request, 0, &[36, BY_FAMILY | (REQUEST | DUMP) << 16, 0, 0, AF_NETLINK | ALL << 8]);
        let mut answer = [0; ANSWER];
        let first = self.ask(&request, &mut answer)?.len();
        self.each_part(first, &mut answer, |part| each(word(part, HEAD + 16), word(part, HEAD) >> 24))
    }

    /// Ends what is left of a TCP connection: for who may.
    ///
    /// # Errors
    /// EPERM: this user may not.
    pub fn destroy(&self, facts: &InetFacts) -> sys::Result<()> {
        let (local, remote) = (&facts.local, &facts.remote);
        let request = inet_request(DESTROY, ACKNOWLEDGE, (local.family(), IPPROTO_TCP, u32::MAX), (local, remote));
        let mut answer = [0; 512];
        // What it answers is an error of number 0.
        match self.ask(&request, &mut answer) {
            Err(e) if e.into_raw() != 0 => Err(e),
            _ => Ok(()),
        }
    }

    /// Calls `each` with all UDP sockets, of both families, and those of its like.
    ///
    /// # Errors
    /// The kernel's.
    pub fn each_udp(&self, mut each: impl FnMut(&InetFacts)) -> sys::Result<()> {
        let kinds =
            [AF_INET, AF_INET6].into_iter().flat_map(|family| [(family, IPPROTO_UDP), (family, IPPROTO_UDPLITE)]);
        for (family, protocol) in kinds {
            match self.each_inet((family, protocol), u32::MAX, &mut each) {
                // This kernel has none.
                Err(Errno::ENOENT) if protocol == IPPROTO_UDPLITE => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Calls `each` with inode, kind and value of each attribute of each packet socket.
    ///
    /// # Errors
    /// ENOENT: this kernel does not tell.
    pub fn each_packet(&self, mut each: impl FnMut(u32, u32, &[u8])) -> sys::Result<()> {
        /// `PACKET_SHOW_MCLIST`, `_RING_CFG`, `_FANOUT`; bytes of `struct packet_diag_msg`.
        const SHOW: u32 = 2 | 4 | 8;
        const PACKET: usize = 16;
        let mut request = [0; 36];
        put(&mut request, 0, &[36, BY_FAMILY | (REQUEST | DUMP) << 16, 0, 0, AF_PACKET, 0, SHOW]);
        let mut answer = [0; ANSWER];
        let first = self.ask(&request, &mut answer)?.len();
        self.each_part(first, &mut answer, |part| {
            let ino = word(part, HEAD + 4);
            attributes(part, PACKET).for_each(|(kind, value)| each(ino, kind, value));
        })
    }
}

/// Whether the process lives in this process's network namespace.
pub fn is_told_of<T: Target>(target: &T) -> bool {
    let mut own = [0; 64];
    let mut its = [0; 64];
    let own = sys::fs::read_link_at(sys::abi::AT_FDCWD, c"/proc/self/ns/net", &mut own);
    T::IN_PROCESS || own.is_ok() && own == sys::fs::read_link_at(target.proc(), c"ns/net", &mut its)
}

/// Whether an IP address is one of this machine's, here.
pub fn is_of_this_machine(at: &Address) -> bool {
    let Ok(probe) = sys::socket::make(at.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0) else {
        return false;
    };
    sys::socket::bind(probe.fd(), at.with_port(0).bytes()).is_ok()
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn inet_request(
    what: u32,
    how: u32,
    (family, protocol, states): (u32, u32, u32),
    (local, remote): (&Address, &Address),
) -> [u8; 72] {
    let mut bytes = [0; 72];
    put(&mut bytes, 0, &[72, what | (REQUEST | how) << 16, 0, 0, family | protocol << 8, states]);
    // struct inet_diag_sockid: both ports, both addresses, the interface, a cookie (none).
    let ports = [local.port(), remote.port()].map(u16::to_be_bytes);
    for (at, from) in [(24, ports.as_flattened()), (28, local.ip_bytes()), (44, remote.ip_bytes())] {
        for (to, from) in bytes.iter_mut().skip(at).zip(from) {
            *to = *from;
        }
    }
    put(&mut bytes, 64, &[u32::MAX, u32::MAX]);
    bytes
}

fn unix_facts(answer: &[u8]) -> UnixFacts {
    let mut facts = UnixFacts { state: u32::from(answer.get(HEAD + 2).copied().unwrap_or(0)), ..UnixFacts::default() };
    for (kind, value) in attributes(answer, UNIX) {
        match kind {
            1 => facts.file = word(value, 0),
            2 => facts.peer = Some(word(value, 0)),
            4 => facts.backlog = word(value, 4),
            6 => facts.shut = u32::from(value.first().copied().unwrap_or(0)) & 3,
            _ => {}
        }
    }
    facts
}

fn inet_facts(answer: &[u8]) -> InetFacts {
    /// `INET_DIAG_SHUTDOWN`
    const SHUTDOWN: u32 = 8;
    let byte = |at: usize| answer.get(at).copied().unwrap_or(0);
    let family = u32::from(byte(HEAD));
    let shut = attributes(answer, INET).find(|(kind, _)| *kind == SHUTDOWN);
    let address = |port: usize, ip: usize| {
        let ip = answer.get(HEAD + ip..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        Address::of_inet(family, u16::from_be_bytes([byte(HEAD + port), byte(HEAD + port + 1)]), ip)
    };
    InetFacts {
        state: u32::from(byte(HEAD + 1)),
        ino: word(answer, HEAD + 68),
        received: word(answer, HEAD + 56),
        shut: shut.and_then(|(_, value)| value.first()).map_or(0, |shut| u32::from(*shut) & 3),
        local: address(4, 8),
        remote: address(6, 24),
    }
}

/// The attributes behind a message's fixed part.
fn attributes(answer: &[u8], fixed: usize) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = answer.get(HEAD + fixed..).unwrap_or_default();
    core::iter::from_fn(move || {
        let head = word(rest, 0);
        let size = (head & 0xffff) as usize;
        let value = rest.get(4..size)?;
        rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((head >> 16 & 0x3fff, value))
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b))
}

fn put(to: &mut [u8], at: usize, words: &[u32]) {
    for (to, word) in to.get_mut(at..).unwrap_or_default().as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
}
