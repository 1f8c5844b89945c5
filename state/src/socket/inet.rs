//! TCP and UDP: states, connections of the process to itself, connections to others that are reset, groups.

use image_format::record::socket::Step;
use sys::abi::net::{
    AF_INET, AF_INET6, IPPROTO_TCP, POLLRDHUP, SO_REUSEPORT, SOCK_DGRAM, SOL_SOCKET, SOL_TCP, TCP_CLOSE, TCP_CLOSING,
    TCP_DEFER_ACCEPT, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_INFO, TCP_LAST_ACK, TCP_LISTEN,
};
use sys::abi::{POLLERR, POLLHUP};
use sys::fs::{Fd, Lines};
use sys::socket::{number, option};
use sys::text::{decimal, hex, words};

use super::queue::check_urgent;
use super::{NONE, One, Role, Steps, failed, options, refuse, repair};
use crate::{Error, Result, Target};

/// Finds states and pairs.
///
/// # Errors
/// A connection to another process, unless such ones are to be reset.
pub fn find<T: Target>(target: &mut T, table: &mut [One]) -> Result<()> {
    for one in table.iter_mut().filter(|one| one.is_inet()) {
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        super::option::check(target, one, fd.fd())?;
        let ready = sys::fs::ready(fd.fd(), POLLRDHUP).map_err(failed(one, "cannot be examined"))?;
        if !one.is_tcp() {
            one.shut = u32::from(ready & POLLRDHUP != 0) | if ready & POLLHUP != 0 { 3 } else { 0 };
            continue;
        }
        let mut info = [0; 104];
        let len = option(fd.fd(), SOL_TCP, TCP_INFO, &mut info).map_err(failed(one, "has no state"))?;
        one.state = if len == 0 { TCP_CLOSE } else { u32::from(info[0]) };
        one.shut = match one.state {
            TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_CLOSING | TCP_LAST_ACK => 2,
            TCP_ESTABLISHED => u32::from(ready & POLLRDHUP != 0),
            _ => 0,
        };
        let role = match one.state {
            TCP_LISTEN => Role::Listens,
            TCP_CLOSE if ready & POLLERR != 0 => Role::Lost,
            TCP_CLOSE if ready & POLLRDHUP != 0 => Role::Ended,
            TCP_CLOSE => Role::Plain,
            _ => Role::Client,
        };
        one.role = role as u32;
        // tcpi_sacked: of a listener the backlog.
        let [_, _, _, _, _, _, _, sacked, ..] = info.as_chunks::<4>().0 else { continue };
        one.backlog = u32::from_le_bytes(*sacked);
        if one.is(Role::Ended) {
            one.shut = 3;
        }
    }
    for index in 0..table.len() {
        let Some(one) = table.get(index).copied().filter(|one| one.is_tcp() && one.is(Role::Client)) else { continue };
        let is_peer = |p: &&One| {
            p.is_tcp() && p.state != TCP_LISTEN && p.local.same_place(&one.remote) && p.remote.same_place(&one.local)
        };
        let peer = table.iter().position(|p| is_peer(&p)).filter(|peer| *peer != index && one.remote.is_set());
        // Whose own address is a listener's was accepted; where there is none any more, either may have been.
        let accepted = listener(table, &one).is_some();
        let standard = peer.is_none() && one.is_standard();
        let whole = one.state == TCP_ESTABLISHED && one.shut == 0 && one.protocol == IPPROTO_TCP;
        let kept = peer.is_none() && !standard && target.keeps_connections() && whole;
        if kept && !repair::is_allowed(one.family) {
            let why = "is a connection to another process, which this user may not carry (CAP_NET_ADMIN)";
            target.blocked(refuse(&one, why, "save it as root, or with --tcp close"))?;
        }
        let lost = match peer {
            None if standard || kept => false,
            None if !target.resets_connections() => {
                target.blocked(refuse(
                    &one,
                    "is a connection to another process, which cannot be carried",
                    "close it before the save, or ckpt save --tcp close: the program sees it reset; or as root --tcp keep",
                ))?;
                true
            }
            found => found.is_none(),
        };
        let Some(one) = table.get_mut(index) else { continue };
        one.peer = peer.map_or(NONE, |peer| peer as u32);
        if standard {
            one.role = Role::Outside as u32;
        } else if kept {
            one.role = Role::Kept as u32;
        } else if lost {
            (one.role, one.shut) = (Role::Lost as u32, 0);
        } else if accepted {
            one.role = Role::Accepted as u32;
        }
        let Some(peer) = peer.and_then(|peer| table.get_mut(peer)) else { continue };
        (peer.peer, peer.role) = (index as u32, if accepted { Role::Client } else { Role::Accepted } as u32);
    }
    for one in table.iter().filter(|one| one.is_tcp() && (one.is(Role::Kept) || one.peer != NONE)) {
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        if let Err(error) = check_urgent(one, fd.fd()) {
            target.blocked(error)?;
        }
    }
    Ok(())
}

/// The socket that listens at another one's own address.
fn listener<'t>(table: &'t [One], accepted: &One) -> Option<&'t One> {
    table.iter().find(|l| {
        l.is_tcp()
            && l.is(Role::Listens)
            && l.local.port() == accepted.local.port()
            && (l.local.is_any() || l.local.same_place(&accepted.local))
    })
}

/// A connection to `listener` will be its own, and at once: not one's that shares its address, nor only when data has come.
fn certain<T: Target>(target: &mut T, table: &[One], listener: &One, client: &One) -> Result<()> {
    let same = |l: &&One| l.is(Role::Listens) && l.is_tcp() && l.local.port() == listener.local.port();
    let fd = target.borrow(listener.fd as Fd).map_err(failed(listener, "cannot be examined"))?;
    let is_set = |level, name| number(fd.fd(), level, name).is_ok_and(|value| value != 0);
    if (table.iter().filter(same).count() > 1 && is_set(SOL_SOCKET, SO_REUSEPORT)) || is_set(SOL_TCP, TCP_DEFER_ACCEPT)
    {
        let why =
            "is connected to a listener of its own with SO_REUSEPORT or TCP_DEFER_ACCEPT, which cannot be made again";
        return Err(refuse(client, why, "close the connection before the save"));
    }
    Ok(())
}

/// Steps that connect: to others again (UDP), to oneself, or to nobody.
///
/// # Errors
/// No room.
pub fn connect<T: Target>(steps: &mut Steps<'_, '_, '_, T>, table: &[One]) -> Result<()> {
    for family in [AF_INET, AF_INET6] {
        let lost = || table.iter().filter(|one| one.is(Role::Lost) && one.family == family);
        let Some(first) = lost().next() else { continue };
        // A listener that goes away without having accepted resets its connections.
        let helper = steps.listener(first, &[], lost().count() as u32 + 1)?;
        for one in lost() {
            steps.push(one.id, Step::Connect, (helper, 0), &[])?;
        }
    }
    repair::hold_all(steps.save.target, table)?;
    for one in table.iter().filter(|one| one.is_inet()) {
        if one.is(Role::Kept) {
            repair::save(steps, one)?;
        }
        if one.is(Role::Plain) && one.remote.is_set() {
            steps.push(one.id, Step::Connect, (0, 0), one.remote.bytes())?;
        }
        let Some(peer) = table.get(one.peer as usize).filter(|_| one.is(Role::Client)) else { continue };
        let from = listener(table, peer);
        if let Some(listener) = from {
            certain(steps.save.target, table, listener, one)?;
        }
        let at = match from {
            Some(listener) => listener.id,
            None => steps.listener_for(table, peer)?,
        };
        steps.push(one.id, Step::Connect, (0, 0), one.remote.bytes())?;
        steps.push(peer.id, Step::Accept, (at, one.id), &[])?;
        options(steps, peer, from)?;
    }
    Ok(())
}

/// Steps that join the groups which a socket is in. The kernel lists the groups of the machine, and tells of each whether a
/// socket is in it.
///
/// # Errors
/// Sources are filtered; no room.
pub fn memberships<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, fd: Fd) -> Result<()> {
    if !one.is_inet() || one.kind != SOCK_DGRAM {
        return Ok(());
    }
    let unreadable = |e| Error::failed(format_args!("/proc/PID/net"), "cannot be read", e);
    for (file, level) in [(c"net/igmp", 0), (c"net/igmp6", 41)] {
        let mut buffer = [0; 512];
        let Ok(mut lines) = Lines::open_at(steps.save.target.proc(), file, &mut buffer) else { continue };
        let mut device = 0;
        while let Some(line) = lines.next_line().map_err(unreadable)? {
            let mut fields = words(line);
            let Some(first) = fields.next() else { continue };
            let mut group = [0; 136];
            if level == 0 {
                if line.first().is_some_and(u8::is_ascii_digit) {
                    device = decimal(first).unwrap_or(0) as u32;
                    continue;
                }
                let Some(address) = hex(first).filter(|_| first.len() == 8) else { continue };
                put(&mut group, 8, &(AF_INET as u16).to_le_bytes());
                put(&mut group, 12, &(address as u32).to_le_bytes());
            } else {
                device = decimal(first).unwrap_or(0) as u32;
                let Some(address) = fields.nth(1).filter(|a| a.len() == 32) else { continue };
                put(&mut group, 8, &(AF_INET6 as u16).to_le_bytes());
                for (index, digits) in address.chunks(2).enumerate() {
                    put(&mut group, 16 + index, &[hex(digits).unwrap_or(0) as u8]);
                }
            }
            put(&mut group, 0, &device.to_le_bytes());
            join(steps, one, fd, level, &group)?;
        }
    }
    Ok(())
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in to.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// One group, if the socket is in it.
fn join<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, fd: Fd, level: u32, group: &[u8; 136]) -> Result<()> {
    const MCAST_JOIN_GROUP: u32 = 42;
    const MCAST_MSFILTER: u32 = 48;
    // struct group_filter: the same, then mode (0: all but these) and number of sources.
    let mut filter = [0; 144];
    put(&mut filter, 0, group);
    if option(fd, level, MCAST_MSFILTER, &mut filter).is_err() {
        return Ok(());
    }
    if filter.last_chunk() != Some(&[0; 8]) {
        return Err(refuse(one, "filters the sources of a group, which cannot be carried", "leave the group"));
    }
    steps.push(one.id, Step::Option, (level, MCAST_JOIN_GROUP), group)
}
