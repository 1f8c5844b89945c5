//! What waits in sockets inside the process: seen without taking it, and sent again at the restart.

use image_format::record::socket::{HELPERS, Step};
use sys::Errno;
use sys::abi::POLLPRI;
use sys::abi::net::{
    ADDRESS_MAX, AF_UNIX, MSG_TRUNC, SCM_MAX_FD, SCM_PIDFD, SCM_RIGHTS, SIOCOUTQ, SO_OOBINLINE, SO_PEEK_OFF, SO_SNDBUF,
    SO_SNDBUFFORCE, SOCK_STREAM, SOL_SOCKET,
};
use sys::fs::{Fd, Owned};
use sys::socket::{number, peek, set_option, whole_pieces};

use super::address::Address;
use super::{One, Role, Steps, failed, refuse};
use crate::descriptor::OpenFile;
use crate::{Error, Result, Target};

/// Most bytes that are carried of one socket.
const CONTENTS_MAX: usize = 1 << 20;

/// A sender's room while it sends again, bytes; the kernel gives what this user may have.
const ROOM: u32 = 4 << 20;

/// `SO_PEEK_OFF` of a socket that has none.
const NO_OFFSET: u32 = u32::MAX;

/// Room for all control messages of one message.
const CONTROL: usize = 1400;

/// Steps that fill the sockets again.
///
/// # Errors
/// What waits cannot be carried; no room.
pub fn save<T: Target>(steps: &mut Steps<'_, '_, '_, T>, table: &[One], files: &[OpenFile]) -> Result<()> {
    for one in table {
        let connected = table.get(one.peer as usize).is_some();
        if one.family == AF_UNIX && !one.is(Role::Listens) && !one.is(Role::Waits) {
            let fd = steps.save.target.borrow(one.fd as Fd).map_err(failed(one, "cannot be looked into"))?;
            let locks = T::IN_PROCESS && files.iter().any(|file| file.locked != 0);
            if locks && sys::fs::waiting(fd.fd()).is_ok_and(|len| len != 0) {
                // Descriptors in transit are opened by a look, and closing one gives up the process's own locks on its file.
                let why = "holds data, and may not be looked into while the process holds locks on files";
                return Err(refuse(one, why, "save it by its PID, or let the program read the data"));
            }
            let before = number(fd.fd(), SOL_SOCKET, SO_PEEK_OFF).map_err(failed(one, "cannot be looked into"))?;
            let queue = Queue { table, files, one, fd: fd.fd() };
            let done = if one.kind == SOCK_STREAM { queue.stream(steps) } else { queue.messages(steps) };
            set_option(fd.fd(), SOL_SOCKET, SO_PEEK_OFF, &before.to_le_bytes()).map_err(failed(one, "is changed"))?;
            done?;
        } else if connected && one.is_tcp() {
            let fd = steps.save.target.borrow(one.fd as Fd).map_err(failed(one, "cannot be looked into"))?;
            delivered(one, fd.fd())?;
        }
    }
    // When all has arrived.
    for one in table.iter().filter(|one| one.is_tcp()) {
        let Some(peer) = table.get(one.peer as usize) else { continue };
        let fd = steps.save.target.borrow(one.fd as Fd).map_err(failed(one, "cannot be looked into"))?;
        let len = sys::fs::waiting(fd.fd()).map_err(failed(one, "cannot be looked into"))?;
        if len == 0 {
            continue;
        }
        let bytes = steps.save.scratch.bytes(limit(one, len)?)?;
        let seen = at_no_offset(one, fd.fd(), || peek(fd.fd(), 0, bytes, &mut [], &mut [0; ADDRESS_MAX]))?;
        if seen.map(|seen| seen.len) != Ok(len) {
            return Err(refuse(one, "holds data that cannot be read without taking it", "let the program read it"));
        }
        steps.push(peer.id, Step::Send, (0, 0), bytes)?;
    }
    Ok(())
}

/// Makes a peek that an offset of the program's own for peeks does not move, nor it that.
pub fn at_no_offset<R>(one: &One, fd: Fd, look: impl FnOnce() -> R) -> Result<R> {
    let before = number(fd, SOL_SOCKET, SO_PEEK_OFF).unwrap_or(NO_OFFSET);
    let offset = |offset: u32| match before {
        NO_OFFSET => Ok(()),
        _ => set_option(fd, SOL_SOCKET, SO_PEEK_OFF, &offset.to_le_bytes()).map_err(failed(one, "is changed")),
    };
    offset(NO_OFFSET)?;
    let seen = look();
    offset(before)?;
    Ok(seen)
}

/// Refuses a stream in which a byte waits that was sent as urgent (`MSG_OOB`): its mark can be asked for, but not where it is.
/// What lies behind it in a TCP connection shows in no peek.
///
/// # Errors
/// There is one.
pub fn check_urgent(one: &One, fd: Fd) -> Result<()> {
    let announced = sys::fs::ready(fd, POLLPRI).map_err(failed(one, "cannot be examined"))? & POLLPRI != 0;
    let is_marked = announced || one.is_tcp() && reads_up_to_a_mark(fd);
    if is_marked {
        let why = "holds urgent data (MSG_OOB), which cannot be carried";
        return Err(refuse(one, why, "let the program read it, and what was sent before it"));
    }
    Ok(())
}

/// Whether a TCP connection holds more than up to the next mark, whose own byte may have been read.
fn reads_up_to_a_mark(fd: Fd) -> bool {
    let waiting = || sys::fs::waiting(fd).unwrap_or(0);
    let Ok(0) = number(fd, SOL_SOCKET, SO_OOBINLINE) else { return false };
    // In line it tells of all.
    if set_option(fd, SOL_SOCKET, SO_OOBINLINE, &1u32.to_le_bytes()).is_err() {
        return false;
    }
    let all = waiting();
    let _ = set_option(fd, SOL_SOCKET, SO_OOBINLINE, &0u32.to_le_bytes());
    // Whatever comes meanwhile can only make it more.
    waiting() < all
}

fn limit(one: &One, len: usize) -> Result<usize> {
    if len > CONTENTS_MAX {
        return Err(refuse(one, "holds more than 1 MiB, which cannot be carried yet", "let the program read it"));
    }
    Ok(len)
}

/// What was sent has arrived at the other end: what has not been acknowledged yet is so soon.
fn delivered(one: &One, fd: Fd) -> Result<()> {
    for _ in 0..50 {
        let mut unacknowledged = 0i32;
        // SAFETY: the request fills a number of this size.
        unsafe { sys::fs::ioctl(fd, SIOCOUTQ, &mut unacknowledged) }.map_err(failed(one, "cannot be looked into"))?;
        if unacknowledged == 0 {
            return Ok(());
        }
        sys::time::nap();
    }
    let why = "holds data that does not fit into the other end, which cannot be carried";
    Err(refuse(one, why, "let the program read there"))
}

/// A Unix socket that may hold something.
struct Queue<'t> {
    table: &'t [One],
    files: &'t [OpenFile],
    one: &'t One,
    fd: Fd,
}

/// Descriptors that came with a peek: this process's own, closed with the value.
struct Got {
    fds: [Option<Owned>; SCM_MAX_FD],
    count: usize,
}

impl Got {
    const fn none() -> Self {
        Self { fds: [const { None }; SCM_MAX_FD], count: 0 }
    }
}

impl Queue<'_> {
    fn failed(&self) -> impl Fn(Errno) -> Error {
        failed(self.one, "cannot be looked into")
    }

    fn look(&self, at: usize, how: usize, to: &mut [u8], from: &mut [u8; ADDRESS_MAX]) -> Result<(usize, usize, Got)> {
        set_option(self.fd, SOL_SOCKET, SO_PEEK_OFF, &(at as u32).to_le_bytes()).map_err(self.failed())?;
        let mut control = [0; CONTROL];
        let seen = peek(self.fd, how, to, &mut control, from).map_err(self.failed())?;
        let mut got = Got::none();
        let mut rest = control.get(..seen.control).unwrap_or_default();
        while let Some(([len, _, level, kind], body)) = rest.split_at_checked(16).map(|(head, _)| (words(head), rest)) {
            let len = len as usize;
            if level == SOL_SOCKET && matches!(kind, SCM_RIGHTS | SCM_PIDFD) {
                let fds = body.get(16..len).unwrap_or_default().as_chunks::<4>().0;
                for (place, fd) in got.fds.iter_mut().skip(got.count).zip(fds) {
                    *place = Some(Owned::new(i32::from_le_bytes(*fd)));
                }
                // A pidfd is the receiver's wish, and no part of the message.
                got.count += if kind == SCM_RIGHTS { fds.len() } else { 0 };
            }
            rest = rest.get(len.max(16).next_multiple_of(8)..).unwrap_or_default();
        }
        Ok((seen.len, seen.from, got))
    }

    /// All of a stream, cut where descriptors come with a byte.
    fn stream<T: Target>(&self, steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
        let len = sys::fs::waiting(self.fd).map_err(self.failed())?;
        let bytes = steps.save.scratch.bytes(limit(self.one, len)?)?;
        let mut from = [0; ADDRESS_MAX];
        let mut at = 0;
        while let Some(to) = bytes.get_mut(at..).filter(|to| !to.is_empty()) {
            let (got, _, rights) = self.look(at, 0, to, &mut from)?;
            if got == 0 {
                return Err(self.failed()(Errno::EIO));
            }
            // The last piece is the one that they came with; what is in front of it came without.
            let mut plain = 0;
            if rights.count != 0 {
                set_option(self.fd, SOL_SOCKET, SO_PEEK_OFF, &(at as u32).to_le_bytes()).map_err(self.failed())?;
                plain = whole_pieces(self.fd, to.get_mut(..got - 1).unwrap_or_default()).map_err(self.failed())?;
            }
            let (plain, rest) = to.get(..got).and_then(|all| all.split_at_checked(plain)).unwrap_or_default();
            if !plain.is_empty() {
                self.send(steps, &Got::none(), plain, None)?;
            }
            self.send(steps, &rights, rest, None)?;
            at += got;
        }
        Ok(())
    }

    /// Messages, each as one.
    fn messages<T: Target>(&self, steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
        let mut at = 0;
        let mut from = [0; ADDRESS_MAX];
        loop {
            set_option(self.fd, SOL_SOCKET, SO_PEEK_OFF, &(at as u32).to_le_bytes()).map_err(self.failed())?;
            let seen = match peek(self.fd, MSG_TRUNC, &mut [], &mut [], &mut from) {
                Ok(seen) => seen,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(e) => return Err(self.failed()(e)),
            };
            // The end of a connection of messages reads as an empty one, for ever.
            if seen.len == 0 && self.one.shut & 1 != 0 {
                return Ok(());
            }
            let bytes = steps.save.scratch.bytes(limit(self.one, at + seen.len)? - at)?;
            let rights = if seen.len == 0 { Got::none() } else { self.look(at, 0, bytes, &mut from)?.2 };
            let from = Address::of(&from, seen.from);
            self.send(steps, &rights, bytes, Some(from))?;
            at += seen.len;
        }
    }

    /// Steps that send something to this socket again. `from`: the sender's address, of messages.
    fn send<T: Target>(
        &self,
        steps: &mut Steps<'_, '_, '_, T>,
        rights: &Got,
        bytes: &[u8],
        from: Option<Address>,
    ) -> Result<()> {
        let one = self.one;
        let (sender, unconnected) = self.sender(steps, from)?;
        for fd in rights.fds.iter().take(rights.count).flatten() {
            let same = |f: &&OpenFile| f.id == f.fd && steps.save.target.is_same(fd.fd(), f.fd as Fd) == Some(true);
            let Some(file) = self.files.iter().find(same) else {
                let why = "holds a descriptor in transit of what the process has not open itself";
                return Err(refuse(one, why, "let the program receive it"));
            };
            steps.push(sender, Step::Right, (file.id, 0), &[])?;
        }
        if unconnected {
            steps.push(sender, Step::To, (0, 0), one.local.bytes())?;
        }
        // The same bytes in other pieces may take more of the sender's room than they took.
        let size = |steps: &mut Steps<'_, '_, '_, T>, size: u32| -> Result<()> {
            for name in [SO_SNDBUF, SO_SNDBUFFORCE] {
                steps.push(sender, Step::Wish, (SOL_SOCKET, name), &size.to_le_bytes())?;
            }
            Ok(())
        };
        size(steps, ROOM)?;
        steps.push(sender, Step::Send, (0, 0), bytes)?;
        let Some(own) = self.table.iter().find(|other| other.id == sender) else { return Ok(()) };
        let fd = steps.save.target.borrow(own.fd as Fd).map_err(self.failed())?;
        let before = number(fd.fd(), SOL_SOCKET, SO_SNDBUF).map_err(self.failed())?;
        size(steps, before / 2)
    }

    /// Who sends: the peer, the socket of that name, or a helper.
    fn sender<T: Target>(&self, steps: &mut Steps<'_, '_, '_, T>, from: Option<Address>) -> Result<(u32, bool)> {
        let one = self.one;
        if one.is(Role::Alone) {
            // The helpers of such ones were the first to be made.
            let before = self.table.iter().take_while(|other| other.id != one.id).filter(|other| other.is(Role::Alone));
            return Ok((HELPERS + before.count() as u32, false));
        }
        if let Some(peer) = self.table.get(one.peer as usize) {
            return Ok((peer.id, peer.peer_ino != one.ino));
        }
        if let Some(from) = from.filter(Address::is_set) {
            let named = self.table.iter().find(|other| other.family == AF_UNIX && other.local == from);
            let Some(named) = named else {
                let why = "holds a message of another process, which cannot be carried";
                return Err(refuse(one, why, "let the program read it"));
            };
            return Ok((named.id, named.peer_ino != one.ino));
        }
        // One that has no name, but is connected to this one.
        let unnamed = self.table.iter().find(|other| other.peer_ino == one.ino && !other.local.is_set());
        match unnamed {
            Some(unnamed) => Ok((unnamed.id, false)),
            None => {
                let helper = steps.helper(one)?;
                steps.push(helper, Step::Make, (0, 0), &[])?;
                Ok((helper, true))
            }
        }
    }
}

/// The words of a control message's head.
fn words(head: &[u8]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(head.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}
