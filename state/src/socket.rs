//! Sockets: unbound, bound, listening, connected inside the process. Made again by the calls that the saver finds out.
//!
//! The saver knows all rules, the restart only makes the calls ([`Step`]) in their order. Saving must never take
//! anything out of a socket, and leaves its options as they were.

mod address;
mod arrival;
mod connection;
mod diag;
mod file;
mod inet;
mod join;
mod kept;
pub mod leave;
mod make;
mod netlink;
mod one;
mod option;
mod order;
mod packet;
mod queue;
mod raw;
pub mod repair;
mod restore;
mod segment;
pub mod shield;
mod steps;
mod tcp;
mod unix;
mod waiting;

use image_format::NoteType;
use image_format::record::socket::{Socket, Step};
use image_format::writer::Full;
use sys::abi::net::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_MPTCP, IPPROTO_TCP,
    IPPROTO_UDP, IPPROTO_UDPLITE, NETLINK_AUDIT, NETLINK_GENERIC, NETLINK_KOBJECT_UEVENT, NETLINK_ROUTE,
    NETLINK_SOCK_DIAG, SO_DOMAIN, SO_PROTOCOL, SO_TYPE, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_SOCKET,
};
use sys::fs::Fd;
use sys::socket::number;

pub use self::address::Address;
pub use self::diag::is_told_of;
use self::one::{NONE, One, Role, failed};
use self::queue::Fill;
pub use self::restore::restore;
use self::steps::{Steps, record};
pub use self::waiting::{Queues, collect};
use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Object, Result, Save, Scratch, Target};

/// Looks at a socket: its family, and whether that is one that is carried.
fn look<T: Target>(target: &T, file: &OpenFile) -> Result<One> {
    let cannot = |e| Error::failed(Object::descriptor(file.fd, format_args!("socket")), "cannot be examined", e);
    let own = target.borrow(file.fd as Fd).map_err(cannot)?;
    let ask = |name| number(own.fd(), SOL_SOCKET, name).map_err(cannot);
    let (family, kind, protocol) = (ask(SO_DOMAIN)?, ask(SO_TYPE)?, ask(SO_PROTOCOL)?);
    let known = match (family, kind) {
        (AF_UNIX, _) => true,
        (AF_INET | AF_INET6, SOCK_STREAM) => matches!(protocol, IPPROTO_TCP | IPPROTO_MPTCP),
        (AF_INET, SOCK_DGRAM) => matches!(protocol, IPPROTO_UDP | IPPROTO_UDPLITE | IPPROTO_ICMP),
        (AF_INET6, SOCK_DGRAM) => matches!(protocol, IPPROTO_UDP | IPPROTO_UDPLITE | IPPROTO_ICMPV6),
        (AF_INET | AF_INET6, SOCK_RAW) | (AF_PACKET, SOCK_RAW | SOCK_DGRAM) => true,
        (AF_NETLINK, _) => {
            let known = [NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_AUDIT, NETLINK_KOBJECT_UEVENT, NETLINK_GENERIC];
            known.contains(&protocol)
        }
        _ => false,
    };
    if !known {
        let name = match (family, kind) {
            (AF_INET | AF_INET6, _) => "other",
            (AF_NETLINK, _) => "netlink",
            (40, _) => "vsock",
            (38, _) => "alg",
            (44, _) => "xdp",
            _ => "other",
        };
        let object = Object::descriptor(file.fd, format_args!("{name} socket, family {family}, protocol {protocol}"));
        return Err(Error::refused(object, "cannot be carried yet", "close it before the save"));
    }
    Ok(One {
        id: file.id,
        fd: file.fd,
        flags: file.flags,
        ino: file.ino as u32,
        family,
        kind,
        protocol,
        state: 0,
        role: Role::Plain as u32,
        backlog: 0,
        peer: NONE,
        peer_ino: NONE,
        shut: 0,
        end: 0,
        reset: 0,
        file: 0,
        mode: 0,
        user: 0,
        group: 0,
        local: Address::read(own.fd(), false),
        remote: Address::read(own.fd(), true),
    })
}

/// Finds what each socket is and whom it is connected to; refuses what cannot be carried. Standard input, output and error
/// that are sockets of another process are to be seen as pipes to it.
///
/// # Errors
/// A socket that cannot be carried, by number and address.
pub fn check<T: Target>(save: &mut Save<'_, '_, T>, files: &mut [OpenFile]) -> Result<()> {
    let table = find(save.target, &mut save.scratch, files)?;
    for one in table.iter().filter(|one| one.is(Role::Outside)) {
        for file in files.iter_mut().filter(|file| file.id == one.id) {
            (file.kind, file.pipe, file.next) = (Kind::Pipe as u32, file.id, image_format::record::pipe::NONE);
        }
    }
    Ok(())
}

fn find<'b, T: Target>(target: &mut T, scratch: &mut Scratch<'b>, files: &[OpenFile]) -> Result<&'b mut [One]> {
    let all = || files.iter().filter(|f| f.is_first(Kind::Socket));
    let table = scratch.take::<One>(all().count())?;
    let mut used = 0;
    for file in all() {
        match look(target, file) {
            Ok(one) => {
                *table.get_mut(used).ok_or(Full)? = one;
                used += 1;
            }
            Err(error) => target.blocked(error)?,
        }
    }
    let table = table.get_mut(..used).unwrap_or_default();
    for one in &*table {
        let fd = target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))?;
        option::check(target, one, fd.fd())?;
    }
    tcp::find(target, scratch, table)?;
    inet::find(target, scratch, table)?;
    raw::find(target, scratch, table)?;
    packet::find(target, scratch, table)?;
    unix::find(target, scratch, table)?;
    netlink::find(target, scratch, table)?;
    Ok(table)
}

/// Writes both tables. `queues`: what waits in Unix sockets.
///
/// # Errors
/// What waits in a socket and cannot be carried; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile], queues: &Queues<'_>) -> Result<()> {
    // What is found by the steps alone is what waits in a socket, and what was connected just now.
    if !save.target.stands_still() || !files.iter().any(|f| f.kind == Kind::Socket as u32) {
        return Ok(());
    }
    let table = &*find(save.target, &mut save.scratch, files)?;
    let helpers = save.scratch.take::<Socket>(2 * table.len() + 4)?;
    save.notes.begin(NoteType::SocketStep)?;
    let mut steps = Steps::new(save, table, helpers);
    leave::plan(&mut steps)?;
    // What is connected may have an address that another one is to have for itself.
    connection::save(&mut steps)?;
    kept::save(&mut steps)?;
    make::save(&mut steps)?;
    connection::begin(&mut steps)?;
    inet::connect(&mut steps)?;
    netlink::connect(&mut steps)?;
    packet::join(&mut steps)?;
    make::settle(&mut steps)?;
    let mut fill = Fill::of(&mut steps, queues)?;
    join::save(&mut steps, &mut fill)?;
    for one in table.iter().filter(|one| !one.is_unix() && one.is(Role::Plain) && one.shut != 0) {
        steps.push(one.id, Step::Shutdown, (one.shut - 1, 0), &[])?;
    }
    let helpers = steps.helpers();
    save.notes.end()?;
    save.notes.begin(NoteType::Socket)?;
    for one in table {
        let name = save.notes.string(one.name().as_bytes())?;
        save.notes.push(&record(one.id, one.flags, name, one))?;
    }
    for helper in helpers {
        save.notes.push(helper)?;
    }
    save.notes.end()?;
    Ok(())
}
