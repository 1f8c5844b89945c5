//! Sockets: options, addresses, a look at what waits in them, and the calls that make them.
//!
//! Must never take anything out of a socket that is not this code's own.

use crate::abi::net::{ADDRESS_MAX, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, Msghdr, SCM_MAX_FD};
use crate::abi::net::{SCM_RIGHTS, SOL_SOCKET};
use crate::fs::Fd;
use crate::{Errno, Result, Sysno, call};

/// An address at which nothing can be mapped (`vm.mmap_min_addr`), and how far.
const NOWHERE: usize = 8;
const PAGE: usize = 2048;

const fn arg(fd: Fd) -> usize {
    fd as isize as usize
}

/// getsockopt(2) into `to`; returns how many bytes the value has.
///
/// # Errors
/// The call's.
pub fn option(fd: Fd, level: u32, name: u32, to: &mut [u8]) -> Result<usize> {
    let mut len = to.len() as u32;
    let at = (to.as_mut_ptr() as usize, (&raw mut len) as usize);
    // SAFETY: the kernel writes at most `len` bytes to `to`, and the length.
    unsafe { call(Sysno::getsockopt, [arg(fd), level as usize, name as usize, at.0, at.1]) }?;
    Ok(len as usize)
}

/// The same for a number.
///
/// # Errors
/// The call's.
pub fn number(fd: Fd, level: u32, name: u32) -> Result<u32> {
    let mut word = [0; 4];
    option(fd, level, name, &mut word)?;
    Ok(u32::from_le_bytes(word))
}

/// getsockname(2), or getpeername(2); returns the address's bytes.
///
/// # Errors
/// The call's.
#[inline(never)]
pub fn address(fd: Fd, peer: bool, to: &mut [u8; ADDRESS_MAX]) -> Result<usize> {
    let mut len = ADDRESS_MAX as u32;
    let number = if peer { Sysno::getpeername } else { Sysno::getsockname };
    // SAFETY: the kernel writes at most `len` bytes to `to`, and the length.
    unsafe { call(number, [arg(fd), to.as_mut_ptr() as usize, (&raw mut len) as usize, 0, 0, 0]) }?;
    Ok(ADDRESS_MAX.min(len as usize))
}

/// A call that takes numbers and reads memory at most: bind(2), connect(2), listen(2), setsockopt(2) and their like.
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn request(number: Sysno, [a, b, c, d, e]: [usize; 5]) -> Result<usize> {
    in_registers(a, b, c, d, e, number)
}

/// The call itself, which exists once; an array would be built in memory for each.
#[inline(never)]
fn in_registers(a: usize, b: usize, c: usize, d: usize, e: usize, number: Sysno) -> Result<usize> {
    // SAFETY: these calls only read what they are given addresses of, and cope with bad ones.
    unsafe { call(number, [a, b, c, d, e]) }
}

/// setsockopt(2).
///
/// # Errors
/// The call's.
pub fn set_option(fd: Fd, level: u32, name: u32, value: &[u8]) -> Result<()> {
    let value = (value.as_ptr() as usize, value.len());
    request(Sysno::setsockopt, [arg(fd), level as usize, name as usize, value.0, value.1]).map(drop)
}

/// `SO_ATTACH_FILTER` of a packet filter that lets nothing in; `SO_DETACH_FILTER` takes it away.
///
/// # Errors
/// The call's.
pub fn drop_all(fd: Fd, name: u32) -> Result<()> {
    // `BPF_RET | BPF_K` with 0.
    let nothing = 6u64;
    // struct sock_fprog: how many, and where.
    let program = [1, (&raw const nothing) as usize as u64];
    request(Sysno::setsockopt, [arg(fd), SOL_SOCKET as usize, name as usize, program.as_ptr() as usize, 16]).map(drop)
}

/// socketpair(2), close-on-exec.
///
/// # Errors
/// The call's.
pub fn pair([family, kind, protocol]: [usize; 3]) -> Result<[Fd; 2]> {
    let mut ends = [-1; 2];
    let kind = kind | crate::abi::net::SOCK_CLOEXEC as usize;
    // SAFETY: the kernel writes two numbers.
    unsafe { call(Sysno::socketpair, [family, kind, protocol, ends.as_mut_ptr() as usize, 0, 0]) }?;
    Ok(ends)
}

/// A control message of descriptors: `struct cmsghdr` and room for as many as one can have.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Rights {
    len: usize,
    level: u32,
    kind: u32,
    fds: [Fd; SCM_MAX_FD + 1],
    count: usize,
}

impl Default for Rights {
    fn default() -> Self {
        Self { len: 0, level: SOL_SOCKET, kind: SCM_RIGHTS, fds: [-1; SCM_MAX_FD + 1], count: 0 }
    }
}

impl Rights {
    /// One more descriptor.
    pub fn add(&mut self, fd: Fd) {
        if let Some(place) = self.fds.get_mut(self.count) {
            *place = fd;
            self.count += 1;
        }
    }
}

/// sendmsg(2) without waiting, with these descriptors (which are used up), to this address (where it is not empty). How many
/// bytes were taken: of a message all, of a stream perhaps some.
///
/// # Errors
/// The call's; EAGAIN when nothing of it fits.
#[inline(never)]
pub fn send(fd: Fd, bytes: &[u8], rights: &mut Rights, to: &[u8]) -> Result<usize> {
    let part = [bytes.as_ptr() as usize, bytes.len()];
    rights.len = 16 + 4 * rights.count;
    let message = Msghdr {
        name: to.as_ptr() as usize,
        namelen: to.len(),
        iov: part.as_ptr() as usize,
        iovlen: 1,
        control: (&raw const *rights) as usize,
        controllen: if rights.count == 0 { 0 } else { rights.len },
        flags: 0,
    };
    let how = MSG_DONTWAIT | MSG_NOSIGNAL;
    let sent = request(Sysno::sendmsg, [arg(fd), (&raw const message) as usize, how, 0, 0])?;
    rights.count = 0;
    Ok(sent)
}

/// What [`peek`] saw.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Bytes of the message, or of the stream.
    pub len: usize,
    /// Bytes of control messages.
    pub control: usize,
    /// Bytes of the sender's address.
    pub from: usize,
}

/// recvmsg(2) of a copy, without waiting: nothing is taken out. Descriptors that it carries are opened anew here.
///
/// # Errors
/// The call's; EAGAIN when nothing waits.
pub fn peek(fd: Fd, how: usize, to: &mut [u8], control: &mut [u8], from: &mut [u8; ADDRESS_MAX]) -> Result<Seen> {
    let mut part = [to.as_mut_ptr() as usize, to.len()];
    let mut message = Msghdr {
        name: from.as_mut_ptr() as usize,
        namelen: ADDRESS_MAX,
        iov: part.as_mut_ptr() as usize,
        iovlen: 1,
        control: control.as_mut_ptr() as usize,
        controllen: control.len(),
        flags: 0,
    };
    let how = how | MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    // SAFETY: the kernel writes into the three buffers, and how much of each was used.
    let len = unsafe { call(Sysno::recvmsg, [arg(fd), (&raw mut message) as usize, how, 0, 0, 0]) }?;
    Ok(Seen {
        len,
        control: message.controllen.min(control.len()),
        from: (message.namelen as u32 as usize).min(ADDRESS_MAX),
    })
}

/// How many bytes at the beginning of a Unix stream came in pieces that end within the first `len` (as `SO_PEEK_OFF` is
/// set): the kernel copies whole pieces, and gives up at the first that it cannot.
///
/// # Errors
/// The call's.
pub fn whole_pieces(fd: Fd, to: &mut [u8]) -> Result<usize> {
    let mut parts = [to.as_mut_ptr() as usize, to.len(), NOWHERE, PAGE];
    let mut message = Msghdr { iov: parts.as_mut_ptr() as usize, iovlen: 2, ..Msghdr::default() };
    let how = MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    // SAFETY: the kernel writes into `to`, and fails where nothing is mapped.
    match unsafe { call(Sysno::recvmsg, [arg(fd), (&raw mut message) as usize, how, 0, 0, 0]) } {
        Err(Errno::EFAULT) => Ok(0),
        other => other,
    }
}

/// Sends a request to a netlink socket of this code's own and returns the bytes of the answer.
///
/// # Errors
/// The calls'.
pub fn ask(fd: Fd, request: &[u8], to: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel only reads the request.
    unsafe { call(Sysno::sendto, [arg(fd), request.as_ptr() as usize, request.len(), 0, 0, 0]) }?;
    // SAFETY: the kernel writes only into `to`.
    unsafe { call(Sysno::recvfrom, [arg(fd), to.as_mut_ptr() as usize, to.len(), 0, 0, 0]) }
}
