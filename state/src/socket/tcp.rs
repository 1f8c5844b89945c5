//! TCP as it is found: states, which two sockets are one connection, and what has become of the other side of each other one.

use sys::abi::net::{
    POLLRDHUP, SO_OOBINLINE, SOL_SOCKET, SOL_TCP, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED,
    TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_INFO, TCP_LAST_ACK, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT, TCP_TIME_WAIT,
};
use sys::abi::{POLLERR, POLLPRI};
use sys::fs::{Fd, Owned};
use sys::socket::{number, option};

use super::diag::{Diag, InetFacts, is_of_this_machine, is_told_of};
use super::one::{NONE, One, READS, Role, WRITES, failed, refuse};
use super::order::{Order, order_of};
use super::{Address, kept, repair};
use crate::{ErrorKind, Result, Scratch, Target};

/// Bytes of `struct tcp_info` that are read.
pub type Info = [u8; 104];

/// Finds states and pairs.
///
/// # Errors
/// A connection to another process, unless such ones are to be reset or kept.
pub fn find<T: Target>(target: &mut T, scratch: &mut Scratch<'_>, table: &mut [One]) -> Result<()> {
    for one in table.iter_mut().filter(|one| one.is_tcp()) {
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        look(one, fd.fd())?;
    }
    let listeners = Listeners::of(scratch, table)?;
    pair(scratch, &listeners, table)?;
    connecting(target, table)?;
    let mut others = Others::default();
    for index in 0..table.len() {
        let Some(mut one) = table.get(index).copied() else { continue };
        if !one.is_tcp() || !one.is(Role::Client) || one.peer != NONE {
            continue;
        }
        if let Err(error) = others.role(target, (&listeners, table), &mut one) {
            target.blocked(error)?;
        }
        if let Some(place) = table.get_mut(index) {
            *place = one;
        }
    }
    for one in table.iter().filter(|one| one.is_tcp() && holds(one)) {
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        if let Err(error) = check_urgent(one, fd.fd()) {
            target.blocked(error)?;
        }
    }
    Ok(())
}

/// Whether what waits in it is carried.
fn holds(one: &One) -> bool {
    [Role::Client, Role::Accepted, Role::Remnant, Role::Kept].iter().any(|role| one.is(*role))
}

/// State, and what follows from it alone.
fn look(one: &mut One, fd: Fd) -> Result<()> {
    let ready = sys::fs::ready(fd, POLLRDHUP).map_err(failed(one, "cannot be examined"))?;
    let mut info: Info = [0; 104];
    let len = option(fd, SOL_TCP, TCP_INFO, &mut info).map_err(failed(one, "has no state"))?;
    one.state = if len == 0 { TCP_CLOSE } else { u32::from(info[0]) };
    // tcpi_sacked: of a listener the backlog; tcpi_rtt: measured since a connection was there.
    let word = |at: usize| info.as_chunks::<4>().0.get(at).map_or(0, |word| u32::from_le_bytes(*word));
    one.backlog = word(7);
    let was_there = info[5] != 0 || word(17) != 0;
    one.end = u32::from(matches!(one.state, TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING));
    let role = match one.state {
        TCP_LISTEN => Role::Listens,
        TCP_CLOSE if ready & POLLRDHUP == 0 => Role::Plain,
        TCP_CLOSE => {
            one.reset = u32::from(ready & POLLERR != 0);
            one.shut = READS | WRITES;
            if one.reset != 0 && !was_there { Role::Failed } else { Role::Remnant }
        }
        TCP_SYN_SENT => Role::Connects,
        _ => Role::Client,
    };
    one.role = role as u32;
    if one.is(Role::Client) {
        let writes = matches!(one.state, TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_CLOSING | TCP_LAST_ACK);
        // When the end has come, nobody can tell any more whether it was waited for.
        let reads = ready & POLLRDHUP != 0 && one.end == 0;
        one.shut = if writes { WRITES } else { 0 } | if reads { READS } else { 0 };
    }
    if one.is(Role::Remnant) {
        let waiting = sys::fs::waiting(fd).map_err(failed(one, "cannot be examined"))?;
        // Without an error it reads as an end anyway; nor do all protocols tell (MPTCP).
        one.end = match sys::socket::sequence(fd) {
            Ok(all) => u32::from(all > waiting),
            Err(_) => u32::from(one.reset == 0),
        };
    }
    Ok(())
}

/// Refuses a connection in which a byte waits that was sent as urgent (`MSG_OOB`): its mark can be asked for, but not where it is.
/// What lies behind it shows in no peek.
///
/// # Errors
/// There is one.
pub fn check_urgent(one: &One, fd: Fd) -> Result<()> {
    let announced = sys::fs::ready(fd, POLLPRI).map_err(failed(one, "cannot be examined"))? & POLLPRI != 0;
    // It is read up to the mark, whose own byte may have been read. In line it can be read, but is marked all the same.
    let in_line = number(fd, SOL_SOCKET, SO_OOBINLINE).map_err(failed(one, "cannot be examined"))? != 0;
    // One that has just ended or listens has none.
    let waiting = sys::fs::waiting(fd).unwrap_or(0);
    let marked = !in_line && sys::socket::sequence(fd).is_ok_and(|all| all > waiting + one.end as usize);
    if announced || marked {
        let why = "holds urgent data (MSG_OOB), which cannot be carried";
        return Err(refuse(one, why, "let the program read it, and what was sent before it"));
    }
    Ok(())
}

/// Finds the two sides of each connection that lies inside. Whose own address is a listener's was accepted; where there is none any
/// more, either may have been.
fn pair(scratch: &mut Scratch<'_>, listeners: &Listeners<'_>, table: &mut [One]) -> Result<()> {
    let is_side = |one: &One| one.is_tcp() && one.is(Role::Client) && one.remote.is_set();
    let key = |one: &One| (one.local.place(), one.remote.place());
    let order = order_of(scratch, table, is_side, key)?;
    for index in order.as_slice().iter().copied() {
        let Some(one) = table.get(index as usize).copied().filter(|one| one.peer == NONE) else { continue };
        let wanted = (one.remote.place(), one.local.place());
        let found = order.find(table, |other| key(other).cmp(&wanted));
        let Some(other) = found.filter(|other| *other != index) else { continue };
        let accepted = listeners.has(table, &one.local);
        for (index, peer, accepted) in [(index, other, accepted), (other, index, !accepted)] {
            if let Some(one) = table.get_mut(index as usize) {
                (one.peer, one.role) = (peer, if accepted { Role::Accepted } else { Role::Client } as u32);
            }
        }
    }
    Ok(())
}

/// Those that listen, by port.
pub struct Listeners<'b>(Order<'b>);

impl<'b> Listeners<'b> {
    /// Those of a table.
    ///
    /// # Errors
    /// No room.
    pub fn of(scratch: &mut Scratch<'b>, table: &[One]) -> Result<Self> {
        let listens = |one: &One| one.is_tcp() && one.is(Role::Listens);
        order_of(scratch, table, listens, |one| one.local.port()).map(Self)
    }

    /// Whether one of them listens at an address.
    pub fn has(&self, table: &[One], at: &Address) -> bool {
        let mut same_port = self.0.range(table, |one| one.local.port().cmp(&at.port()));
        same_port.any(|l| l.local.is_any() || l.local.same_place(at))
    }
}

/// Finds where those are going that are about to connect: nobody but the kernel's list tells.
fn connecting<T: Target>(target: &mut T, table: &mut [One]) -> Result<()> {
    let Some(first) = table.iter().find(|one| one.is(Role::Connects)).copied() else { return Ok(()) };
    let cannot = || failed(&first, "cannot be examined (sock_diag)");
    if is_told_of(target) {
        let diag = Diag::open().map_err(cannot())?;
        for family in [sys::abi::net::AF_INET, sys::abi::net::AF_INET6] {
            let found = |facts: &InetFacts| {
                let one = table.iter_mut().find(|one| one.is(Role::Connects) && one.ino == facts.ino);
                if let Some(one) = one.filter(|_| facts.ino != 0) {
                    one.remote = facts.remote;
                }
            };
            diag.each_inet((family, sys::abi::net::IPPROTO_TCP), 1 << TCP_SYN_SENT, found).map_err(cannot())?;
        }
    }
    for one in table.iter().filter(|one| one.is(Role::Connects) && !one.remote.is_set()) {
        let why = "is about to connect, and the kernel does not tell where";
        target.blocked(refuse(one, why, "wait until it is connected"))?;
    }
    Ok(())
}

/// What has become of other sides that are not saved.
#[derive(Debug, Default)]
struct Others {
    /// `None`: not asked yet.
    diag: Option<Option<Diag>>,
    may_repair: Option<bool>,
}

impl Others {
    /// What becomes of a connection whose other side is not among these.
    fn role<T: Target>(
        &mut self,
        target: &T,
        (listeners, table): (&Listeners<'_>, &[One]),
        one: &mut One,
    ) -> Result<()> {
        if one.is_standard() {
            one.role = Role::Outside as u32;
            return Ok(());
        }
        one.role = Role::Remnant as u32;
        // Both sides have said their last: the kernel alone has something left to do, and does it.
        if matches!(one.state, TCP_LAST_ACK | TCP_CLOSING) {
            one.shut = READS | WRITES;
            return Ok(());
        }
        match self.ask(target, one)? {
            Other::Gone => {
                one.end = 1;
                // Both have said their last, the other one's is on its way.
                if one.shut & WRITES != 0 {
                    one.shut = READS | WRITES;
                }
                Ok(())
            }
            Other::Waits { received } if listeners.has(table, &one.remote) => {
                one.role = Role::Waits as u32;
                let ends = u32::from(one.shut & WRITES != 0);
                if received > ends {
                    let why = "holds data for a listener that has not accepted it, which cannot be carried";
                    // As a rule the listener is just about to.
                    return Err(refuse(one, why, "let the listener accept it").kind(ErrorKind::Changed));
                }
                Ok(())
            }
            _ if target.keeps_connections() => self.keep(target, one),
            _ if target.resets_connections() => {
                (one.reset, one.shut) = (1, READS | WRITES);
                Ok(())
            }
            _ => Err(refuse(
                one,
                "is a connection to another process, which cannot be carried",
                "close it before the save, or ckpt save --tcp close: the program sees it reset; or as root --tcp keep",
            )),
        }
    }

    fn keep<T: Target>(&mut self, target: &T, one: &mut One) -> Result<()> {
        one.role = Role::Kept as u32;
        kept::check(target, one)?;
        let family = one.family;
        if !*self.may_repair.get_or_insert_with(|| repair::is_allowed(family)) {
            let why = "is a connection to another process, which this user may not carry (CAP_NET_ADMIN)";
            return Err(refuse(one, why, "save it as root, or with --tcp close"));
        }
        Ok(())
    }

    /// What the kernel has at the other side's address.
    fn ask<T: Target>(&mut self, target: &T, one: &One) -> Result<Other> {
        let cannot = || failed(one, "cannot be examined (sock_diag)");
        if self.diag.is_none() {
            self.diag = Some(if is_told_of(target) { Some(Diag::open().map_err(cannot())?) } else { None });
        }
        let Some(Some(diag)) = &self.diag else { return Ok(Other::Lives) };
        let found = diag.connection(&one.remote, &one.local).map_err(cannot())?;
        Ok(match found {
            Some(InetFacts { ino: 0, state: TCP_ESTABLISHED | TCP_CLOSE_WAIT | TCP_SYN_RECV, received, .. }) => {
                Other::Waits { received }
            }
            // Its process has closed it: what is left of it takes nothing any more.
            Some(InetFacts {
                ino: 0,
                state: TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_TIME_WAIT | TCP_LAST_ACK | TCP_CLOSING,
                ..
            }) => Other::Gone,
            None if one.end != 0 && is_of_this_machine(&one.remote) => Other::Gone,
            _ => Other::Lives,
        })
    }
}

/// The other side of a connection.
enum Other {
    /// Some process has it, here or elsewhere.
    Lives,
    /// Nobody has accepted it.
    Waits {
        /// Sequence numbers that it has received.
        received: u32,
    },
    /// Nobody has it any more.
    Gone,
}

/// What the kernel tells of a connection now.
///
/// # Errors
/// The kernel's.
pub fn state_now(one: &One, own: &Owned) -> Result<u32> {
    let mut info: Info = [0; 104];
    let len = option(own.fd(), SOL_TCP, TCP_INFO, &mut info).map_err(failed(one, "has no state"))?;
    Ok(if len == 0 { TCP_CLOSE } else { u32::from(info[0]) })
}
