//! Sockets: unbound, bound, listening, connected inside the process. Made again by the calls that the saver finds out.
//!
//! The saver knows all rules, the restart only makes the calls ([`Step`]) in their order. Saving must never take
//! anything out of a socket, and leaves its options as they were.

mod address;
mod inet;
mod option;
mod queue;
pub mod repair;
mod restore;
mod unix;

use image_format::NoteType;
use image_format::record::process::FD_MASK;
use image_format::record::socket::{HELPERS, Socket, SocketStep, Step};
use image_format::writer::Full;
use sys::abi::net::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, IPPROTO_MPTCP, IPPROTO_TCP, IPPROTO_UDP, NETLINK_GENERIC,
    NETLINK_KOBJECT_UEVENT, NETLINK_ROUTE, NETLINK_SOCK_DIAG, SO_DOMAIN, SO_PROTOCOL, SO_TYPE, SOCK_CLOEXEC,
    SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET,
};
use sys::fs::{Fd, Owned};
use sys::socket::number;
use sys::text::Text;
use sys::{Errno, Sysno};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use self::address::Address;
pub use self::restore::restore;
use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Result, Save, Scratch, Target};

/// What becomes of a socket at the restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Role {
    /// Bound or not, connected to something outside that needs no connection (UDP) or not.
    Plain = 0,
    /// Listens.
    Listens = 1,
    /// One of two that are made together (socketpair).
    Paired = 2,
    /// Connects to a listener; its peer is accepted.
    Client = 3,
    /// Accepted.
    Accepted = 4,
    /// Its connection is reset.
    Lost = 5,
    /// Its connection has ended.
    Ended = 6,
    /// Its peer has gone.
    Alone = 7,
    /// Connected to a listener that has not accepted it.
    Waits = 8,
    /// Standard input, output or error, connected to another process: the restart's own take its place, as with pipes.
    Outside = 9,
    /// Connected to another process, and carried so.
    Kept = 10,
}

/// No other socket.
const NONE: u32 = u32::MAX;

/// `SO_REUSEADDR`
const REUSE: u32 = 2;

/// A socket of the process, as it was found.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct One {
    id: u32,
    fd: u32,
    flags: u32,
    ino: u32,
    family: u32,
    kind: u32,
    protocol: u32,
    /// Of TCP's states, in all families.
    state: u32,
    role: u32,
    /// Of a listener; of one that is alone 1 when that came as an error.
    backlog: u32,
    /// Its place in the table, or [`NONE`].
    peer: u32,
    /// Inode of a Unix socket's peer; 0 when it has none any more, [`NONE`] when there never was one.
    peer_ino: u32,
    /// Halves that were shut down: 1 reads, 2 writes.
    shut: u32,
    /// A socket file's mode.
    mode: u32,
    local: Address,
    remote: Address,
}

impl One {
    fn is(&self, role: Role) -> bool {
        self.role == role as u32
    }

    /// Whether it is standard input, output or error: then the descriptor that it is known by is one of these.
    fn is_standard(&self) -> bool {
        self.id & FD_MASK <= 2
    }

    fn is_inet(&self) -> bool {
        matches!(self.family, AF_INET | AF_INET6)
    }

    fn is_tcp(&self) -> bool {
        self.is_inet() && self.kind == SOCK_STREAM
    }

    /// In words.
    fn name(&self) -> Text<256> {
        let kind = match (self.family, self.kind) {
            (AF_UNIX, _) => "unix",
            (AF_NETLINK, _) => "netlink",
            (_, SOCK_STREAM) => "tcp",
            _ => "udp",
        };
        let mut name = Text::of(format_args!("{kind}"));
        if self.local.is_set() {
            name.add(format_args!(" {}", self.local));
        }
        if self.remote.is_set() && self.family != AF_NETLINK {
            name.add(format_args!(" to {}", self.remote));
        }
        name
    }
}

#[cold]
fn refuse(one: &One, why: &'static str, remedy: &'static str) -> Error {
    Error::refused(format_args!("descriptor {} (socket {})", one.fd, one.name()), why, remedy)
}

#[cold]
fn failed(one: &One, why: &'static str) -> impl Fn(Errno) -> Error {
    let one = *one;
    move |e| Error::failed(format_args!("descriptor {} (socket {})", one.fd, one.name()), why, e)
}

/// Looks at a socket: its family, and whether that is one that is carried.
fn look<T: Target>(target: &T, file: &OpenFile) -> Result<One> {
    let cannot = |e| Error::failed(format_args!("descriptor {} (socket)", file.fd), "cannot be examined", e);
    let own = target.borrow(file.fd as Fd).map_err(cannot)?;
    let (_, owner) = sys::fs::owner(own.fd()).map_err(cannot)?;
    if owner != 0 && file.driven == 0 {
        // It gets SIGURG without being asked (a signal-driven one: `sigio`).
        let object = format_args!("descriptor {} (socket)", file.fd);
        let why = "sends its signals to a process (F_SETOWN), which cannot be carried";
        return Err(Error::refused(object, why, "set the owner to 0, or close it before the save"));
    }
    let ask = |name| number(own.fd(), SOL_SOCKET, name).map_err(cannot);
    let (family, kind, protocol) = (ask(SO_DOMAIN)?, ask(SO_TYPE)?, ask(SO_PROTOCOL)?);
    let known = match (family, kind) {
        (AF_UNIX, _) => true,
        (AF_INET | AF_INET6, SOCK_STREAM) => matches!(protocol, IPPROTO_TCP | IPPROTO_MPTCP),
        (AF_INET | AF_INET6, SOCK_DGRAM) => protocol == IPPROTO_UDP,
        (AF_NETLINK, _) => {
            matches!(protocol, NETLINK_ROUTE | NETLINK_SOCK_DIAG | NETLINK_KOBJECT_UEVENT | NETLINK_GENERIC)
        }
        _ => false,
    };
    if !known {
        let name = match (family, kind) {
            (AF_INET | AF_INET6, _) => "raw, ping or other",
            (AF_NETLINK, _) => "netlink",
            (17, _) => "packet",
            (40, _) => "vsock",
            (38, _) => "alg",
            (44, _) => "xdp",
            _ => "other",
        };
        let object = format_args!("descriptor {} ({name} socket, family {family}, protocol {protocol})", file.fd);
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
        mode: 0,
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
            file.kind = Kind::Pipe as u32;
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
    inet::find(target, table)?;
    unix::find(target, table)?;
    Ok(table)
}

/// The steps that are being written.
struct Steps<'s, 'p, 'b, T> {
    save: &'s mut Save<'p, 'b, T>,
    /// The process's sockets.
    table: &'s [One],
    /// Sockets that exist at the restart only.
    helpers: &'s mut [Socket],
    used: usize,
}

impl<T: Target> Steps<'_, '_, '_, T> {
    /// The place of a socket in the image's table.
    fn place(&self, id: u32) -> u32 {
        match id.checked_sub(HELPERS) {
            Some(helper) => self.table.len() as u32 + helper,
            None => self.table.iter().position(|one| one.id == id).unwrap_or(0) as u32,
        }
    }

    /// One more step. Sockets are named by their ids here.
    fn push(&mut self, socket: u32, step: Step, (mut a, mut b): (u32, u32), bytes: &[u8]) -> Result<()> {
        match step {
            Step::Pair => a = self.place(a),
            Step::Connect if bytes.is_empty() => a = self.place(a),
            Step::Accept => (a, b) = (self.place(a), self.place(b)),
            Step::Right if self.table.iter().any(|one| one.id == a) => (a, b) = (self.place(a), 1),
            _ => {}
        }
        let socket = self.place(socket);
        let bytes = self.save.notes.string(bytes)?;
        let step = (step as u32).into();
        self.save.notes.push(&SocketStep { socket: socket.into(), step, a: a.into(), b: b.into(), bytes })?;
        Ok(())
    }

    /// A socket of the same kind that helps to make others.
    fn helper(&mut self, like: &One) -> Result<u32> {
        let id = HELPERS + self.used as u32;
        let name = self.save.notes.string(b"helper")?;
        *self.helpers.get_mut(self.used).ok_or(Full)? = record(id, 0, name, like);
        self.used += 1;
        Ok(id)
    }

    /// The helper that listens where nobody does any more: one for all that were accepted under that address.
    fn listener_for(&mut self, table: &[One], accepted: &One) -> Result<u32> {
        // While they are being made, `reserved` tells whose they are.
        let first = table.iter().find(|one| one.is(Role::Accepted) && one.local == accepted.local);
        let owner = first.map_or(0, |first| first.id + 1);
        if let Some(helper) = self.helpers.iter().find(|helper| helper.reserved.get() == owner) {
            return Ok(helper.id.get());
        }
        let id = self.listener(accepted, accepted.local.bytes(), 64)?;
        if let Some(helper) = self.helpers.get_mut(self.used - 1) {
            helper.reserved = owner.into();
        }
        Ok(id)
    }

    /// A helper that listens: at this address, or anywhere.
    fn listener(&mut self, like: &One, at: &[u8], backlog: u32) -> Result<u32> {
        let id = self.helper(like)?;
        self.push(id, Step::Make, (0, 0), &[])?;
        if !at.is_empty() {
            self.push(id, Step::Option, (SOL_SOCKET, REUSE), &1u32.to_le_bytes())?;
            self.push(id, Step::Bind, (0, 0), at)?;
        }
        self.push(id, Step::Listen, (backlog, 0), &[])?;
        Ok(id)
    }
}

fn record(id: u32, flags: u32, name: image_format::StrRef, like: &One) -> Socket {
    Socket {
        id: id.into(),
        flags: flags.into(),
        name,
        family: like.family.into(),
        kind: like.kind.into(),
        protocol: like.protocol.into(),
        reserved: 0.into(),
    }
}

/// Writes both tables.
///
/// # Errors
/// What waits in a socket and cannot be carried; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    if !files.iter().any(|f| f.kind == Kind::Socket as u32) {
        return Ok(());
    }
    let table = &*find(save.target, &mut save.scratch, files)?;
    let helpers = save.scratch.take::<Socket>(2 * table.len() + 4)?;
    save.notes.begin(NoteType::SocketStep)?;
    let mut steps = Steps { save, table, helpers, used: 0 };
    for (index, one) in table.iter().enumerate() {
        make(&mut steps, table, index, one)?;
    }
    inet::connect(&mut steps, table)?;
    unix::connect(&mut steps, table)?;
    queue::save(&mut steps, table, files)?;
    for one in table.iter().filter(|one| one.shut != 0) {
        steps.push(one.id, Step::Shutdown, (one.shut - 1, 0), &[])?;
    }
    let Steps { save, helpers, used, .. } = steps;
    save.notes.end()?;
    save.notes.begin(NoteType::Socket)?;
    for one in table {
        let name = save.notes.string(one.name().as_bytes())?;
        save.notes.push(&record(one.id, one.flags, name, one))?;
    }
    for helper in helpers.iter().take(used) {
        save.notes.push(&Socket { reserved: 0.into(), ..*helper })?;
    }
    save.notes.end()?;
    Ok(())
}

/// Steps that make a socket, with its options and address, as far as it needs no other one.
fn make<T: Target>(steps: &mut Steps<'_, '_, '_, T>, table: &[One], index: usize, one: &One) -> Result<()> {
    if one.is(Role::Accepted) || one.is(Role::Kept) {
        return Ok(());
    }
    if one.is(Role::Alone) {
        let helper = steps.helper(one)?;
        steps.push(one.id, Step::Pair, (helper, 0), &[])?;
        if one.backlog != 0 {
            // The peer has not read all: its end is a reset.
            steps.push(one.id, Step::Send, (0, 0), b"x")?;
        }
    } else if !one.is(Role::Paired) {
        steps.push(one.id, Step::Make, (0, 0), &[])?;
    } else if let Some(peer) = table.get(one.peer as usize).filter(|_| index < one.peer as usize) {
        steps.push(one.id, Step::Pair, (peer.id, 0), &[])?;
    }
    options(steps, one, None)?;
    if one.local.is_set() && !one.is(Role::Lost) && !one.is(Role::Ended) {
        // A connection under another port than before is better than none.
        let wish = u32::from(one.is(Role::Client) && one.is_inet());
        steps.push(one.id, Step::Bind, (wish, one.mode), one.local.bytes())?;
    }
    if one.is(Role::Listens) {
        steps.push(one.id, Step::Listen, (one.backlog, 0), &[])?;
    }
    Ok(())
}

/// Steps for a socket's options. `from`: the listener that it inherits from.
fn options<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, from: Option<&One>) -> Result<()> {
    let fresh = [one.family, one.kind | SOCK_CLOEXEC, one.protocol, 0].map(|n| n as usize);
    let fresh =
        sys::fs::make(Sysno::socket, fresh).map(Owned::new).map_err(failed(one, "has no like for comparison"))?;
    let borrow = |steps: &Steps<'_, '_, '_, T>, one: &One| {
        steps.save.target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))
    };
    let own = borrow(steps, one)?;
    let from = from.map(|from| borrow(steps, from)).transpose()?;
    option::save(steps, one, own.fd(), fresh.fd(), from.as_ref().map(Owned::fd))?;
    if one.is(Role::Accepted) && from.is_none() {
        // A helper that listens has it set.
        let reuse = number(own.fd(), SOL_SOCKET, REUSE).unwrap_or(0);
        steps.push(one.id, Step::Option, (SOL_SOCKET, REUSE), &reuse.to_le_bytes())?;
    }
    inet::memberships(steps, one, own.fd())
}
