//! The steps that make a connection to another process again: by repair mode, with all numbers, and closed as far as it was.

use image_format::record::socket::Step;
use sys::Errno;
use sys::abi::net::{
    AF_INET, AF_INET6, IPPROTO_TCP, SO_BUF_LOCK, SO_RCVBUF, SO_RCVBUFFORCE, SO_RCVLOWAT, SO_SNDBUF, SO_SNDBUFFORCE,
    SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, SOL_TCP, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2,
    TCP_INFO,
};
use sys::fs::Fd;
use sys::socket::{number, set_option};

use super::one::{One, READS, Role, WRITES, failed, refuse};
use super::option;
use super::repair::{
    OFF, ON, RECEIVED, Read, SENT, TCP_MAXSEG, TCP_QUEUE_SEQ, TCP_REPAIR, TCP_REPAIR_OPTIONS, TCP_REPAIR_QUEUE,
    TCP_REPAIR_WINDOW, TCP_TIMESTAMP, hold_all, read,
};
use super::segment::{Says, Segment};
use super::shield::{self, Batch};
use super::steps::Steps;
use super::tcp::{self, check_urgent};
use crate::{Result, Target};

/// Bits of `tcpi_options`.
const TIMESTAMPS: u8 = 1;
const SACK: u8 = 2;
const WSCALE: u8 = 4;

/// How much the restart's clock is ahead, in its unit: milliseconds, as a rule.
const LATER: u32 = 1 << 12;

/// Bytes that the kernel takes at once into a queue.
const PIECE: usize = 32 << 10;

/// Refuses a connection that repair mode cannot make again.
///
/// # Errors
/// Why not.
pub fn check<T: Target>(target: &T, one: &One) -> Result<()> {
    if one.protocol != IPPROTO_TCP {
        let why = "is a connection to another process, of several ways (MPTCP), which cannot be carried";
        return Err(refuse(one, why, "close it before the save, or ckpt save --tcp close"));
    }
    let own = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
    if sys::socket::filter_len(own.fd()) != Ok(0) {
        let why = "is a connection to another process, and has a packet filter, which cannot be carried together";
        return Err(refuse(one, why, "detach the filter, or ckpt save --tcp close"));
    }
    Ok(())
}

/// Steps for all connections that are carried. From now on they are held.
///
/// # Errors
/// One cannot be held, or holds too much; no room.
pub fn save<T: Target>(steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
    let table = steps.table;
    let kept = || table.iter().filter(|one| one.is(Role::Kept));
    let Some(first) = kept().next() else { return Ok(()) };
    hold_all(steps.save.target, table)?;
    let ends = steps.save.scratch.take::<[u32; 4]>(kept().count())?;
    for (one, end) in kept().zip(&mut *ends) {
        // What came before it was held is there now.
        let state = tcp::state_now(one, &steps.borrow(one)?)?;
        let has_ended = match state {
            TCP_CLOSE_WAIT => 1,
            TCP_ESTABLISHED | TCP_FIN_WAIT1 | TCP_FIN_WAIT2 => 0,
            _ => return Err(failed(one, "has ended just now: try again")(Errno::EAGAIN)),
        };
        let Says { number, awaits, window } = make(steps, &One { end: has_ended, ..*one })?;
        *end = [number, awaits, window, has_ended];
    }
    if let Some(name) = steps.save.target.shield() {
        // Now nothing needs to be kept from them any more. A table that is not there is none that hinders.
        let firewall = steps.made_helper(&shield::like(first))?;
        for family in [AF_INET, AF_INET6] {
            steps.push(firewall, Step::Send, (0, 0), Batch::without(&name, family).bytes())?;
        }
        steps.close(firewall)?;
    }
    for (one, [number, awaits, window, _]) in kept().zip(&*ends).filter(|(_, [.., has_ended])| *has_ended != 0) {
        let says = Says { number: *number, awaits: *awaits, window: *window };
        let segment = Segment::of(&one.remote, &one.local, says);
        let sender = steps.made_helper(&segment.sender(one))?;
        steps.push(sender, Step::To, (0, 0), segment.target(&one.local).bytes())?;
        steps.push(sender, Step::Send, (0, 0), segment.bytes())?;
        steps.close(sender)?;
        steps.push(one.id, Step::Reach, (SOL_TCP, TCP_INFO), &[TCP_CLOSE_WAIT as u8])?;
    }
    Ok(())
}

/// Reads a connection that is held, and writes the steps that make it again; what the other side would say now.
fn make<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<Says> {
    let own = steps.borrow(one)?;
    check_urgent(one, own.fd())?;
    let buffers = [SO_SNDBUF, SO_RCVBUF, SO_BUF_LOCK].map(|name| number(own.fd(), SOL_SOCKET, name).unwrap_or(0));
    let Read { now, info, segment, timestamp, received, sent } = read(steps.save, one, own.fd())?;
    check_room(one, received.len(), sent.len())?;
    let [_, _, _, _, _, with, scale, ..] = info;
    let (sent, unsent) = sent.split_at_checked(now.sent.saturating_sub(now.unsent)).unwrap_or((sent, &[]));
    // Ends count, and are no bytes.
    let [after_received, after_sent] = now.next;
    let after_received = after_received.wrapping_sub(one.end);
    let after_sent = after_sent.wrapping_sub(u32::from(one.shut & WRITES != 0));
    let first_sent = after_sent.wrapping_sub((sent.len() + unsent.len()) as u32);

    steps.push(one.id, Step::Make, (0, 0), &[])?;
    option::early(steps, one, one.id)?;
    let tcp = |name| (SOL_TCP, name);
    for (name, value) in [
        (TCP_REPAIR, ON),
        (TCP_REPAIR_QUEUE, RECEIVED),
        (TCP_QUEUE_SEQ, after_received.wrapping_sub(received.len() as u32)),
        (TCP_REPAIR_QUEUE, SENT),
        (TCP_QUEUE_SEQ, first_sent),
    ] {
        steps.set(one.id, Step::Option, tcp(name), value)?;
    }
    let [send_buffer, receive_buffer, locked] = buffers;
    // Room for what comes into the queues, as much as this user may have.
    for (name, value) in [
        (SO_SNDBUF, (send_buffer / 2).max(4 * sent.len() as u32)),
        (SO_SNDBUFFORCE, (send_buffer / 2).max(4 * sent.len() as u32)),
        (SO_RCVLOWAT, 2 * received.len() as u32 + 1),
        (SO_RCVLOWAT, 1),
        (SO_RCVBUFFORCE, (receive_buffer / 2).max(4 * received.len() as u32)),
    ] {
        steps.set(one.id, Step::Wish, (SOL_SOCKET, name), value)?;
    }
    steps.push(one.id, Step::Bind, (0, 0), one.local.bytes())?;
    steps.push(one.id, Step::Connect, (0, 0), one.remote.bytes())?;
    for (is, code, value) in [
        (true, TCP_MAXSEG, segment),
        (with & WSCALE != 0, 3, u32::from(scale & 15) | u32::from(scale >> 4) << 16),
        (with & SACK != 0, 4, 0),
        (with & TIMESTAMPS != 0, 8, 0),
    ] {
        if is {
            let pair = [code, value].map(u32::to_le_bytes);
            steps.push(one.id, Step::Option, tcp(TCP_REPAIR_OPTIONS), pair.as_flattened())?;
        }
    }
    if with & TIMESTAMPS != 0 {
        // The other side may have seen later ones than this. The lowest bit tells the unit.
        steps.set(one.id, Step::Option, tcp(TCP_TIMESTAMP), timestamp.wrapping_add(LATER))?;
    }
    for (queue, bytes) in [(RECEIVED, received), (SENT, sent)] {
        steps.set(one.id, Step::Option, tcp(TCP_REPAIR_QUEUE), queue)?;
        send(steps, one, bytes)?;
    }
    let mut window = now.window;
    // rcv_wup, the last: nothing is acknowledged yet that has not come.
    if let Some(acknowledged) = window.last_chunk_mut::<4>()
        && *acknowledged == after_received.wrapping_add(1).to_le_bytes()
        && one.end != 0
    {
        *acknowledged = after_received.to_le_bytes();
    }
    steps.push(one.id, Step::Option, tcp(TCP_REPAIR_WINDOW), &window)?;
    steps.set(one.id, Step::Option, tcp(TCP_REPAIR), OFF)?;
    // Repair mode has taken that away, and who listens at this address gets it later. What the program has set comes last.
    steps.reuse(one.id)?;
    send(steps, one, unsent)?;
    if one.shut & (READS | WRITES) != 0 {
        steps.push(one.id, Step::Shutdown, (one.shut - 1, 0), &[])?;
    }
    // Repair mode has changed these.
    for (name, value) in
        [(SO_SNDBUFFORCE, send_buffer / 2), (SO_RCVBUFFORCE, receive_buffer / 2), (SO_BUF_LOCK, locked)]
    {
        steps.set(one.id, Step::Wish, (SOL_SOCKET, name), value)?;
    }
    option::late(steps, one)?;
    let peers = [4, 5, 6, 7].map(|at| window.get(at).copied().unwrap_or(0));
    let scaled = u32::from_le_bytes(peers) >> if with & WSCALE != 0 { scale & 15 } else { 0 };
    Ok(Says { number: after_received, awaits: first_sent, window: scaled.min(u16::MAX.into()) })
}

/// Sends it in pieces that the kernel takes whole.
fn send<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, bytes: &[u8]) -> Result<()> {
    bytes.chunks(PIECE).try_for_each(|piece| steps.push(one.id, Step::Send, (0, 0), piece))
}

/// Whether a user with these rights could have room for what is in the queues.
fn check_room(one: &One, received: usize, sent: usize) -> Result<()> {
    let cannot = || failed(one, "has no like for comparison");
    let fresh = sys::socket::make(one.family, SOCK_STREAM | SOCK_CLOEXEC, 0).map_err(cannot())?;
    let set = |fd: Fd, name, value: usize| set_option(fd, SOL_SOCKET, name, &(value.min(1 << 30) as u32).to_le_bytes());
    // Whoever may have any room may have this.
    if set(fresh.fd(), SO_SNDBUFFORCE, 4 * sent) != Err(Errno::EPERM) {
        return Ok(());
    }
    set(fresh.fd(), SO_RCVLOWAT, 2 * received + 1).map_err(cannot())?;
    set(fresh.fd(), SO_SNDBUF, 4 * sent).map_err(cannot())?;
    let [there, way] = [SO_RCVBUF, SO_SNDBUF].map(|name| number(fresh.fd(), SOL_SOCKET, name).unwrap_or(0) as usize);
    if received <= there && sent <= way {
        return Ok(());
    }
    let why = "holds more than this user can put into a connection again (net.core.wmem_max)";
    Err(refuse(one, why, "let the program or its peer read it, or save it as root"))
}
