//! The calls that make sockets again, in the order of their table. Must never know why: the saver does.

use image_format::record::socket::{Socket, SocketStep, Step};
use image_format::{Checked, ExitCode};
use sys::abi::net::{ADDRESS_MAX, AF_UNIX, SOCK_CLOEXEC};
use sys::abi::{AT_FDCWD, F_SETFL, S_IFMT, S_IFSOCK};
use sys::fs::{Fd, Owned};
use sys::socket::{Rights, request};
use sys::text::{Decimal, Shown, Text};
use sys::{Errno, Sysno};

use crate::descriptor::now;
use crate::{Error, Result};

/// Makes all sockets. `open`: where the program's descriptors of other kinds are now. The sockets' come into `made`, in the
/// order of their table.
///
/// # Errors
/// The descriptor, its address and the call that fails.
pub fn restore(image: &Checked<'_>, made: &mut [Fd], open: &[Fd]) -> Result<()> {
    let table = image.table::<Socket>();
    let place = |id: u32| table.iter().position(|s| s.id.get() == id).unwrap_or(usize::MAX);
    let (mut rights, mut to) = (Rights::default(), &[] as &[u8]);
    for step in image.each::<SocketStep>() {
        let (id, a) = (step.socket.get(), step.a.get());
        let index = place(id);
        let Some(socket) = table.get(index) else { continue };
        let at = |id: u32| made.get(place(id)).copied().or_else(|| now(image, open, id)).unwrap_or(-1);
        let (fd, other) = (at(id), at(a));
        let bytes = image.contents(step.bytes);
        let own = [socket.family, socket.kind, socket.protocol].map(|n| n.get() as usize);
        let what = Step::from_number(step.step.get()).unwrap_or(Step::Wish);
        let mut call = || run(what, step, (fd, other), own, bytes, (&mut rights, &mut to));
        let mut done = call();
        // A process that was killed just now may not have closed its own yet.
        for _ in 0..30 {
            if done != Err(Errno::EADDRINUSE) {
                break;
            }
            sys::time::nap();
            done = call();
        }
        match (what, done) {
            (Step::Make | Step::Accept, Ok(new)) => put(made, index, new as Fd),
            (Step::Pair, Ok(new)) => {
                put(made, index, new as u32 as Fd);
                put(made, place(a), (new >> 32) as Fd);
            }
            (_, Ok(_)) | (Step::Wish, _) | (Step::Shutdown, Err(Errno::ENOTCONN)) => {}
            (Step::Bind, Err(_)) if a == 1 => {}
            (_, Err(e)) => {
                let name = image.string(socket.name);
                return Err(Error::failed(
                    format_args!("descriptor {} (socket {})", Decimal(id), Shown(name)),
                    match what {
                        Step::Bind => "cannot have its address",
                        Step::Option => "cannot have an option",
                        Step::Send => "cannot hold what it held",
                        _ => "cannot be made again",
                    },
                    e,
                )
                .code(ExitCode::Descriptor)
                .remedy(if what == Step::Bind { "end whoever has it" } else { "" }));
            }
        }
    }
    for (socket, fd) in table.iter().zip(made) {
        let _ = sys::fs::fcntl(*fd, F_SETFL, socket.flags.get() as usize);
    }
    Ok(())
}

fn put(made: &mut [Fd], index: usize, fd: Fd) {
    if let Some(place) = made.get_mut(index) {
        *place = fd;
    }
}

/// Makes one call; two descriptors come as the halves of a number.
fn run<'i>(
    what: Step,
    step: &SocketStep,
    (fd, other): (Fd, Fd),
    [family, kind, protocol]: [usize; 3],
    bytes: &'i [u8],
    (rights, to): (&mut Rights, &mut &'i [u8]),
) -> sys::Result<usize> {
    let (fd, kind) = (fd as usize, kind | SOCK_CLOEXEC as usize);
    let (a, b) = (step.a.get() as usize, step.b.get() as usize);
    let (at, len) = (bytes.as_ptr() as usize, bytes.len());
    let mut address = [0; ADDRESS_MAX];
    let (number, args) = match what {
        Step::Make => (Sysno::socket, [family, kind, protocol, 0, 0]),
        Step::Pair => {
            let [one, two] = sys::socket::pair(family, kind, protocol)?;
            return Ok(one as usize | (two as usize) << 32);
        }
        Step::Accept => (Sysno::accept4, [other as usize, 0, 0, SOCK_CLOEXEC as usize, 0]),
        Step::Option | Step::Wish => (Sysno::setsockopt, [fd, a, b, at, len]),
        Step::Bind if bytes.first() == Some(&(AF_UNIX as u8)) => return bind_file(fd as Fd, kind, bytes, b),
        Step::Bind => (Sysno::bind, [fd, at, len, 0, 0]),
        Step::Listen => (Sysno::listen, [fd, a, 0, 0, 0]),
        Step::Connect if len == 0 => {
            let len = sys::socket::address(other, false, &mut address)?;
            (Sysno::connect, [fd, address.as_ptr() as usize, len, 0, 0])
        }
        Step::Connect => (Sysno::connect, [fd, at, len, 0, 0]),
        Step::Shutdown => (Sysno::shutdown, [fd, a, 0, 0, 0]),
        Step::Right => {
            rights.add(other);
            return Ok(0);
        }
        Step::To => {
            *to = bytes;
            return Ok(0);
        }
        Step::Send => {
            let sent = sys::socket::send(fd as Fd, bytes, rights, to);
            (*rights, *to) = (Rights::default(), &[]);
            return sent.map(|()| 0);
        }
    };
    let [a, b, c, d, e] = args;
    request(number, [a, b, c, d, e, 0])
}

/// Binds a Unix socket; a socket file that nobody listens at any more goes first.
fn bind_file(fd: Fd, kind: usize, bytes: &[u8], mode: usize) -> sys::Result<usize> {
    let args = |fd: Fd| [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
    let mut path = Text::<ADDRESS_MAX>::new();
    path.push(bytes.get(2..).unwrap_or_default());
    let path = path.as_c_str();
    let mut done = request(Sysno::bind, args(fd));
    if done == Err(Errno::EADDRINUSE) && sys::fs::stat(path).is_ok_and(|s| s.mode & S_IFMT == S_IFSOCK) {
        let probe = Owned::new(sys::fs::make(Sysno::socket, [AF_UNIX as usize, kind, 0, 0])?);
        if request(Sysno::connect, args(probe.fd())) == Err(Errno::ECONNREFUSED) {
            sys::fs::unlink_at(AT_FDCWD, path)?;
            done = request(Sysno::bind, args(fd));
        }
    }
    if mode != 0 && done.is_ok() {
        request(Sysno::fchmodat, [AT_FDCWD as usize, path.as_ptr() as usize, mode, 0, 0, 0])?;
    }
    done
}
