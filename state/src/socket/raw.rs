//! Raw sockets and those for pings: whom one is connected to, which it tells only if it was told a port.

use sys::abi::net::{AF_INET, AF_INET6};
use sys::fs::Lines;
use sys::text::{decimal, hex, words};

use super::Address;
use super::one::{One, failed};
use super::order::order_of;
use crate::{Result, Scratch, Target};

/// State of one that is connected.
const CONNECTED: u64 = 1;

/// Finds their peers in the kernel's list.
///
/// # Errors
/// It cannot be read.
pub fn find<T: Target>(target: &T, scratch: &mut Scratch<'_>, table: &mut [One]) -> Result<()> {
    let is_one = |one: &One| one.is_inet() && !one.has_ports();
    let Some(first) = table.iter().find(|one| is_one(one)).copied() else { return Ok(()) };
    let by_ino = order_of(scratch, table, is_one, |one| one.ino)?;
    let lists = [(c"net/raw", AF_INET), (c"net/raw6", AF_INET6), (c"net/icmp", AF_INET), (c"net/icmp6", AF_INET6)];
    for (file, family) in lists {
        let mut buffer = [0; 512];
        // Who has no such file has no such sockets.
        let lines = sys::fs::found(Lines::open_at(target.proc(), file, &mut buffer))
            .map_err(failed(&first, "cannot be examined"))?;
        let Some(mut lines) = lines else { continue };
        while let Some(line) = lines.next_line().map_err(failed(&first, "cannot be examined"))? {
            // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
            let mut fields = words(line).skip(2);
            let (remote, state, ino) = (fields.next(), fields.next().and_then(hex), fields.nth(5).and_then(decimal));
            let (Some(remote), Some(CONNECTED), Some(ino)) =
                (remote.and_then(|text| address(family, text)), state, ino)
            else {
                continue;
            };
            let found = by_ino.find(table, |one| u64::from(one.ino).cmp(&ino));
            if let Some(one) = found.and_then(|place| table.get_mut(place as usize)) {
                one.remote = remote;
            }
        }
    }
    Ok(())
}

/// An address of the list: words of the IP address as this machine has them, and the port.
fn address(family: u32, text: &[u8]) -> Option<Address> {
    let (ip, port) = sys::text::cut(text, b':')?;
    let mut bytes = [0; 16];
    for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(ip.chunks(8)) {
        *to = (hex(word)? as u32).to_le_bytes();
    }
    Some(Address::of_inet(family, hex(port)? as u16, bytes))
}
