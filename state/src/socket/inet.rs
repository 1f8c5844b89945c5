//! UDP and its like: halves that were shut down, peers, groups.

use image_format::record::socket::Step;
use sys::Errno;
use sys::abi::POLLHUP;
use sys::abi::net::{AF_INET, AF_INET6, POLLRDHUP};
use sys::fs::{Fd, Lines};
use sys::socket::option;
use sys::text::{decimal, hex, words};

use super::diag::{Diag, is_told_of};
use super::one::{One, READS, Role, WRITES, failed, refuse};
use super::order::order_of;
use super::steps::Steps;
use crate::{Error, Result, Scratch, Target};

/// Finds which halves were shut down.
///
/// # Errors
/// The kernel's.
pub fn find<T: Target>(target: &T, scratch: &mut Scratch<'_>, table: &mut [One]) -> Result<()> {
    let is_one = |one: &One| one.is_inet() && !one.is_tcp();
    let Some(first) = table.iter().find(|one| is_one(one)).copied() else { return Ok(()) };
    let by_ino = order_of(scratch, table, is_one, |one| one.ino)?;
    for one in table.iter_mut().filter(|one| is_one(one)) {
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        let ready = sys::fs::ready(fd.fd(), POLLRDHUP).map_err(failed(one, "cannot be examined"))?;
        let reads = if ready & POLLRDHUP == 0 { 0 } else { READS };
        one.shut = if ready & POLLHUP == 0 { reads } else { READS | WRITES };
    }
    if !is_told_of(target) {
        return Ok(());
    }
    // That one can write no more shows in no poll.
    let cannot = || failed(&first, "cannot be examined (sock_diag)");
    let diag = Diag::open().map_err(cannot())?;
    diag.each_udp(|facts| {
        let found = by_ino.find(table, |one| one.ino.cmp(&facts.ino));
        if let Some(one) = found.and_then(|place| table.get_mut(place as usize)) {
            one.shut |= facts.shut;
        }
    })
    .map_err(cannot())
}

/// Steps that connect to others again.
///
/// # Errors
/// No room.
pub fn connect<T: Target>(steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
    // A raw one, or one for pings, has a peer also where it was told no port.
    let has_peer = |one: &One| one.remote.is_set() || !one.has_ports() && one.remote.family() == one.family;
    let is_one = |one: &&One| one.is_inet() && one.is(Role::Plain) && has_peer(one);
    for one in steps.table.iter().filter(is_one) {
        steps.push(one.id, Step::Connect, (0, 0), one.remote.bytes())?;
    }
    Ok(())
}

/// Steps that join the groups which a socket is in. The kernel lists the groups of the machine, and tells of each whether a
/// socket is in it.
///
/// # Errors
/// Sources are filtered; no room.
pub fn memberships<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
    if !one.is_inet() || one.is_tcp() {
        return Ok(());
    }
    let own = steps.borrow(one)?;
    let fd = own.fd();
    let unreadable = |e| Error::failed(format_args!("/proc/PID/net"), "cannot be read", e);
    for (file, level) in [(c"net/igmp", 0), (c"net/igmp6", 41)] {
        let mut buffer = [0; 512];
        let lines = sys::fs::found(Lines::open_at(steps.save.target.proc(), file, &mut buffer)).map_err(unreadable)?;
        let Some(mut lines) = lines else { continue };
        let mut device = 0;
        while let Some(line) = lines.next_line().map_err(unreadable)? {
            let mut fields = words(line);
            let Some(first) = fields.next() else { continue };
            let mut group = [0; 136];
            if level == 0 {
                if line.first().is_some_and(u8::is_ascii_digit) {
                    device = decimal(first).ok_or(Errno::EIO).map_err(unreadable)? as u32;
                    continue;
                }
                let Some(address) = hex(first).filter(|_| first.len() == 8) else { continue };
                put(&mut group, 8, &(AF_INET as u16).to_le_bytes());
                put(&mut group, 12, &(address as u32).to_le_bytes());
            } else {
                device = decimal(first).ok_or(Errno::EIO).map_err(unreadable)? as u32;
                let Some(address) = fields.nth(1).filter(|a| a.len() == 32) else { continue };
                put(&mut group, 8, &(AF_INET6 as u16).to_le_bytes());
                for (index, digits) in address.chunks(2).enumerate() {
                    put(&mut group, 16 + index, &[hex(digits).ok_or(Errno::EIO).map_err(unreadable)? as u8]);
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
