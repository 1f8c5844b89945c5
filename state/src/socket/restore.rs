//! The calls that make sockets again, in the order of their table. Must never know why: the saver does.

use image_format::record::socket::{Socket, SocketStep, Step};
use image_format::{Checked, ExitCode};
use sys::abi::net::{
    ADDRESS_MAX, AF_INET, AF_INET6, AF_UNIX, SO_PEERCRED, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOL_SOCKET,
};
use sys::abi::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, F_SETFL, O_DIRECTORY, O_PATH, S_IFMT, S_IFSOCK};
use sys::fs::{Fd, Owned};
use sys::socket::{Rights, request};
use sys::{Errno, Sysno};

use crate::descriptor::now;
use crate::restart::{Error, Result};
use crate::wait::Wait;

/// Nothing here waits, whatever an image asks for.
const NEW: u32 = SOCK_CLOEXEC | SOCK_NONBLOCK;

/// How often a step is tried: a process that was killed just now may not have closed its own yet; a connection may take a moment, and
/// so may what is on its way in one. What may fail is not worth waiting for.
const TRIES: u32 = 30;
const TRIES_IN_VAIN: u32 = 3;

/// `struct sockaddr_un`, the longest address: the kernel tells of one byte more, the NUL behind the longest path.
const TAKEN_MAX: usize = 110;

/// A Unix address that asks for any name.
const ANY_LEN: usize = 2;

/// An address. Its first word is the family and the port.
type Words = [[u8; 4]; ADDRESS_MAX / 4];
/// The IPv4 address.
const V4: usize = 1;
/// The last word of the IPv6 address, which is the IPv4 address of one that stands for such.
const V6_END: usize = 5;

/// Makes all sockets. `open`: where the program's descriptors of other kinds are now. The sockets' come into `made`, in the
/// order of their table. `wait`: for addresses that another process has.
///
/// # Errors
/// The descriptor, its address and the call that fails.
#[inline(never)]
pub fn restore(image: &Checked<'_>, made: &mut [Fd], open: &[Fd], wait: &mut Wait) -> Result<()> {
    let table = image.table::<Socket>();
    let home = sys::fs::open(c".", O_PATH | O_DIRECTORY, 0);
    let home = home.as_ref().map_or(-1, Owned::fd);
    let mut calls = Calls { image, made, open, home, rights: Rights::default(), to: &[], bound: false, tries: 0 };
    for step in image.each::<SocketStep>() {
        let index = step.socket.get() as usize;
        let (Some(socket), Some(what)) = (table.get(index), Step::from_number(step.step.get())) else { continue };
        let may_fail = what == Step::Wish || what == Step::Bind && step.a.get() == 1;
        calls.tries = if may_fail { TRIES_IN_VAIN } else { TRIES };
        let mut bytes = image.contents(step.bytes);
        let done = loop {
            match calls.make(what, socket, step, &mut bytes) {
                Err(Errno::EADDRINUSE | Errno::EAGAIN) if calls.tries != 0 => calls.tries -= 1,
                Err(Errno::EADDRINUSE) if !may_fail && wait.again(image.string(socket.name)) => continue,
                done => break done,
            }
            sys::time::nap();
        };
        match done {
            Ok(fd) => calls.put(index, fd),
            Err(_) if may_fail => {}
            Err(e) => {
                let why = if what == Step::Bind { "cannot have its address" } else { "cannot be made again" };
                let (name, words) = (image.string(socket.name), [why, "end whoever has it, or --retry 70"]);
                return Err(Error::descriptor(ExitCode::Descriptor, socket.id.get(), "socket @", name, e, words));
            }
        }
    }
    for (socket, fd) in table.iter().zip(calls.made) {
        let _ = sys::fs::fcntl(*fd, F_SETFL, socket.flags.get() as usize);
    }
    Ok(())
}

/// Which arguments a step's call has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// There is not one call alone.
    Other,
    /// The kind of a socket.
    Kind,
    /// Two numbers and bytes; the shorter calls do not look at the rest.
    Numbers,
    /// Two numbers and a packet filter, the bytes.
    Filter,
    /// The bytes, an address.
    Address,
    /// The path in the bytes, and two numbers.
    Path,
}

/// The calls of [`Step`]s, from 1 on.
const CALLS: [(Sysno, Takes); 20] = [
    (Sysno::socket, Takes::Kind),
    (Sysno::socketpair, Takes::Other),
    (Sysno::accept4, Takes::Other),
    (Sysno::setsockopt, Takes::Numbers),
    (Sysno::bind, Takes::Address),
    (Sysno::listen, Takes::Numbers),
    (Sysno::connect, Takes::Address),
    (Sysno::sendmsg, Takes::Other),
    (Sysno::sendmsg, Takes::Other),
    (Sysno::sendmsg, Takes::Other),
    (Sysno::shutdown, Takes::Numbers),
    (Sysno::setsockopt, Takes::Numbers),
    (Sysno::close, Takes::Numbers),
    (Sysno::unlinkat, Takes::Path),
    (Sysno::fchownat, Takes::Path),
    (Sysno::ioctl, Takes::Other),
    (Sysno::getsockopt, Takes::Other),
    (Sysno::chdir, Takes::Other),
    (Sysno::setsockopt, Takes::Filter),
    (Sysno::fchmodat, Takes::Path),
];

/// What a step finds, and leaves for the next ones.
struct Calls<'i, 'm> {
    image: &'i Checked<'i>,
    made: &'m mut [Fd],
    open: &'m [Fd],
    /// The directory in which the paths begin.
    home: Fd,
    rights: Rights,
    to: &'i [u8],
    /// Whether the last socket that was to have a path could have it: else the file there is another one's.
    bound: bool,
    tries: u32,
}

impl<'i> Calls<'i, '_> {
    #[inline(never)]
    fn put(&mut self, index: usize, fd: Fd) {
        if let Some(place) = self.made.get_mut(index) {
            *place = fd;
        }
    }

    #[inline(never)]
    fn at(&self, index: usize) -> Fd {
        self.made.get(index).copied().unwrap_or(-1)
    }

    /// Tries a step once; which descriptor its socket has then. `bytes`: the step's, as far as they are not sent yet.
    #[inline(never)]
    fn make(&mut self, what: Step, socket: &Socket, step: &SocketStep, bytes: &mut &'i [u8]) -> sys::Result<Fd> {
        let (number, takes) = CALLS.get((what as usize).wrapping_sub(1)).copied().ok_or(Errno::EINVAL)?;
        let (a, b) = (step.a.get() as usize, step.b.get() as usize);
        let fd = self.at(step.socket.get() as usize);
        let kind = [socket.family.get() as usize, (socket.kind.get() | NEW) as usize, socket.protocol.get() as usize];
        let is_named =
            matches!(takes, Takes::Address | Takes::Path) && bytes.first_chunk() == Some(&[AF_UNIX as u8, 0]);
        if is_named || what == Step::Within {
            // The name of a Unix socket is a path, behind its family.
            *bytes = self.image.rename(bytes, if is_named { 2 } else { 0 });
        }
        let (at, len) = (bytes.as_ptr() as usize, bytes.len());
        let mut address = [[0; 4]; ADDRESS_MAX / 4];
        let filter = [len / 8, at];
        let args = match takes {
            Takes::Other => return self.other(what, (fd, a, b), kind, bytes),
            Takes::Kind => [kind[0], kind[1], kind[2], 0, 0],
            Takes::Numbers => [fd as usize, a, b, at, len],
            Takes::Filter => [fd as usize, a, b, (&raw const filter) as usize, 16],
            Takes::Path => [AT_FDCWD as usize, at + 2, a, b, AT_SYMLINK_NOFOLLOW],
            Takes::Address if len != 0 => [fd as usize, at, len.min(TAKEN_MAX), 0, 0],
            Takes::Address => {
                let len = name_of(self.at(a), socket.family.get(), &mut address)?;
                [fd as usize, address.as_ptr() as usize, (len as usize).min(TAKEN_MAX), 0, 0]
            }
        };
        if what == Step::Unlink && !self.bound {
            return Ok(fd);
        }
        // SAFETY: a call of the table, which reads the bytes, the address or the filter, or closes a socket that was made here.
        let call = || unsafe { request(number, args) };
        let mut done = call();
        if what == Step::Bind && is_named && len > ANY_LEN {
            if done == Err(Errno::EADDRINUSE) && a == 0 {
                make_way(bytes, args)?;
                done = call();
            }
            self.bound = done.is_ok();
        }
        match (what, done) {
            (Step::Make, _) => return done,
            (Step::Close, _) => return Ok(-1),
            (Step::Owner, Err(e)) => {
                let path = bytes.get(2..).unwrap_or_default();
                sys::message::say("restart-stub: @: cannot have its owner and group (!)\n", 0, path, e.into_raw());
            }
            (_, Ok(_)) | (Step::Connect, Err(Errno::EINPROGRESS)) | (Step::Shutdown, Err(Errno::ENOTCONN)) => {}
            _ => return done,
        }
        Ok(fd)
    }

    /// The same, of those that are more than one call, or none.
    fn other(
        &mut self,
        what: Step,
        (fd, a, b): (Fd, usize, usize),
        kind: [usize; 3],
        bytes: &mut &'i [u8],
    ) -> sys::Result<Fd> {
        match what {
            Step::Pair => {
                let [one, two] = sys::socket::pair(kind)?.map(Owned::release);
                self.put(a, two);
                return Ok(one);
            }
            Step::Accept => return accept(self.at(a), self.at(b)),
            Step::Right => {
                let sent = if b == 0 { now(self.image, self.open, a as u32) } else { Some(self.at(a)) };
                self.rights.add(sent.unwrap_or(-1));
            }
            Step::To => self.to = bytes.get(..TAKEN_MAX).unwrap_or(bytes),
            Step::Send => {
                loop {
                    let sent = sys::socket::send(fd, bytes, &mut self.rights, self.to)?;
                    *bytes = bytes.get(sent as usize..).unwrap_or_default();
                    if bytes.is_empty() {
                        break;
                    }
                    // Some of it may have been taken in meanwhile.
                    self.tries = TRIES;
                }
                self.to = &[];
            }
            Step::Arrive if sys::fs::waiting(fd)? < a => return Err(Errno::EAGAIN),
            Step::Reach => {
                let [there, ..] = sys::socket::number(fd, a as u32, b as u32)?.to_le_bytes();
                if Some(&there) < bytes.first() {
                    return Err(Errno::EAGAIN);
                }
            }
            Step::Within if bytes.is_empty() => sys::fs::enter(self.home)?,
            Step::Within => sys::fs::chdir(bytes)?,
            _ => {}
        }
        Ok(fd)
    }
}

/// Bytes of an address's words.
fn flat(address: &mut Words) -> &mut [u8; ADDRESS_MAX] {
    zerocopy::transmute_mut!(address)
}

/// A socket's own address for one of this family: an IPv4 address may be needed as one of IPv6, or the other way about. Its length.
#[inline(never)]
fn name_of(fd: Fd, family: u32, address: &mut Words) -> sys::Result<u32> {
    let len = sys::socket::address(fd, false, flat(address))?;
    let own = address[0][0];
    if u32::from(own) == family || u32::from(own) == AF_UNIX {
        return Ok(len);
    }
    address[0][0] = family as u8;
    Ok(if family == AF_INET {
        address[V4] = address[V6_END];
        16
    } else {
        [address[V6_END], address[V6_END - 1], address[V4]] = [address[V4], [0, 0, 0xff, 0xff], [0; 4]];
        28
    })
}

/// Accepts the connection of this client. Those of others, who came in between, are ended.
fn accept(listener: Fd, client: Fd) -> sys::Result<Fd> {
    let client = whose(client, false)?;
    let new = sys::socket::accept(listener, NEW)?;
    if client == whose(new.fd(), true).unwrap_or_default() {
        return Ok(new.release());
    }
    Err(Errno::EAGAIN)
}

/// What tells a client from others, by its own address, or by that of a connection's other side: port and IPv4 address, or the end of
/// that of IPv6. Of a Unix socket who made it.
#[inline(never)]
fn whose(fd: Fd, peer: bool) -> sys::Result<(u32, u32)> {
    let mut address = [[0; 4]; ADDRESS_MAX / 4];
    sys::socket::address(fd, peer, flat(&mut address))?;
    let port = u32::from_be_bytes(address[0]) & 0xffff;
    let place = match u32::from(address[0][0]) {
        AF_UNIX if peer => sys::socket::number(fd, SOL_SOCKET, SO_PEERCRED)?,
        AF_UNIX => sys::process::pid() as u32,
        AF_INET6 => u32::from_be_bytes(address[V6_END]),
        _ => u32::from_be_bytes(address[V4]),
    };
    Ok((port, place))
}

/// Removes the file that keeps a Unix socket from its address, if it is that of a socket that nobody has any more. `args`: the `bind`'s.
#[inline(never)]
fn make_way(address: &[u8], args: [usize; 5]) -> sys::Result<()> {
    let [_, at, len, ..] = args;
    let [_, _, path @ .., 0] = address else { return Err(Errno::EADDRINUSE) };
    let mode = sys::fs::lstat_path(path)?.mode;
    // A socket of another type there has its own message: this is about none at all.
    let probe = sys::socket::make(AF_UNIX, SOCK_DGRAM | NEW, 0)?;
    // SAFETY: the kernel only reads the path, which ends with a NUL.
    let on_file = |number, value| unsafe { request(number, [AT_FDCWD as usize, at + 2, value, 0, 0]) };
    // SAFETY: the kernel only reads the address.
    let connect = || unsafe { request(Sysno::connect, [probe.fd() as usize, at, len, 0, 0]) };
    let mut answer = connect();
    if mode & S_IFMT == S_IFSOCK {
        if answer == Err(Errno::EACCES) {
            // A file of this user's own that nobody may connect to, perhaps.
            on_file(Sysno::fchmodat, 0o600)?;
            answer = connect();
            on_file(Sysno::fchmodat, mode as usize)?;
        }
        if answer == Err(Errno::ECONNREFUSED) {
            return on_file(Sysno::unlinkat, 0).map(drop);
        }
    }
    Err(Errno::EADDRINUSE)
}
