//! What waits in a TCP connection: all of it is brought to where it can be seen, and copied without taking it.
//!
//! A receiver that is full keeps the rest with the sender, where nobody but the kernel may look. So its room is made greater, as the
//! kernel itself does for one that reads fast. Must never leave an option of the program's other than it was.

use sys::abi::net::{
    ADDRESS_MAX, SIOCOUTQ, SO_BUF_LOCK, SO_PEEK_OFF, SO_RCVBUF, SO_RCVBUFFORCE, SO_RCVLOWAT, SOL_SOCKET,
    TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2,
};
use sys::fs::{Fd, Owned};
use sys::socket::{number, peek, set_option};

use super::one::{One, failed, refuse};
use super::steps::Steps;
use super::tcp;
use crate::{Result, Target};

/// Most bytes that are carried of one connection.
const CONTENTS_MAX: usize = 64 << 20;

/// `SO_PEEK_OFF` of a socket that has none.
const NO_OFFSET: u32 = u32::MAX;

/// In [`SO_BUF_LOCK`]: the program has set the size of the receiver's room.
const RECEIVES: u32 = 2;

/// How often is looked whether all has arrived, ten milliseconds each; and after how many the room is made greater.
const LOOKS: u32 = 200;
const PATIENT: u32 = 3;

/// Where the rest of it is.
#[derive(Clone, Copy, Debug)]
pub enum Sender<'t> {
    /// Nobody has a rest.
    Nobody,
    /// In this socket.
    Saved(&'t One),
    /// In one that nobody has a descriptor of any more; its end comes behind.
    Left,
}

/// A copy of all that waits, or is on its way.
///
/// # Errors
/// It does not come, or is too much; no room.
pub fn contents<'b, T: Target>(steps: &mut Steps<'_, '_, 'b, T>, one: &One, sender: Sender<'_>) -> Result<&'b [u8]> {
    let own = steps.borrow(one)?;
    let from = match sender {
        Sender::Saved(peer) => Some(steps.borrow(peer)?),
        _ => None,
    };
    let mut room = Room { one, fd: own.fd(), before: None };
    let come = arrive(steps.save.target, &mut room, &own, (sender, from.as_ref()));
    let copied = come.and_then(|()| copy(steps, one, own.fd()));
    room.put_back()?;
    copied
}

fn copy<'b, T: Target>(steps: &mut Steps<'_, '_, 'b, T>, one: &One, fd: Fd) -> Result<&'b [u8]> {
    let len = sys::fs::waiting(fd).map_err(failed(one, "cannot be looked into"))?;
    if len > CONTENTS_MAX {
        return Err(refuse(one, "holds more than 64 MiB, which cannot be carried", "let the program read it"));
    }
    let bytes = steps.save.scratch.bytes(len)?;
    if len != 0 {
        let seen = at_no_offset(one, fd, || peek(fd, 0, bytes, &mut [], &mut [0; ADDRESS_MAX]))?;
        if seen.map(|seen| seen.len) != Ok(len) {
            return Err(refuse(one, "holds data that cannot be read without taking it", "let the program read it"));
        }
    }
    Ok(bytes)
}

/// Waits until all that was sent is there.
fn arrive<T: Target>(
    target: &mut T,
    room: &mut Room<'_>,
    own: &Owned,
    (sender, from): (Sender<'_>, Option<&Owned>),
) -> Result<()> {
    for look in 0..LOOKS {
        let (there, rest) = match (sender, from) {
            (Sender::Saved(peer), Some(from)) => {
                let rest = unsent(peer, from.fd())?;
                (rest == 0, rest)
            }
            (Sender::Left, _) => {
                let open = [TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2];
                (!open.contains(&tcp::state_now(room.one, own)?), CONTENTS_MAX)
            }
            _ => (true, 0),
        };
        if there {
            return Ok(());
        }
        if look == PATIENT {
            room.grow(target, rest)?;
        }
        if look >= PATIENT {
            // A look lets the kernel tell the sender how much room there is.
            let _ = at_no_offset(room.one, room.fd, || peek(room.fd, 0, &mut [0], &mut [], &mut [0; ADDRESS_MAX]));
        }
        sys::time::nap();
    }
    let why = "has no room for what was sent to it, which cannot be carried";
    Err(refuse(room.one, why, "let the program read it"))
}

/// Bytes that the other side has not taken yet; an end counts as one.
fn unsent(one: &One, fd: Fd) -> Result<usize> {
    let mut count = 0i32;
    // SAFETY: the request fills a number of this size.
    unsafe { sys::fs::ioctl(fd, SIOCOUTQ, &mut count) }.map_err(failed(one, "cannot be looked into"))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A receiver's room, which may be made greater for a while.
struct Room<'t> {
    one: &'t One,
    fd: Fd,
    /// The size that the program has set.
    before: Option<u32>,
}

impl Room<'_> {
    /// Makes room for so many more bytes, or for as many as this user may have.
    fn grow<T: Target>(&mut self, target: &mut T, more: usize) -> Result<()> {
        let cannot = || failed(self.one, "cannot be looked into");
        let (fd, get) = (self.fd, |name| number(self.fd, SOL_SOCKET, name).map_err(cannot()));
        let set = |name, value: u32| set_option(fd, SOL_SOCKET, name, &value.to_le_bytes());
        let want = (sys::fs::waiting(fd).map_err(cannot())? + more).saturating_mul(2).min(1 << 30) as u32;
        if get(SO_BUF_LOCK)? & RECEIVES != 0 {
            self.before = Some(get(SO_RCVBUF)?);
            // More than the limit is for who may.
            return set(SO_RCVBUF, want).or_else(|_| set(SO_RCVBUFFORCE, want)).map_err(cannot());
        }
        // Who waits for so many bytes at once gets room for them, and keeps it.
        let before = get(SO_RCVLOWAT)?;
        let undo = || set(SO_RCVLOWAT, before);
        let act = || set(SO_RCVLOWAT, want).and(undo());
        let put_back = || {
            let _ = undo();
        };
        // SAFETY: it makes system calls alone.
        let done = unsafe { target.guarded(put_back, act) };
        done.and_then(|done| done).map_err(cannot())
    }

    fn put_back(&self) -> Result<()> {
        let Some(before) = self.before else { return Ok(()) };
        // The kernel takes half of what it tells.
        let half = (before / 2).to_le_bytes();
        set_option(self.fd, SOL_SOCKET, SO_RCVBUF, &half).map_err(failed(self.one, "is changed"))
    }
}

/// Makes a peek that an offset of the program's own for peeks does not move, nor it that.
///
/// # Errors
/// The offset cannot be set.
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
