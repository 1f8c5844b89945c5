//! Unix sockets as they are found: who is connected to whom, as sock_diag(7) tells, and whose file is whose.

use sys::abi::net::{SIOCOUTQ, SOCK_STREAM, TCP_LISTEN};
use sys::abi::{POLLERR, POLLPRI};
use sys::fs::Fd;

use super::Address;
use super::diag::Diag;
use super::file;
use super::one::{NONE, One, READS, Role, WRITES, failed, refuse};
use super::order::{Order, order_of};
use crate::{ErrorKind, Result, Scratch, Target};

/// Finds peers, states and files.
///
/// # Errors
/// A peer in another process; what the kernel does not tell.
pub fn find<T: Target>(target: &mut T, scratch: &mut Scratch<'_>, table: &mut [One]) -> Result<()> {
    let Some(first) = table.iter().find(|one| one.is_unix()).copied() else { return Ok(()) };
    let diag = Diag::open().map_err(failed(&first, "cannot be examined (sock_diag)"))?;
    for one in table.iter_mut().filter(|one| one.is_unix()) {
        let facts = diag.unix(one.ino).map_err(failed(one, "cannot be examined (sock_diag)"))?;
        (one.state, one.shut, one.backlog) = (facts.state, facts.shut, facts.backlog);
        (one.peer_ino, one.file) = (facts.peer.unwrap_or(NONE), facts.file);
        if one.state == TCP_LISTEN {
            one.role = Role::Listens as u32;
        }
    }
    let by_ino = order_of(scratch, table, One::is_unix, |one| one.ino)?;
    let names = Names::of(scratch, table)?;
    for index in 0..table.len() {
        let Some(mut one) = table.get(index).copied().filter(One::is_unix) else { continue };
        let peer = by_ino.find(table, |peer| peer.ino.cmp(&one.peer_ino));
        one.peer = peer.unwrap_or(NONE);
        let peer = peer.and_then(|peer| table.get(peer as usize));
        match role(target, (table, &names), &one, peer) {
            Ok(role) => one.role = role as u32,
            Err(error) => target.blocked(error)?,
        }
        if let Err(error) = file::find(target, &mut one).and_then(|()| check(target, &mut one)) {
            target.blocked(error)?;
        }
        if let Some(place) = table.get_mut(index) {
            *place = one;
        }
    }
    Ok(())
}

/// Refuses what cannot be carried, and asks for what shows in a poll.
fn check<T: Target>(target: &T, one: &mut One) -> Result<()> {
    let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
    let ready = sys::fs::ready(fd.fd(), POLLPRI).map_err(failed(one, "cannot be examined"))?;
    if one.kind == SOCK_STREAM && !one.is(Role::Listens) && !one.is(Role::Outside) && ready & POLLPRI != 0 {
        let why = "holds urgent data (MSG_OOB), which cannot be carried";
        return Err(refuse(one, why, "let the program read it, and what was sent before it"));
    }
    one.reset = u32::from(one.is(Role::Remnant) && ready & POLLERR != 0);
    Ok(())
}

fn role<T: Target>(target: &T, (table, names): (&[One], &Names<'_>), one: &One, peer: Option<&One>) -> Result<Role> {
    if one.is(Role::Listens) {
        return Ok(Role::Listens);
    }
    if one.peer_ino == NONE {
        // Unconnected; a shut half of one is a whole.
        return Ok(Role::Plain);
    }
    if let Some(peer) = peer {
        if peer.peer_ino == one.ino {
            return Ok(Role::Paired);
        }
        if !one.connects() && peer.local.is_set() {
            return Ok(Role::Plain);
        }
        let why = "is connected to a socket without a name that is connected to another one, which cannot be carried";
        return Err(refuse(one, why, "close it before the save"));
    }
    if one.peer_ino == 0 && (!one.connects() || one.shut == READS | WRITES) {
        return Ok(if one.is_standard() { Role::Outside } else { Role::Remnant });
    }
    if !one.connects() && one.remote.is_set() {
        return Ok(Role::Plain);
    }
    if one.peer_ino == 0 && names.listener(table, &one.remote).is_some() {
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        let mut unread = 0i32;
        // SAFETY: the request fills a number of this size.
        let asked = unsafe { sys::fs::ioctl(fd.fd(), SIOCOUTQ, &mut unread) };
        if asked.map_err(failed(one, "cannot be examined")).map(|_| unread)? == 0 {
            return Ok(Role::Waits);
        }
        let why = "holds data for a listener that has not accepted it, which cannot be carried";
        return Err(refuse(one, why, "let the listener accept it").kind(ErrorKind::Changed));
    }
    if one.is_standard() {
        return Ok(Role::Outside);
    }
    let why = "is connected to another process, which cannot be carried";
    Err(refuse(one, why, "close it before the save"))
}

/// Unix sockets by their names.
#[derive(Clone, Copy, Debug)]
pub struct Names<'b>(Order<'b>);

impl<'b> Names<'b> {
    /// Those of a table.
    ///
    /// # Errors
    /// No room.
    pub fn of(scratch: &mut Scratch<'b>, table: &[One]) -> Result<Self> {
        order_of(scratch, table, |one| one.is_unix() && one.local.is_set(), |one| one.local).map(Self)
    }

    /// All that have a name.
    pub fn all<'t>(&self, table: &'t [One], name: &Address) -> impl Iterator<Item = &'t One> + use<'t, 'b> {
        let name = *name;
        self.0.range(table, move |one| one.local.cmp(&name))
    }

    /// The one that listens under a name.
    pub fn listener<'t>(&self, table: &'t [One], name: &Address) -> Option<&'t One> {
        self.all(table, name).find(|one| one.is(Role::Listens))
    }
}
