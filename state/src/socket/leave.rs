//! How TCP sockets are left right before their process is ended, so that its addresses are free at once: an end like any other keeps
//! them for a minute (`TIME_WAIT`).
//!
//! Must never be done before the image is durable, nor tell another process's side of a connection anything but what it would have been
//! told.

use sys::Errno;
use sys::abi::net::{
    AF_INET, AF_INET6, IPPROTO_TCP, SO_LINGER, SO_REUSEADDR, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET,
    TCP_CLOSE, TCP_CLOSING, TCP_LAST_ACK, TCP_TIME_WAIT,
};
use sys::fs::Fd;
use sys::socket::{bind, connect, number, set_option};

use super::Address;
use super::diag::{Diag, InetFacts, is_of_this_machine};
use super::one::{One, Role};
use super::steps::{RESET, Steps};
use crate::{Result, Target};

/// How a socket is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Leaving {
    /// By a reset, which nobody sees: the other side is saved, too, or has gone.
    Abruptly = 1,
    /// As ever, but what is left of it excludes nobody from its address.
    Sharing = 2,
    /// It listens: what is left of connections that have ended before is to make way.
    Clearing = 3,
}

impl Leaving {
    /// The one of this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Abruptly, Self::Sharing, Self::Clearing].into_iter().find(|how| *how as u32 == number)
    }
}

/// Tells the target how each socket is to be left, should it be ended.
///
/// # Errors
/// The kernel's.
pub(super) fn plan<T: Target>(steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
    for one in steps.table.iter().filter(|one| one.is_tcp()) {
        if let Some(how) = how(steps, one)? {
            steps.save.target.leave(one.fd, how);
        }
    }
    Ok(())
}

fn how<T: Target>(steps: &Steps<'_, '_, '_, T>, one: &One) -> Result<Option<Leaving>> {
    let is = |roles: &[Role]| roles.iter().any(|role| one.is(*role));
    Ok(if is(&[Role::Client, Role::Accepted, Role::Waits]) {
        Some(Leaving::Abruptly)
    } else if one.is(Role::Listens) {
        let own = steps.borrow(one)?;
        // Connections have this of their listener.
        (number(own.fd(), SOL_SOCKET, SO_REUSEADDR) == Ok(0)).then_some(Leaving::Clearing)
    } else if !one.is(Role::Remnant) || matches!(one.state, TCP_CLOSE | TCP_LAST_ACK) {
        None
    } else if one.reset != 0 || one.state == TCP_CLOSING {
        // The other side is another process's.
        Some(Leaving::Sharing)
    } else {
        Some(Leaving::Abruptly)
    })
}

/// Does what is to be done to one of them.
///
/// # Errors
/// The kernel's.
pub fn one(fd: Fd, how: Leaving) -> sys::Result<()> {
    match how {
        Leaving::Abruptly => set_option(fd, SOL_SOCKET, SO_LINGER, &RESET),
        Leaving::Sharing => set_option(fd, SOL_SOCKET, SO_REUSEADDR, &1u32.to_le_bytes()),
        Leaving::Clearing => Ok(()),
    }
}

/// What is left of connections to these listeners makes way: where the other side's address is this machine's, for a connection from
/// there that is reset; else for who may end it.
///
/// # Errors
/// The kernel does not tell of them.
pub fn clear(is_listener: impl Fn(&Address) -> bool) -> sys::Result<()> {
    /// What the loopback device has taken has arrived, as a rule.
    const LOOKS: u32 = 20;
    let (ask, act) = (Diag::open()?, Diag::open()?);
    for look in 0..LOOKS {
        if look > 1 {
            sys::time::nap();
        }
        let mut is_left = false;
        for family in [AF_INET, AF_INET6] {
            ask.each_inet((family, IPPROTO_TCP), 1 << TCP_TIME_WAIT, |facts| {
                if is_listener(&facts.local) {
                    // Whatever comes of it: the restart tells.
                    let is_ours = is_of_this_machine(&facts.remote);
                    let done = if is_ours { replace(facts) } else { act.destroy(facts) };
                    // The other side may have its address for a moment more.
                    is_left |= is_ours || done.is_ok();
                }
            })?;
        }
        if !is_left {
            break;
        }
    }
    Ok(())
}

/// Connects once more from where that connection came, for a moment: the first packet takes that one's place, also where the listener has
/// no room for more connections.
fn replace(facts: &InetFacts) -> sys::Result<()> {
    let kind = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    let socket = sys::socket::make(facts.local.family(), kind, IPPROTO_TCP)?;
    one(socket.fd(), Leaving::Sharing)?;
    one(socket.fd(), Leaving::Abruptly)?;
    bind(socket.fd(), facts.remote.bytes())?;
    match connect(socket.fd(), facts.local.bytes()) {
        Ok(()) => Ok(()),
        Err(Errno::EINPROGRESS) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Whether `listener`, as its own address, is where a connection with this own address was accepted.
#[must_use]
pub fn listens_for(listener: &Address, at: &Address) -> bool {
    listener.port() == at.port() && (listener.is_any() || listener.same_place(at))
}
