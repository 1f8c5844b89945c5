//! TCP connections to other processes: carried by repair mode (`TCP_REPAIR`), in which the kernel tells and takes numbers,
//! windows and queues, and ends a connection without a word.
//!
//! From [`hold`] on nothing comes in any more: what the kernel acknowledged and nobody has saved would be lost to both sides.
//! Whoever holds a connection must [`release`] it, if the process does not end after all.

use image_format::record::socket::Step;
use sys::abi::net::{
    ADDRESS_MAX, SIOCOUTQ, SIOCOUTQNSD, SO_ATTACH_FILTER, SO_BUF_LOCK, SO_DETACH_FILTER, SO_GET_FILTER, SO_RCVBUF,
    SO_RCVBUFFORCE, SO_SNDBUF, SO_SNDBUFFORCE, SOCK_CLOEXEC, SOL_SOCKET, SOL_TCP, TCP_INFO,
};
use sys::fs::{Fd, Owned};
use sys::socket::{number, option, peek, set_option};
use sys::{Errno, Sysno};

use super::queue::{at_no_offset, check_urgent};
use super::{One, REUSE, Role, Steps, failed, options, refuse};
use crate::{Result, Scratch, Target};

const TCP_MAXSEG: u32 = 2;
const TCP_REPAIR: u32 = 19;
const TCP_REPAIR_QUEUE: u32 = 20;
const TCP_QUEUE_SEQ: u32 = 21;
const TCP_REPAIR_OPTIONS: u32 = 22;
const TCP_TIMESTAMP: u32 = 24;
const TCP_REPAIR_WINDOW: u32 = 29;

/// Values of [`TCP_REPAIR`].
const ON: u32 = 1;
const OFF: u32 = 0;
/// Off, without asking the other side for a sign of life.
const OFF_SILENTLY: u32 = u32::MAX;

/// Values of [`TCP_REPAIR_QUEUE`].
const RECEIVED: u32 = 1;
const SENT: u32 = 2;

/// Bits of `tcpi_options`.
const TIMESTAMPS: u8 = 1;
const SACK: u8 = 2;
const WSCALE: u8 = 4;

/// Most bytes that are carried of one queue.
const CONTENTS_MAX: usize = 64 << 20;

/// How much the restart's clock is ahead, in its unit: milliseconds, as a rule.
const LATER: u32 = 1 << 12;

/// Bytes that the kernel takes at once into a queue.
const PIECE: usize = 32 << 10;

fn set(fd: Fd, name: u32, value: u32) -> sys::Result<()> {
    set_option(fd, SOL_TCP, name, &value.to_le_bytes())
}

/// Whether this user may put connections into repair mode.
#[must_use]
pub fn is_allowed(family: u32) -> bool {
    let fresh = [family, super::SOCK_STREAM | SOCK_CLOEXEC, 0, 0].map(|n| n as usize);
    let fresh = sys::fs::make(Sysno::socket, fresh).map(Owned::new);
    fresh.is_ok_and(|fresh| set(fresh.fd(), TCP_REPAIR, ON).is_ok())
}

/// Stops a connection: nothing comes in, until it is [`release`]d.
///
/// # Errors
/// The kernel's.
pub fn hold(fd: Fd) -> sys::Result<()> {
    sys::socket::drop_all(fd, SO_ATTACH_FILTER)
}

/// The end of a held connection will be silent.
pub fn silence(fd: Fd) {
    let _ = set(fd, TCP_REPAIR, ON);
}

/// Lets a connection go on. Does nothing to what is not held.
pub fn release(fd: Fd) {
    if option(fd, SOL_SOCKET, SO_GET_FILTER, &mut []) == Ok(1) {
        let _ = sys::socket::drop_all(fd, SO_DETACH_FILTER);
    }
}

/// Does something in repair mode, in which its process could not use it.
fn repairing<R>(fd: Fd, reuse: u32, then: impl FnOnce() -> Result<R>) -> Result<R, Option<crate::Error>> {
    set(fd, TCP_REPAIR, ON).map_err(|_| None)?;
    let done = then();
    let _ = set(fd, TCP_REPAIR, OFF_SILENTLY);
    // The mode takes it away.
    let _ = set_option(fd, SOL_SOCKET, REUSE, &reuse.to_le_bytes());
    done.map_err(Some)
}

/// What the kernel tells of a held connection.
#[derive(Clone, Copy)]
struct State {
    /// The next number of each queue.
    next: [u32; 2],
    /// Bytes in the queues; of those to be sent, not sent yet.
    received: usize,
    sent: usize,
    unsent: usize,
    window: [u8; 20],
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

/// Reads a connection that is held, and writes the steps that make it again.
///
/// # Errors
/// It holds too much; no room.
pub(super) fn save<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
    steps.push(one.id, Step::Make, (0, 0), &[])?;
    options(steps, one, None)?;
    let cannot = || failed(one, "cannot be looked into");
    let own = steps.save.target.borrow(one.fd as Fd).map_err(cannot())?;
    let fd = own.fd();
    check_urgent(one, fd)?;
    let buffers = [SO_SNDBUF, SO_RCVBUF, SO_BUF_LOCK].map(|name| number(fd, SOL_SOCKET, name).unwrap_or(0));
    let reuse = number(fd, SOL_SOCKET, REUSE).unwrap_or(0);
    let read = repairing(fd, reuse, || read(&mut steps.save.scratch, one, fd))
        .map_err(|e| e.unwrap_or_else(|| cannot()(Errno::EPERM)))?;
    let Read { now, info, segment, timestamp, received, sent } = read;
    let [_, _, _, _, _, with, scale, ..] = info;
    let (sent, unsent) = sent.split_at_checked(now.sent.saturating_sub(now.unsent)).unwrap_or_default();

    let mut put = |level: u32, name: u32, value: u32| {
        steps.push(one.id, Step::Option, (level, name), &value.to_le_bytes())?;
        Ok::<_, crate::Error>(())
    };
    put(SOL_TCP, TCP_REPAIR, ON)?;
    let [after_received, after_sent] = now.next;
    put(SOL_TCP, TCP_REPAIR_QUEUE, RECEIVED)?;
    put(SOL_TCP, TCP_QUEUE_SEQ, after_received.wrapping_sub(now.received as u32))?;
    put(SOL_TCP, TCP_REPAIR_QUEUE, SENT)?;
    put(SOL_TCP, TCP_QUEUE_SEQ, after_sent.wrapping_sub(now.sent as u32))?;
    let [send_buffer, receive_buffer, locked] = buffers;
    // Room for what comes into the queues; who may put a connection there may have it.
    put(SOL_SOCKET, SO_SNDBUFFORCE, (send_buffer / 2).max(4 * now.sent as u32))?;
    put(SOL_SOCKET, SO_RCVBUFFORCE, (receive_buffer / 2).max(4 * now.received as u32))?;
    steps.push(one.id, Step::Bind, (0, 0), one.local.bytes())?;
    steps.push(one.id, Step::Connect, (0, 0), one.remote.bytes())?;
    for (is, code, value) in [
        (true, TCP_MAXSEG, segment),
        (with & WSCALE != 0, 3, u32::from(scale & 15) | u32::from(scale >> 4) << 16),
        (with & SACK != 0, 4, 0),
        (with & TIMESTAMPS != 0, 8, 0),
    ] {
        if is {
            let [a, b] = [code, value].map(u32::to_le_bytes);
            let [a0, a1, a2, a3] = a;
            let [b0, b1, b2, b3] = b;
            let pair = [a0, a1, a2, a3, b0, b1, b2, b3];
            steps.push(one.id, Step::Option, (SOL_TCP, TCP_REPAIR_OPTIONS), &pair)?;
        }
    }
    if with & TIMESTAMPS != 0 {
        // The other side may have seen later ones than this. The lowest bit tells the unit.
        let later = timestamp.wrapping_add(LATER);
        steps.push(one.id, Step::Option, (SOL_TCP, TCP_TIMESTAMP), &later.to_le_bytes())?;
    }
    for (queue, bytes) in [(RECEIVED, received), (SENT, sent)] {
        steps.push(one.id, Step::Option, (SOL_TCP, TCP_REPAIR_QUEUE), &queue.to_le_bytes())?;
        send(steps, one, bytes)?;
    }
    steps.push(one.id, Step::Option, (SOL_TCP, TCP_REPAIR_WINDOW), &now.window)?;
    steps.push(one.id, Step::Option, (SOL_TCP, TCP_REPAIR), &OFF.to_le_bytes())?;
    send(steps, one, unsent)?;
    // Repair mode has changed these.
    for (name, value) in
        [(SO_SNDBUFFORCE, send_buffer / 2), (SO_RCVBUFFORCE, receive_buffer / 2), (SO_BUF_LOCK, locked), (REUSE, reuse)]
    {
        steps.push(one.id, Step::Wish, (SOL_SOCKET, name), &value.to_le_bytes())?;
    }
    Ok(())
}

/// Sends it in pieces that the kernel takes whole.
fn send<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, bytes: &[u8]) -> Result<()> {
    bytes.chunks(PIECE).try_for_each(|piece| steps.push(one.id, Step::Send, (0, 0), piece))
}

/// All that is read of a held connection.
struct Read<'b> {
    now: State,
    /// `TCP_INFO`.
    info: [u8; 104],
    segment: u32,
    timestamp: u32,
    received: &'b [u8],
    sent: &'b [u8],
}

fn read<'b>(scratch: &mut Scratch<'b>, one: &One, fd: Fd) -> Result<Read<'b>> {
    let cannot = || failed(one, "cannot be looked into");
    let now = state(fd).map_err(cannot())?;
    let mut info = [0; 104];
    option(fd, SOL_TCP, TCP_INFO, &mut info).map_err(cannot())?;
    let ask = |name| number(fd, SOL_TCP, name).map_err(cannot());
    let (segment, timestamp) = (ask(TCP_MAXSEG)?, ask(TCP_TIMESTAMP)?);
    let received = contents(scratch, one, fd, RECEIVED, now.received)?;
    let sent = contents(scratch, one, fd, SENT, now.sent)?;
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
