//! The calls that make sockets again, in the order of their table. Must never know why: the saver does.

use image_format::record::socket::{Socket, SocketStep, Step};
use image_format::{Checked, ExitCode};
use sys::abi::net::{ADDRESS_MAX, AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK};
use sys::abi::{AT_FDCWD, F_SETFL, S_IFMT, S_IFSOCK};
use sys::fs::{Fd, Owned};
use sys::packed;
use sys::socket::{Rights, request};
use sys::{Errno, Sysno};

use crate::descriptor::now;
use crate::{Error, Result};

/// Makes all sockets. `open`: where the program's descriptors of other kinds are now. The sockets' come into `made`, in the
/// order of their table.
///
/// # Errors
/// The descriptor, its address and the call that fails.
#[inline(never)]
pub fn restore(image: &Checked<'_>, made: &mut [Fd], open: &[Fd]) -> Result<()> {
    let table = image.table::<Socket>();
    let (mut rights, mut to) = (Rights::default(), &[] as &[u8]);
    for step in image.each::<SocketStep>() {
        let (index, a, b) = (step.socket.get() as usize, step.a.get() as usize, step.b.get() as usize);
        let Some(socket) = table.get(index) else { continue };
        let at = |index: usize| made.get(index).copied().unwrap_or(-1);
        let [fd, mut other, third] = [index, a, b].map(at);
        let mut bytes = image.contents(step.bytes);
        let what = Step::from_number(step.step.get()).unwrap_or(Step::Wish);
        // The name of a Unix socket is a path, behind its family.
        if matches!(what, Step::Bind | Step::Connect | Step::To) && bytes.first_chunk() == Some(&[AF_UNIX as u8, 0]) {
            bytes = image.rename(bytes, 2);
        }
        let mut tries = 0;
        let done = loop {
            let done = match what {
                Step::Make => {
                    let kind = socket.kind.get() | NEW;
                    sys::fs::make(
                        Sysno::socket,
                        [socket.family.get(), kind, socket.protocol.get(), 0].map(|n| n as usize),
                    )
                }
                Step::Pair => {
                    let own = [socket.family, socket.kind, socket.protocol].map(|n| n.get() as usize);
                    sys::socket::pair(own).map(|[one, two]| {
                        put(made, a, two);
                        one
                    })
                }
                Step::Accept => accept(other, third),
                Step::Right => {
                    if b == 0 {
                        other = now(image, open, a as u32).unwrap_or(-1);
                    }
                    rights.add(other);
                    Ok(fd)
                }
                Step::To => {
                    to = bytes;
                    Ok(fd)
                }
                Step::Send => match sys::socket::send(fd, bytes, &mut rights, to) {
                    Ok(sent) if sent < bytes.len() => {
                        bytes = bytes.get(sent..).unwrap_or_default();
                        Err(Errno::EAGAIN)
                    }
                    sent => sent.map(|_| fd),
                },
                _ => run(what, (fd, other), (a, b), bytes).map(|_| fd),
            };
            match done {
                // A process that was killed just now may not have closed its own yet; a connection may take a moment, and so may
                // what is on its way in one.
                Err(Errno::EADDRINUSE | Errno::EAGAIN) if tries < 30 => tries += 1,
                other => break other,
            }
            sys::time::nap();
        };
        if what == Step::Send {
            to = &[];
        }
        match done {
            Ok(new) => put(made, index, new),
            Err(_) if what == Step::Wish || (what == Step::Bind && a == 1) => {}
            Err(Errno::ENOTCONN) if what == Step::Shutdown => {}
            Err(Errno::EINPROGRESS) if what == Step::Connect => {}
            Err(e) => {
                let why = if what == Step::Bind {
                    packed!("cannot have its address")
                } else {
                    packed!("cannot be made again")
                };
                let error =
                    Error::descriptor(socket.id.get(), packed!("socket"), image.string(socket.name), why, Some(e));
                return Err(error
                    .code(ExitCode::Descriptor)
                    .hint(packed!("end whoever has it, or wait a minute, as long as one that has ended keeps it")));
            }
        }
    }
    for (socket, fd) in table.iter().zip(made) {
        let _ = sys::fs::fcntl(*fd, F_SETFL, socket.flags.get() as usize);
    }
    Ok(())
}

/// Nothing here waits, whatever an image asks for.
const NEW: u32 = SOCK_CLOEXEC | SOCK_NONBLOCK;

fn put(made: &mut [Fd], index: usize, fd: Fd) {
    if let Some(place) = made.get_mut(index) {
        *place = fd;
    }
}

/// Makes a call on a socket.
fn run(what: Step, (fd, other): (Fd, Fd), (a, b): (usize, usize), bytes: &[u8]) -> sys::Result<usize> {
    let (mut at, mut len) = (bytes.as_ptr() as usize, bytes.len());
    let mut address = [0; ADDRESS_MAX];
    let number = match what {
        Step::Bind => return bind(fd, bytes, b),
        Step::Connect => {
            if len == 0 {
                (at, len) = (address.as_mut_ptr() as usize, sys::socket::address(other, false, &mut address)?);
            }
            return request(Sysno::connect, [fd as usize, at, len, 0, 0]);
        }
        Step::Listen => Sysno::listen,
        Step::Shutdown => Sysno::shutdown,
        _ => Sysno::setsockopt,
    };
    // The shorter calls do not look at the rest.
    request(number, [fd as usize, a, b, at, len])
}

/// Accepts the connection of this client; those of others, who came in between, are ended.
fn accept(listener: Fd, client: Fd) -> sys::Result<Fd> {
    // Family, port, and four bytes of the address.
    let name = |fd: Fd, peer: bool| {
        let mut address = [0; ADDRESS_MAX];
        sys::socket::address(fd, peer, &mut address).map(|_| address.first_chunk::<8>().copied())
    };
    loop {
        let new = request(Sysno::accept4, [listener as usize, 0, 0, NEW as usize, 0])? as Fd;
        if name(client, false)? == name(new, true)? {
            return Ok(new);
        }
        sys::fs::close(new);
    }
}

/// Binds; the file of a Unix socket that nobody has any more is taken away, for another try.
fn bind(fd: Fd, bytes: &[u8], mode: usize) -> sys::Result<usize> {
    let at = bytes.as_ptr() as usize;
    let args = |fd: Fd| [fd as usize, at, bytes.len(), 0, 0];
    let done = request(Sysno::bind, args(fd));
    // Behind the family; the NUL at the end is the kernel's own.
    let path = match bytes {
        [family, 0, path @ .., 0] if u32::from(*family) == AF_UNIX && path.first() != Some(&0) => path,
        _ => return done,
    };
    let on_path = |number, value| request(number, [AT_FDCWD as usize, at + 2, value, 0, 0]);
    if done == Err(Errno::EADDRINUSE) {
        // Who has another type of socket there is told so: this is about one who has none.
        let kind = (SOCK_DGRAM | NEW) as usize;
        let probe = Owned::new(sys::fs::make(Sysno::socket, [AF_UNIX as usize, kind, 0, 0])?);
        let refused = request(Sysno::connect, args(probe.fd())) == Err(Errno::ECONNREFUSED);
        if refused && sys::fs::stat_path(path)?.mode & S_IFMT == S_IFSOCK {
            on_path(Sysno::unlinkat, 0)?;
        }
    } else if mode != 0 {
        on_path(Sysno::fchmodat, mode)?;
    }
    done
}
