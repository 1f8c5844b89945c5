//! TCP connections to other processes: carried by repair mode (`TCP_REPAIR`), in which the kernel tells and takes numbers,
//! windows and queues, and ends a connection without a word.
//!
//! From [`hold`] on nothing comes in any more: what the kernel acknowledged and nobody has saved would be lost to both sides.
//! Whoever holds a connection must [`release`] it, if the process does not end after all.

use sys::Errno;
use sys::abi::net::{
    ADDRESS_MAX, SIOCOUTQ, SIOCOUTQNSD, SO_REUSEADDR, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, SOL_TCP, TCP_INFO,
};
use sys::fs::Fd;
use sys::socket::{number, option, peek, set_option};

use super::arrival::at_no_offset;
use super::one::{One, Role, WRITES, failed, refuse};
use super::tcp::Info;
use crate::{Result, Save, Scratch, Target};

pub(super) const TCP_MAXSEG: u32 = 2;
pub(super) const TCP_REPAIR: u32 = 19;
pub(super) const TCP_REPAIR_QUEUE: u32 = 20;
pub(super) const TCP_QUEUE_SEQ: u32 = 21;
pub(super) const TCP_REPAIR_OPTIONS: u32 = 22;
pub(super) const TCP_TIMESTAMP: u32 = 24;
pub(super) const TCP_REPAIR_WINDOW: u32 = 29;

/// Values of [`TCP_REPAIR`].
pub(super) const ON: u32 = 1;
pub(super) const OFF: u32 = 0;
/// Off, without asking the other side for a sign of life.
const OFF_SILENTLY: u32 = u32::MAX;

/// Values of [`TCP_REPAIR_QUEUE`].
pub(super) const RECEIVED: u32 = 1;
pub(super) const SENT: u32 = 2;

/// Most bytes that are carried of one queue.
const CONTENTS_MAX: usize = 64 << 20;

fn set(fd: Fd, name: u32, value: u32) -> sys::Result<()> {
    set_option(fd, SOL_TCP, name, &value.to_le_bytes())
}

/// Whether this user may put connections into repair mode.
#[must_use]
pub fn is_allowed(family: u32) -> bool {
    let fresh = sys::socket::make(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fresh.is_ok_and(|fresh| set(fresh.fd(), TCP_REPAIR, ON).is_ok())
}

/// Stops a connection: nothing comes in, until it is [`release`]d.
///
/// # Errors
/// The kernel's.
pub fn hold(fd: Fd) -> sys::Result<()> {
    sys::socket::drop_all(fd)
}

/// The end of a held connection will be silent.
pub fn silence(fd: Fd) {
    let _ = set(fd, TCP_REPAIR, ON);
}

/// Lets a connection go on. Does nothing to what is not held.
pub fn release(fd: Fd) {
    if number(fd, SOL_TCP, TCP_REPAIR) == Ok(ON) {
        let _ = set(fd, TCP_REPAIR, OFF_SILENTLY);
    }
    if sys::socket::filter_len(fd) == Ok(1) {
        let _ = sys::socket::detach(fd);
    }
}

/// Ends repair mode, which takes away whether the address may be in use.
fn end(fd: Fd, reuse: u32) -> sys::Result<()> {
    set(fd, TCP_REPAIR, OFF_SILENTLY)?;
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, &reuse.to_le_bytes())
}

/// Reads a connection that is held, in repair mode, in which its process could not use it.
///
/// # Errors
/// It holds too much; no room; it is not as it was any more.
pub(super) fn read<'b, T: Target>(save: &mut Save<'_, 'b, T>, one: &One, fd: Fd) -> Result<Read<'b>> {
    let cannot = || failed(one, "cannot be looked into");
    let reuse = number(fd, SOL_SOCKET, SO_REUSEADDR).map_err(cannot())?;
    let Save { target, scratch, .. } = save;
    let undo = || {
        let _ = end(fd, reuse);
    };
    let act = || {
        set(fd, TCP_REPAIR, ON).map_err(cannot())?;
        let read = in_repair(scratch, one, fd);
        end(fd, reuse).map_err(failed(one, "is changed"))?;
        read
    };
    // SAFETY: it makes system calls alone.
    let done = unsafe { target.guarded(undo, act) };
    done.map_err(cannot())?
}

/// What the kernel tells of a held connection. An end counts as a byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// The next number of each queue.
    pub next: [u32; 2],
    /// Bytes in the queues, without an end that was received; of those to be sent, not sent yet.
    pub received: usize,
    pub sent: usize,
    pub unsent: usize,
    pub window: [u8; 20],
}

fn state(fd: Fd) -> sys::Result<State> {
    let next = |queue| {
        set(fd, TCP_REPAIR_QUEUE, queue)?;
        number(fd, SOL_TCP, TCP_QUEUE_SEQ)
    };
    let waits = |request| {
        let mut count = 0i32;
        // SAFETY: the request fills a number of this size.
        unsafe { sys::fs::ioctl(fd, request, &mut count) }.map(|_| count.max(0) as usize)
    };
    let mut window = [0; 20];
    option(fd, SOL_TCP, TCP_REPAIR_WINDOW, &mut window)?;
    Ok(State {
        next: [next(RECEIVED)?, next(SENT)?],
        received: sys::fs::waiting(fd)?,
        sent: waits(SIOCOUTQ)?,
        unsent: waits(SIOCOUTQNSD)?,
        window,
    })
}

/// Holds all connections that are carried, and waits until what was on its way is there: what came in before, and
/// acknowledgements that the other sides' kernels delay, which would find nobody after the process's end.
///
/// # Errors
/// One cannot be held.
pub(super) fn hold_all<T: Target>(target: &mut T, table: &[One]) -> Result<()> {
    /// Ten milliseconds each: the longest such delay is 200 (`TCP_DELACK_MAX`).
    const NAPS: usize = 22;
    let kept = || table.iter().filter(|one| one.is(Role::Kept));
    for one in kept() {
        let held = target.borrow(one.fd as Fd).and_then(|own| target.keep_connection(own));
        held.map_err(failed(one, "cannot be held"))?;
    }
    if kept().next().is_some() {
        (0..NAPS).for_each(|_| sys::time::nap());
    }
    Ok(())
}

/// All that is read of a held connection.
#[derive(Debug)]
pub(super) struct Read<'b> {
    pub now: State,
    pub info: Info,
    pub segment: u32,
    pub timestamp: u32,
    pub received: &'b [u8],
    pub sent: &'b [u8],
}

fn in_repair<'b>(scratch: &mut Scratch<'b>, one: &One, fd: Fd) -> Result<Read<'b>> {
    let cannot = || failed(one, "cannot be looked into");
    let now = state(fd).map_err(cannot())?;
    let mut info: Info = [0; 104];
    option(fd, SOL_TCP, TCP_INFO, &mut info).map_err(cannot())?;
    let ask = |name| number(fd, SOL_TCP, name).map_err(cannot());
    let (segment, timestamp) = (ask(TCP_MAXSEG)?, ask(TCP_TIMESTAMP)?);
    let received = contents(scratch, one, fd, RECEIVED, now.received)?;
    // An end of this side's own that nobody has acknowledged is no byte.
    let ends = usize::from(one.shut & WRITES != 0 && now.sent != 0);
    let sent = contents(scratch, one, fd, SENT, now.sent - ends)?;
    Ok(Read { now, info, segment, timestamp, received, sent })
}

/// What is in a queue.
fn contents<'b>(scratch: &mut Scratch<'b>, one: &One, fd: Fd, queue: u32, len: usize) -> Result<&'b [u8]> {
    if len > CONTENTS_MAX {
        return Err(refuse(
            one,
            "holds more than 64 MiB, which cannot be carried",
            "let the program or its peer read it",
        ));
    }
    let bytes = scratch.bytes(len)?;
    if len == 0 {
        return Ok(bytes);
    }
    set(fd, TCP_REPAIR_QUEUE, queue).map_err(failed(one, "cannot be looked into"))?;
    let seen = at_no_offset(one, fd, || peek(fd, 0, bytes, &mut [], &mut [0; ADDRESS_MAX]))?;
    match seen {
        Ok(seen) if seen.len == len => Ok(bytes),
        Err(e) if e != Errno::EAGAIN => Err(failed(one, "cannot be looked into")(e)),
        _ => Err(refuse(one, "holds data that cannot be read without taking it", "let the program read it")),
    }
}
