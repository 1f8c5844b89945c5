//! Sockets: options, addresses, a look at what waits in them, and the calls that make them.
//!
//! Must never take anything out of a socket that is not this code's own.

use crate::abi::mm::{MAP_SHARED, PROT_READ};
use crate::abi::net::{
    ADDRESS_MAX, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, Msghdr, SCM_MAX_FD, SIOCUNIXFILE,
};
use crate::abi::net::{
    SCM_RIGHTS, SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_GET_FILTER, SOL_SOCKET, SOL_TCP, TCP_ZEROCOPY_RECEIVE,
};
use crate::fs::{Fd, Owned, fd_of};
use crate::{Errno, Result, Sysno, call};

/// An address at which nothing can be mapped (`vm.mmap_min_addr`), and how far.
const NOWHERE: usize = 8;
const PAGE: usize = 2048;

const fn arg(fd: Fd) -> usize {
    fd as isize as usize
}

/// getsockopt(2) into `to`; returns how many bytes the value has. Not for those that write elsewhere or more: [`filter`], [`sequence`].
///
/// # Errors
/// The call's; EINVAL: one of those.
pub fn option(fd: Fd, level: u32, name: u32, to: &mut [u8]) -> Result<usize> {
    if matches!((level, name), (SOL_SOCKET, SO_GET_FILTER) | (SOL_TCP, TCP_ZEROCOPY_RECEIVE)) {
        return Err(Errno::EINVAL);
    }
    option_of(fd, level, name, to)
}

#[inline(always)]
fn option_of(fd: Fd, level: u32, name: u32, to: &mut [u8]) -> Result<usize> {
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
pub fn address(fd: Fd, peer: bool, to: &mut [u8; ADDRESS_MAX]) -> Result<u32> {
    let mut len = ADDRESS_MAX as u32;
    let number = if peer { Sysno::getpeername } else { Sysno::getsockname };
    // SAFETY: the kernel writes at most `len` bytes to `to`, and the length.
    unsafe { call(number, [arg(fd), to.as_mut_ptr() as usize, (&raw mut len) as usize, 0, 0, 0]) }?;
    Ok(len.min(ADDRESS_MAX as u32))
}

/// A call that takes numbers and reads memory at most, and returns a small number: bind(2), connect(2), listen(2), setsockopt(2) and
/// their like, for those who have a table of them.
///
/// ```compile_fail
/// #![forbid(unsafe_code)]
/// let words = vec![0u64; 512];
/// let _ = sys::socket::request(sys::Sysno::munmap, [words.as_ptr() as usize, 4096, 0, 0, 0]);
/// ```
///
/// # Errors
/// The call's.
///
/// # Safety
/// It is such a call, and closes no descriptor that another owns.
#[inline(always)]
pub unsafe fn request(number: Sysno, [a, b, c, d, e]: [usize; 5]) -> Result<Fd> {
    // SAFETY: the caller vouches.
    unsafe { in_registers(a, b, c, d, e, number) }
}

/// The call itself, which exists once; an array would be built in memory for each.
///
/// # Safety
/// As [`request`].
#[inline(never)]
unsafe fn in_registers(a: usize, b: usize, c: usize, d: usize, e: usize, number: Sysno) -> Result<Fd> {
    // SAFETY: the caller vouches.
    unsafe { call(number, [a, b, c, d, e]) }.map(fd_of)
}

/// socket(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn make(family: u32, kind: u32, protocol: u32) -> Result<Owned> {
    // SAFETY: no memory is touched.
    unsafe { request(Sysno::socket, [family as usize, kind as usize, protocol as usize, 0, 0]) }.map(Owned::own)
}

/// bind(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn bind(fd: Fd, address: &[u8]) -> Result<()> {
    // SAFETY: the kernel only reads the address.
    unsafe { request(Sysno::bind, [arg(fd), address.as_ptr() as usize, address.len(), 0, 0]) }.map(drop)
}

/// connect(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn connect(fd: Fd, address: &[u8]) -> Result<()> {
    // SAFETY: the kernel only reads the address.
    unsafe { request(Sysno::connect, [arg(fd), address.as_ptr() as usize, address.len(), 0, 0]) }.map(drop)
}

/// accept4(2), without the address.
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn accept(listener: Fd, flags: u32) -> Result<Owned> {
    // SAFETY: no memory is touched.
    unsafe { request(Sysno::accept4, [arg(listener), 0, 0, flags as usize, 0]) }.map(Owned::own)
}

/// `SIOCUNIXFILE`: opens the file that a Unix socket is bound to.
///
/// # Errors
/// EPERM: this user may not; ENOENT: it has no file.
pub fn file(fd: Fd) -> Result<Owned> {
    // SAFETY: no memory is touched.
    unsafe { request(Sysno::ioctl, [arg(fd), SIOCUNIXFILE, 0, 0, 0]) }.map(Owned::own)
}

/// setsockopt(2).
///
/// # Errors
/// The call's.
pub fn set_option(fd: Fd, level: u32, name: u32, value: &[u8]) -> Result<()> {
    let value = (value.as_ptr() as usize, value.len());
    // SAFETY: the kernel only reads the value.
    unsafe { request(Sysno::setsockopt, [arg(fd), level as usize, name as usize, value.0, value.1]) }.map(drop)
}

/// How many instructions a socket's packet filter has; 0: it has none.
///
/// # Errors
/// EACCES: it is no classic one.
pub fn filter_len(fd: Fd) -> Result<usize> {
    // Without room it tells the number alone.
    option_of(fd, SOL_SOCKET, SO_GET_FILTER, &mut [])
}

/// Copies a socket's packet filter, which has so many instructions.
///
/// # Errors
/// The call's; EINVAL: it has more.
pub fn filter(fd: Fd, to: &mut [[u8; 8]]) -> Result<usize> {
    // This option's length counts instructions.
    let mut len = to.len() as u32;
    let at = (to.as_mut_ptr() as usize, (&raw mut len) as usize);
    // SAFETY: the kernel writes at most `len` instructions of eight bytes to `to`, and the length.
    unsafe { call(Sysno::getsockopt, [arg(fd), SOL_SOCKET as usize, SO_GET_FILTER as usize, at.0, at.1]) }?;
    Ok(len as usize)
}

/// `SO_ATTACH_FILTER` of a program of instructions of eight bytes each, in place of the one that is there.
///
/// # Errors
/// The call's: EINVAL for a program that is none.
pub fn attach(fd: Fd, program: &[u8]) -> Result<()> {
    // struct sock_fprog: how many, and where.
    let program = [program.len() as u64 / 8, program.as_ptr() as usize as u64];
    let at = program.as_ptr() as usize;
    // SAFETY: the kernel only reads the program.
    unsafe { request(Sysno::setsockopt, [arg(fd), SOL_SOCKET as usize, SO_ATTACH_FILTER as usize, at, 16]) }.map(drop)
}

/// Attaches a packet filter that lets nothing in.
///
/// # Errors
/// The call's.
pub fn drop_all(fd: Fd) -> Result<()> {
    // `BPF_RET | BPF_K` with 0.
    attach(fd, &6u64.to_le_bytes())
}

/// Takes the packet filter away.
///
/// # Errors
/// The call's.
pub fn detach(fd: Fd) -> Result<()> {
    set_option(fd, SOL_SOCKET, SO_DETACH_FILTER, &[0; 4])
}

/// socketpair(2), close-on-exec.
///
/// # Errors
/// The call's.
pub fn pair([family, kind, protocol]: [usize; 3]) -> Result<[Owned; 2]> {
    let mut ends = [-1; 2];
    let kind = kind | crate::abi::net::SOCK_CLOEXEC as usize;
    // SAFETY: the kernel writes two numbers.
    unsafe { call(Sysno::socketpair, [family, kind, protocol, ends.as_mut_ptr() as usize, 0, 0]) }?;
    Ok(ends.map(Owned::own))
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
pub fn send(fd: Fd, bytes: &[u8], rights: &mut Rights, to: &[u8]) -> Result<Fd> {
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
    // SAFETY: the kernel only reads the message and what it names.
    let sent = unsafe { request(Sysno::sendmsg, [arg(fd), (&raw const message) as usize, how, 0, 0]) }?;
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
    /// Control messages are missing: there was no room, or no descriptor free.
    pub cut: bool,
}

/// recvmsg(2) of a copy, without waiting: nothing is taken out. Descriptors that it carries are opened anew here.
///
/// # Errors
/// The call's; EAGAIN when nothing waits.
pub fn peek(fd: Fd, how: usize, to: &mut [u8], control: &mut [u8], from: &mut [u8; ADDRESS_MAX]) -> Result<Seen> {
    receive(fd, how | MSG_PEEK, to, control, from)
}

/// recvmsg(2), without waiting. Descriptors that come with it are this process's from now on.
///
/// # Errors
/// The call's; EAGAIN when nothing waits.
pub fn receive(fd: Fd, how: usize, to: &mut [u8], control: &mut [u8], from: &mut [u8; ADDRESS_MAX]) -> Result<Seen> {
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
    let how = how | MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    // SAFETY: the kernel writes into the three buffers, and how much of each was used.
    let len = unsafe { call(Sysno::recvmsg, [arg(fd), (&raw mut message) as usize, how, 0, 0, 0]) }?;
    Ok(Seen {
        len,
        control: message.controllen.min(control.len()),
        from: (message.namelen as u32 as usize).min(ADDRESS_MAX),
        cut: message.flags as u32 as usize & MSG_CTRUNC != 0,
    })
}

/// The control messages that have come with a message (`struct cmsghdr`, cmsg(3)): level, kind, and what each holds.
pub fn control_messages(mut rest: &[u8]) -> impl Iterator<Item = (u32, u32, &[u8])> {
    const HEAD: usize = 16;
    core::iter::from_fn(move || {
        let word = |at: usize| rest.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word));
        let (len, level, kind) = (word(0)? as usize, word(8)?, word(12)?);
        let body = rest.get(HEAD..len).unwrap_or_default();
        rest = rest.get(len.max(HEAD).next_multiple_of(8)..).unwrap_or_default();
        Some((level, kind, body))
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

/// How many sequence numbers what waits in a TCP connection takes: each byte one, urgent ones too, and the end one. Takes
/// nothing, not even an error that waits.
///
/// # Errors
/// The kernel does not tell.
pub fn sequence(fd: Fd) -> Result<usize> {
    /// `struct tcp_zerocopy_receive`, up to `inq`. Nothing is to be mapped: less than a page.
    #[repr(C)]
    struct Receive {
        address: u64,
        length: u32,
        skip: u32,
        waits: u32,
    }
    // Where more than a page waits, the kernel wants a mapping that it could fill.
    // SAFETY: a new mapping at a free place.
    let page = unsafe { crate::memory::map(0, 1, PROT_READ, MAP_SHARED, fd, 0) }?;
    let mut receive = Receive { address: page as u64, length: 1, skip: 0, waits: 0 };
    let mut len = core::mem::offset_of!(Receive, waits) as u32 + 4;
    let at = ((&raw mut receive) as usize, (&raw mut len) as usize);
    let (level, name) = (SOL_TCP as usize, TCP_ZEROCOPY_RECEIVE as usize);
    // SAFETY: the kernel fills `receive` up to this length, and the length.
    let told = unsafe { call(Sysno::getsockopt, [arg(fd), level, name, at.0, at.1]) };
    // SAFETY: the mapping just made.
    unsafe { crate::memory::unmap(page, 1) }?;
    match told {
        // Nothing but the end.
        Err(Errno::EIO) => Ok(1),
        told => told.map(|_| receive.waits as usize),
    }
}

/// Sends a request to a netlink socket of this code's own and returns the bytes of the answer.
///
/// # Errors
/// The calls'.
pub fn ask(fd: Fd, request: &[u8], to: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel only reads the request.
    unsafe { call(Sysno::sendto, [arg(fd), request.as_ptr() as usize, request.len(), 0, 0, 0]) }?;
    more(fd, to)
}

/// The next part of an answer.
///
/// # Errors
/// The call's.
pub fn more(fd: Fd, to: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes only into `to`.
    unsafe { call(Sysno::recvfrom, [arg(fd), to.as_mut_ptr() as usize, to.len(), 0, 0, 0]) }
}
