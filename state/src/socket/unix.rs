//! Unix sockets, and netlink's: who is connected to whom, as sock_diag(7) tells, and their names.

use image_format::record::socket::Step;
use sys::abi::net::{
    ADDRESS_MAX, AF_NETLINK, AF_UNIX, NETLINK_ADD_MEMBERSHIP, NETLINK_LIST_MEMBERSHIPS, NETLINK_SOCK_DIAG, SIOCOUTQ,
    SOCK_CLOEXEC, SOCK_DGRAM, SOCK_STREAM, SOL_NETLINK, TCP_LISTEN,
};
use sys::abi::{O_DIRECTORY, O_PATH, POLLERR, POLLIN};
use sys::fs::{Fd, Owned};
use sys::text::Text;
use sys::{Errno, Sysno};

use super::queue::check_urgent;
use super::{Address, NONE, One, Role, Steps, failed, options, refuse};
use crate::{Result, Target};

/// Finds peers and states.
///
/// # Errors
/// A peer in another process; what the kernel does not tell.
pub fn find<T: Target>(target: &mut T, table: &mut [One]) -> Result<()> {
    for one in table.iter_mut().filter(|one| one.family == AF_NETLINK) {
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        super::option::check(target, one, fd.fd())?;
        if sys::fs::ready(fd.fd(), POLLIN).map_err(failed(one, "cannot be examined"))? & POLLIN != 0 {
            target.blocked(refuse(
                one,
                "has messages waiting, which cannot be carried",
                "let the program read them",
            ))?;
        }
    }
    let Some(first) = table.iter().find(|one| one.family == AF_UNIX) else { return Ok(()) };
    let kind = (SOCK_DGRAM | SOCK_CLOEXEC) as usize;
    let diag = sys::fs::make(Sysno::socket, [AF_NETLINK as usize, kind, NETLINK_SOCK_DIAG as usize, 0]);
    let diag = diag.map(Owned::new).map_err(failed(first, "cannot be examined (sock_diag)"))?;
    for one in table.iter_mut().filter(|one| one.family == AF_UNIX) {
        ask(diag.fd(), one).map_err(failed(one, "cannot be examined (sock_diag)"))?;
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        super::option::check(target, one, fd.fd())?;
    }
    for index in 0..table.len() {
        let Some(mut one) = table.get(index).copied().filter(|one| one.family == AF_UNIX) else { continue };
        let peer = table.iter().position(|p| p.family == AF_UNIX && p.ino == one.peer_ino);
        one.peer = peer.map_or(NONE, |peer| peer as u32);
        let peer = peer.and_then(|peer| table.get(peer));
        match role(target, table, &one, peer) {
            Ok(role) => one.role = role as u32,
            Err(error) => target.blocked(error)?,
        }
        if let Err(error) = socket_file(target, &mut one) {
            target.blocked(error)?;
        }
        if one.kind == SOCK_STREAM && !one.is(Role::Listens) && !one.is(Role::Outside) {
            let fd = target.borrow(one.fd as Fd).map_err(failed(&one, "cannot be examined"))?;
            if let Err(error) = check_urgent(&one, fd.fd()) {
                target.blocked(error)?;
            }
        }
        if one.is(Role::Alone) {
            let fd = target.borrow(one.fd as Fd).map_err(failed(&one, "cannot be examined"))?;
            let ready = sys::fs::ready(fd.fd(), 0).map_err(failed(&one, "cannot be examined"))?;
            one.backlog = u32::from(ready & POLLERR != 0);
        }
        if let Some(place) = table.get_mut(index) {
            *place = one;
        }
    }
    Ok(())
}

/// Asks the kernel about one socket: state, peer, halves that were shut down, the inode of its file.
fn ask(diag: Fd, one: &mut One) -> sys::Result<()> {
    /// `SOCK_DIAG_BY_FAMILY`, `NLM_F_REQUEST`; `UDIAG_SHOW_VFS`, `_PEER`, `_RQLEN`.
    const HOW: [u32; 3] = [20, 1, 2 | 4 | 16];
    let [kind, flags, show] = HOW;
    let request = [40, kind | flags << 16, 0, 0, AF_UNIX, u32::MAX, one.ino, show, u32::MAX, u32::MAX];
    let mut bytes = [0; 40];
    for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(request) {
        *to = word.to_le_bytes();
    }
    let mut answer = [0; 512];
    let len = sys::socket::ask(diag, &bytes, &mut answer)?;
    let word = |at: usize| answer.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b));
    if word(4) & 0xffff != kind {
        // nlmsgerr: a negative errno.
        return Err(Errno::new(word(16).wrapping_neg() as i32));
    }
    one.state = u32::from(answer[18]);
    let mut at = 16 + 16;
    while at + 4 <= len {
        let (size, kind) = ((word(at) & 0xffff) as usize, word(at) >> 16);
        match kind {
            1 => one.mode = word(at + 4),
            2 => one.peer_ino = word(at + 4),
            4 => one.backlog = word(at + 8),
            6 => one.shut = word(at + 4) & 3,
            _ => {}
        }
        at += size.max(4).next_multiple_of(4);
    }
    Ok(())
}

fn role<T: Target>(target: &T, table: &[One], one: &One, peer: Option<&One>) -> Result<Role> {
    if one.state == TCP_LISTEN {
        return Ok(Role::Listens);
    }
    if one.peer_ino == NONE {
        // Unconnected; a shut half of one is a whole.
        return Ok(Role::Plain);
    }
    let elsewhere = || {
        if one.is_standard() {
            return Ok(Role::Outside);
        }
        let why = "is connected to another process, which cannot be carried";
        Err(refuse(one, why, "close it before the save"))
    };
    let Some(peer) = peer else {
        if one.peer_ino == 0 && (one.kind == SOCK_DGRAM || one.shut == 3) {
            return Ok(if one.is_standard() { Role::Outside } else { Role::Alone });
        }
        if one.kind == SOCK_DGRAM && one.remote.is_set() {
            return Ok(Role::Plain);
        }
        if one.peer_ino == 0 && listener(table, &one.remote).is_some() {
            let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
            let mut unread = 0i32;
            // SAFETY: the request fills a number of this size.
            let asked = unsafe { sys::fs::ioctl(fd.fd(), SIOCOUTQ, &mut unread) };
            if asked.is_ok() && unread == 0 {
                return Ok(Role::Waits);
            }
            let why = "holds data for a listener that has not accepted it, which cannot be carried";
            return Err(refuse(one, why, "let the listener accept it"));
        }
        return elsewhere();
    };
    let mutual = peer.peer_ino == one.ino;
    if mutual && !one.local.is_set() && !peer.local.is_set() {
        return Ok(Role::Paired);
    }
    if one.kind == SOCK_DGRAM && peer.local.is_set() {
        return Ok(Role::Plain);
    }
    // Which of the two was accepted: the one with the name of somebody who listens, or listened.
    let rank = |one: &One| match listener(table, &one.local) {
        Some(_) => 2,
        None => u32::from(one.local.is_set() && one.local.path().is_none()),
    };
    if !mutual || one.kind == SOCK_DGRAM || rank(one).max(rank(peer)) == 0 {
        let why = "is connected in a way that cannot be carried: nobody listens under its name any more";
        return Err(refuse(one, why, "close it before the save"));
    }
    Ok(if (rank(one), one.fd) > (rank(peer), peer.fd) { Role::Accepted } else { Role::Client })
}

fn listener<'t>(table: &'t [One], at: &super::Address) -> Option<&'t One> {
    table.iter().find(|l| l.family == AF_UNIX && l.state == TCP_LISTEN && l.local == *at && at.is_set())
}

/// Looks for the file of a socket that is bound to a path: its mode, for the one that is made instead.
fn socket_file<T: Target>(target: &T, one: &mut One) -> Result<()> {
    let ino = core::mem::take(&mut one.mode);
    // Nobody asks for the name of a connection whose other end has gone; it is its listener's, if it was accepted.
    if one.is(Role::Alone) && one.kind != SOCK_DGRAM {
        one.local = Address::of(&[0; ADDRESS_MAX], 0);
    }
    let Some(path) = one.local.path().filter(|_| !one.is(Role::Accepted)) else { return Ok(()) };
    let (proc, _) = target.at(one.fd);
    let cwd = sys::fs::open_at(proc, c"cwd", O_DIRECTORY | O_PATH, 0).map_err(failed(one, "has no directory"))?;
    let mut name = Text::<128>::new();
    name.push(path);
    match sys::fs::stat_at(cwd.fd(), name.as_c_str(), 0) {
        Ok(stat) if stat.ino as u32 == ino => {
            one.mode = stat.mode & 0o7777;
            Ok(())
        }
        _ => {
            let why = "is bound to a file that is gone, or another socket's";
            Err(refuse(one, why, "close it before the save"))
        }
    }
}

/// Steps that connect, and netlink's groups.
///
/// # Errors
/// No room.
pub fn connect<T: Target>(steps: &mut Steps<'_, '_, '_, T>, table: &[One]) -> Result<()> {
    for one in table.iter().filter(|one| one.family == AF_UNIX) {
        if one.is(Role::Waits) || (one.is(Role::Plain) && one.remote.is_set()) {
            steps.push(one.id, Step::Connect, (0, 0), one.remote.bytes())?;
        }
        let Some(peer) = table.get(one.peer as usize).filter(|_| one.is(Role::Client)) else { continue };
        let from = listener(table, &peer.local);
        let at = match from {
            Some(listener) => listener.id,
            None => steps.listener_for(table, peer)?,
        };
        steps.push(one.id, Step::Connect, (0, 0), peer.local.bytes())?;
        steps.push(peer.id, Step::Accept, (at, one.id), &[])?;
        options(steps, peer, from)?;
    }
    for one in table.iter().filter(|one| one.family == AF_NETLINK) {
        let fd = steps.save.target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        let mut groups = [0; 64];
        let len = sys::socket::option(fd.fd(), SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, &mut groups).unwrap_or(0);
        for (index, byte) in groups.iter().enumerate().take(len) {
            for bit in (0..8).filter(|bit| byte & 1 << bit != 0) {
                let group = (8 * index + bit + 1) as u32;
                steps.push(one.id, Step::Option, (SOL_NETLINK, NETLINK_ADD_MEMBERSHIP), &group.to_le_bytes())?;
            }
        }
    }
    Ok(())
}
