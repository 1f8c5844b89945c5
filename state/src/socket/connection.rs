//! TCP connections: made anew, filled again with what waited, and closed as far as they were.
//!
//! One side connects to a helper that listens under the other one's address, and is accepted; where the other side is not saved, another
//! helper plays it, and leaves. All of that is over before any socket of the program's own has its address: those that are
//! connected may share it with one that listens. Must never listen where that one will: others, who wait for it, would be turned away.

use core::net::{Ipv4Addr, Ipv6Addr};

use image_format::record::socket::Step;
use sys::abi::net::{AF_INET, SO_ERROR, SO_RCVLOWAT, SO_REUSEPORT, SOL_SOCKET, TCP_CLOSE};
use sys::socket::number;

use super::Address;
use super::arrival::{Sender, contents};
use super::one::{One, READS, Role, WRITES};
use super::option;
use super::steps::Steps;
use super::tcp::Listeners;
use crate::{Result, Target};

/// What a fresh connection takes without being asked.
const TAKES: usize = 32 << 10;

/// Steps that make connections which need nobody else's address.
///
/// # Errors
/// What waits cannot be carried; no room.
pub fn save<T: Target>(steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
    let table = steps.table;
    let listeners = Listeners::of(&mut steps.save.scratch, table)?;
    for one in table.iter().filter(|one| one.is_tcp()) {
        if one.is(Role::Remnant) {
            remnant(steps, one, &listeners)?;
        } else if one.is(Role::Failed) {
            failed(steps, one)?;
        } else if let Some(peer) = table.get(one.peer as usize).filter(|_| one.is(Role::Client)) {
            both(steps, [one, peer], &listeners)?;
        }
    }
    Ok(())
}

/// Steps that begin to connect, when all that listens is there.
///
/// # Errors
/// No room.
pub fn begin<T: Target>(steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
    let begins = |one: &&One| one.is_tcp() && (one.is(Role::Waits) || one.is(Role::Connects));
    for one in steps.table.iter().filter(begins) {
        steps.push(one.id, Step::Make, (0, 0), &[])?;
        option::early(steps, one, one.id)?;
        steps.reuse(one.id)?;
        // A connection from another port is better than none.
        steps.push(one.id, Step::Bind, (1, 0), one.local.bytes())?;
        steps.push(one.id, Step::Connect, (0, 0), one.remote.bytes())?;
        if one.is(Role::Waits) {
            shut(steps, one)?;
        }
        option::late(steps, one)?;
    }
    Ok(())
}

/// One side of a connection.
#[derive(Clone, Copy)]
struct Side<'t> {
    id: u32,
    /// It, or whose other side it plays.
    like: &'t One,
    /// It is the program's own, and no helper.
    is_own: bool,
    /// Its address, where that matters.
    at: Option<&'t Address>,
    /// Somebody goes on listening under that address, which is to be had then; else another one is better than none.
    is_listened: bool,
}

impl<'t> Side<'t> {
    fn own(one: &'t One, table: &[One], listeners: &Listeners<'_>) -> Self {
        let is_listened = listeners.has(table, &one.local);
        Self { id: one.id, like: one, is_own: true, at: Some(&one.local), is_listened }
    }

    /// Binds a socket, which has the side's id or is its substitute, to the side's address.
    fn bind<T: Target>(&self, steps: &mut Steps<'_, '_, '_, T>, socket: u32) -> Result<()> {
        if self.is_own {
            option::early(steps, self.like, socket)?;
            if number(steps.borrow(self.like)?.fd(), SOL_SOCKET, SO_REUSEPORT) == Ok(1) {
                // What is left of others that had the address had it by this alone.
                steps.set(socket, Step::Option, (SOL_SOCKET, SO_REUSEPORT), 1)?;
            }
        }
        let Some(at) = self.at else { return Ok(()) };
        steps.reuse(socket)?;
        steps.push(socket, Step::Bind, (u32::from(!self.is_listened), 0), at.bytes())
    }
}

/// Connects two sides that are not made yet.
fn link<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: Side<'_>, other: Side<'_>) -> Result<()> {
    let (accepts, connects) = if one.is_listened { (other, one) } else { (one, other) };
    let listener = steps.made_helper(accepts.like)?;
    accepts.bind(steps, listener)?;
    steps.push(listener, Step::Listen, (1, 0), &[])?;
    steps.push(connects.id, Step::Make, (0, 0), &[])?;
    connects.bind(steps, connects.id)?;
    steps.push(connects.id, Step::Connect, (listener, 0), &[])?;
    steps.push(accepts.id, Step::Accept, (listener, connects.id), &[])?;
    steps.close(listener)
}

/// A connection both of whose sides are saved.
fn both<T: Target>(steps: &mut Steps<'_, '_, '_, T>, sides: [&One; 2], listeners: &Listeners<'_>) -> Result<()> {
    let [one, other] = sides;
    link(steps, Side::own(other, steps.table, listeners), Side::own(one, steps.table, listeners))?;
    for (one, peer) in [(one, other), (other, one)] {
        let bytes = contents(steps, one, Sender::Saved(peer))?;
        fill(steps, one, peer.id, bytes)?;
    }
    for one in sides {
        shut(steps, one)?;
        option::late(steps, one)?;
    }
    Ok(())
}

/// What is left of a connection, the other side of which a helper plays.
fn remnant<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, listeners: &Listeners<'_>) -> Result<()> {
    let closed = one.shut & WRITES != 0;
    let on_its_way = one.state != TCP_CLOSE && one.end != 0;
    let bytes = contents(steps, one, if on_its_way { Sender::Left } else { Sender::Nobody })?;
    let other = steps.helper(one)?;
    // Of one that is closed nobody can ask any more with whom.
    let at = (!closed).then_some(&one.remote);
    let played = Side { id: other, like: one, is_own: false, at, is_listened: false };
    link(steps, Side::own(one, steps.table, listeners), played)?;
    fill(steps, one, other, bytes)?;
    if one.end != 0 {
        steps.push(other, Step::Shutdown, (WRITES - 1, 0), &[])?;
    }
    if closed {
        steps.reset(other)?;
    } else {
        steps.close(other)?;
    }
    if closed && one.reset == 0 {
        // Reading the error takes it.
        steps.push(one.id, Step::Reach, (SOL_SOCKET, SO_ERROR), &[1])?;
    }
    option::late(steps, one)
}

/// An attempt to connect that has failed: made where nobody listens.
fn failed<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
    let nobody = steps.made_helper(one)?;
    let ip = if one.family == AF_INET {
        let [a, b, c, d] = Ipv4Addr::LOCALHOST.octets();
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    } else {
        Ipv6Addr::LOCALHOST.octets()
    };
    steps.push(nobody, Step::Bind, (0, 0), Address::of_inet(one.family, 0, ip).bytes())?;
    steps.push(one.id, Step::Make, (0, 0), &[])?;
    option::early(steps, one, one.id)?;
    steps.push(one.id, Step::Connect, (nobody, 0), &[])?;
    steps.close(nobody)?;
    option::late(steps, one)
}

/// Sends what waited in `one` again, from the socket with the id `from`.
fn fill<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, from: u32, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let len = bytes.len() as u32;
    if bytes.len() > TAKES {
        // As much room at once; the kernel takes at most what this user may have.
        for least in [len.saturating_mul(2).min(1 << 30), 1] {
            steps.set(one.id, Step::Wish, (SOL_SOCKET, SO_RCVLOWAT), least)?;
        }
    }
    steps.push(from, Step::Send, (0, 0), bytes)?;
    steps.push(one.id, Step::Arrive, (len, 0), &[])
}

/// Closes the halves that were closed.
fn shut<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
    if one.shut & (READS | WRITES) == 0 { Ok(()) } else { steps.push(one.id, Step::Shutdown, (one.shut - 1, 0), &[]) }
}
