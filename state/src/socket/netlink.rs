//! Netlink sockets: their groups, and whom they are connected to.

use image_format::record::socket::Step;
use sys::Errno;
use sys::abi::POLLIN;
use sys::abi::net::{AF_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_LIST_MEMBERSHIPS, SOL_NETLINK};
use sys::fs::Fd;

use super::diag::{Diag, is_told_of};
use super::one::{One, failed, refuse};
use super::order::order_of;
use super::steps::Steps;
use crate::{Result, Scratch, Target};

/// State of one that is connected.
const CONNECTED: u32 = 1;

/// Finds which are connected, and refuses those in which messages wait.
///
/// # Errors
/// The first such one.
pub fn find<T: Target>(target: &mut T, scratch: &mut Scratch<'_>, table: &mut [One]) -> Result<()> {
    let is_one = |one: &One| one.family == AF_NETLINK;
    let Some(first) = table.iter().find(|one| is_one(one)).copied() else { return Ok(()) };
    let by_ino = order_of(scratch, table, is_one, |one| one.ino)?;
    if is_told_of(target) {
        let diag = Diag::open().map_err(failed(&first, "cannot be examined (sock_diag)"))?;
        // Without an answer, one that is connected to the kernel is taken for one that is not: both read alike.
        let _ = diag.each_netlink(|ino, state| {
            let found = by_ino.find(table, |one| one.ino.cmp(&ino));
            if let Some(one) = found.and_then(|place| table.get_mut(place as usize)) {
                one.state = state;
            }
        });
    }
    for one in table.iter().filter(|one| is_one(one)) {
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        if sys::fs::ready(fd.fd(), POLLIN).map_err(failed(one, "cannot be examined"))? & POLLIN != 0 {
            let why = "has messages waiting, which cannot be carried";
            target.blocked(refuse(one, why, "let the program read them"))?;
        }
    }
    Ok(())
}

/// Steps that join groups, and connect.
///
/// # Errors
/// No room.
pub fn connect<T: Target>(steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
    for one in steps.table.iter().filter(|one| one.family == AF_NETLINK) {
        let fd = steps.borrow(one)?;
        let mut groups = [0; 64];
        let len = match sys::socket::option(fd.fd(), SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, &mut groups) {
            // Before Linux 4.2.
            Err(Errno::ENOPROTOOPT) => 0,
            len => len.map_err(failed(one, "cannot be examined"))?,
        };
        for (index, byte) in groups.iter().enumerate().take(len) {
            for bit in (0..8).filter(|bit| byte & 1 << bit != 0) {
                let group = (8 * index + bit + 1) as u32;
                steps.set(one.id, Step::Option, (SOL_NETLINK, NETLINK_ADD_MEMBERSHIP), group)?;
            }
        }
        // A number or groups; the kernel's own are none.
        if one.state == CONNECTED || one.remote.bytes().get(4..12).is_some_and(|peer| peer != [0; 8]) {
            steps.push(one.id, Step::Connect, (0, 0), one.remote.bytes())?;
        }
    }
    Ok(())
}
