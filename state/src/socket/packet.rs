//! Packet sockets: their groups, and what of them cannot be carried.

use image_format::record::socket::Step;
use sys::abi::net::{AF_PACKET, PACKET_ADD_MEMBERSHIP, SOL_PACKET};

use super::diag::{Diag, is_told_of};
use super::one::{One, failed, refuse};
use super::order::order_of;
use super::steps::Steps;
use crate::{Result, Scratch, Target};

/// Kinds of attributes: `PACKET_DIAG_MCLIST`, `_RX_RING`, `_TX_RING`, `_FANOUT`.
const GROUPS: u32 = 1;
const RINGS: [u32; 2] = [2, 3];
const FANOUT: u32 = 4;

/// Bytes of `struct packet_diag_mclist`.
const GROUP: usize = 44;

fn is_one(one: &One) -> bool {
    one.family == AF_PACKET
}

/// Refuses those with a ring of their own, and those that share packets with others.
///
/// # Errors
/// The first such one; the kernel does not tell.
pub fn find<T: Target>(target: &mut T, scratch: &mut Scratch<'_>, table: &mut [One]) -> Result<()> {
    let Some(first) = table.iter().find(|one| is_one(one)).copied() else { return Ok(()) };
    if !is_told_of(target) {
        return target.blocked(refuse(&first, "is in another network than the saver's", "save it from inside"));
    }
    let by_ino = order_of(scratch, table, is_one, |one| one.ino)?;
    let diag = Diag::open().map_err(failed(&first, "cannot be examined (sock_diag)"))?;
    let told = diag.each_packet(|ino, kind, _| {
        let found = by_ino.find(table, |one| one.ino.cmp(&ino)).and_then(|place| table.get_mut(place as usize));
        if let Some(one) = found.filter(|_| kind == FANOUT || RINGS.contains(&kind)) {
            one.state = kind;
        }
    });
    told.map_err(failed(&first, "cannot be examined (sock_diag)"))?;
    for one in table.iter().filter(|one| is_one(one)) {
        let why = match one.state {
            FANOUT => "shares its packets with others (PACKET_FANOUT), which cannot be carried",
            kind if RINGS.contains(&kind) => "has a ring of packets (PACKET_RX_RING), which cannot be carried",
            _ => continue,
        };
        target.blocked(refuse(one, why, "close it before the save"))?;
    }
    Ok(())
}

/// Steps that join the groups of their devices.
///
/// # Errors
/// No room; the kernel does not tell.
pub fn join<T: Target>(steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
    let table = steps.table;
    let Some(first) = table.iter().find(|one| is_one(one)) else { return Ok(()) };
    let by_ino = order_of(&mut steps.save.scratch, table, is_one, |one| one.ino)?;
    let diag = Diag::open().map_err(failed(first, "cannot be examined (sock_diag)"))?;
    let mut done = Ok(());
    let told = diag.each_packet(|ino, kind, value| {
        let found = by_ino.find(table, |one| one.ino.cmp(&ino)).and_then(|place| table.get(place as usize));
        let Some(one) = found.filter(|_| kind == GROUPS && done.is_ok()) else { return };
        for group in value.as_chunks::<GROUP>().0 {
            done = done.and_then(|()| join_one(steps, one, group));
        }
    });
    told.map_err(failed(first, "cannot be examined (sock_diag)"))?;
    done
}

fn join_one<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, group: &[u8; GROUP]) -> Result<()> {
    // Device, how often, kind, length of the address, address (32 bytes).
    let [d0, d1, d2, d3, count @ ..] = *group;
    let [c0, c1, c2, c3, kind @ ..] = count;
    let [k0, k1, l0, l1, address @ ..] = kind;
    let [a0, a1, a2, a3, a4, a5, a6, a7, ..] = address;
    // struct packet_mreq.
    let request = [d0, d1, d2, d3, k0, k1, l0, l1, a0, a1, a2, a3, a4, a5, a6, a7];
    let times = u32::from_le_bytes([c0, c1, c2, c3]);
    (0..times).try_for_each(|_| steps.push(one.id, Step::Option, (SOL_PACKET, PACKET_ADD_MEMBERSHIP), &request))
}
