//! Unix sockets are made, named and connected again.
//!
//! Two that are connected are made as a pair, whatever made them so, and get their names afterwards: first those that only have a name
//! whose file is another one's, or gone, then those that others find. Must never leave a file behind that was not there.

use image_format::record::socket::Step;
use image_format::writer::Full;
use sys::Errno;
use sys::abi::net::AF_UNIX;

use super::diag::{BACKLOG_MAX, Diag};
use super::file;
use super::one::{One, Role, failed, refuse};
use super::option;
use super::order::{Order, order_of};
use super::queue::Fill;
use super::steps::Steps;
use super::unix::Names;
use crate::{Error, Result, Target};

/// No helper.
pub const NOBODY: u32 = u32::MAX;

/// Asks for any name.
const ANY: [u8; 2] = (AF_UNIX as u16).to_le_bytes();

/// Steps for all Unix sockets of the table.
///
/// # Errors
/// What waits cannot be carried; no room.
pub fn save<'b, T: Target>(steps: &mut Steps<'_, '_, 'b, T>, fill: &mut Fill<'_, '_>) -> Result<()> {
    let table = steps.table;
    if !table.iter().any(One::is_unix) {
        return Ok(());
    }
    let names = Names::of(&mut steps.save.scratch, table)?;
    for (index, one) in table.iter().enumerate().filter(|(_, one)| one.is_unix()) {
        make(steps, &names, (index, one), fill)?;
    }
    named(steps, &names)?;
    let plan = Plan::of(steps)?;
    // Those whose file is gone: it is there for as long as somebody must find it.
    for (place, one) in (0..).zip(table).filter(|(_, one)| is_found(one) && one.local.path().is_some() && one.mode == 0)
    {
        file::push(steps, one, (one.id, Step::Bind), (1, 0))?;
        if one.is(Role::Listens) {
            // Whoever listens must have some name.
            steps.push(one.id, Step::Bind, (1, 0), &ANY)?;
            steps.push(one.id, Step::Listen, (one.backlog, 0), &[])?;
        }
        plan.connect_to(steps, (place, one), fill)?;
        file::push(steps, one, (one.id, Step::Unlink), (0, 0))?;
    }
    for one in table.iter().filter(|one| is_found(one) && !(one.local.path().is_some() && one.mode == 0)) {
        if one.local.is_set() {
            file::bind(steps, one)?;
        }
        if one.is(Role::Listens) {
            steps.push(one.id, Step::Listen, (one.backlog, 0), &[])?;
        }
    }
    plan.connect_others(steps, fill)?;
    for one in table.iter().filter(|one| one.is_unix()) {
        fill.one(steps, one)?;
    }
    for one in table.iter().filter(|one| one.is_unix() && one.shut != 0 && !one.is(Role::Outside)) {
        steps.push(one.id, Step::Shutdown, (one.shut - 1, 0), &[])?;
    }
    Ok(())
}

/// Whether others find it by its name.
fn is_found(one: &One) -> bool {
    one.is_unix() && (one.is(Role::Listens) || one.is(Role::Plain))
}

/// Makes a socket, or a pair, with options.
fn make<T: Target>(
    steps: &mut Steps<'_, '_, '_, T>,
    names: &Names<'_>,
    (index, one): (usize, &One),
    fill: &mut Fill<'_, '_>,
) -> Result<()> {
    let table = steps.table;
    if one.is(Role::Outside) {
        return Ok(());
    }
    if one.is(Role::Remnant) {
        let helper = steps.helper(one)?;
        fill.plays(index, helper)?;
        if is_abstract(one) && one.connects() {
            steps.push(helper, Step::Make, (0, 0), &[])?;
            accept(steps, names, one, helper)?;
        } else {
            steps.push(one.id, Step::Pair, (helper, 0), &[])?;
        }
        if one.reset != 0 {
            // The peer has not read all: its end is a reset.
            steps.push(one.id, Step::Send, (0, 0), b"x")?;
        }
    } else if !one.is(Role::Paired) {
        steps.push(one.id, Step::Make, (0, 0), &[])?;
    } else if let Some(peer) = table.get(one.peer as usize).filter(|_| index < one.peer as usize) {
        match inherits(table, names, one, peer) {
            None => steps.push(one.id, Step::Pair, (peer.id, 0), &[])?,
            Some((accepted, client)) => {
                steps.push(client.id, Step::Make, (0, 0), &[])?;
                accept(steps, names, accepted, client.id)?;
            }
        }
    }
    option::all(steps, one)
}

fn is_abstract(one: &One) -> bool {
    one.local.is_set() && one.local.path().is_none()
}

/// Of two that are connected, the one that has an abstract name from a listener: nobody else can have such a name twice. With the other
/// one.
fn inherits<'t>(table: &[One], names: &Names<'_>, one: &'t One, peer: &'t One) -> Option<(&'t One, &'t One)> {
    let listens = |one: &One| names.listener(table, &one.local).is_some();
    match (one.connects(), is_abstract(one), is_abstract(peer)) {
        (false, ..) | (_, false, false) => None,
        (_, true, false) => Some((one, peer)),
        (_, false, true) => Some((peer, one)),
        (_, true, true) if listens(one) => Some((one, peer)),
        (_, true, true) => Some((peer, one)),
    }
}

/// Makes a socket by accepting the connection of `client`, a socket's id, under its name.
fn accept<T: Target>(steps: &mut Steps<'_, '_, '_, T>, names: &Names<'_>, one: &One, client: u32) -> Result<()> {
    let listener = steps.made_helper(one)?;
    let goes_on = names.listener(steps.table, &one.local).is_some();
    steps.push(listener, Step::Bind, (u32::from(!goes_on), 0), one.local.bytes())?;
    if !goes_on {
        steps.push(listener, Step::Bind, (1, 0), &ANY)?;
    }
    steps.push(listener, Step::Listen, (1, 0), &[])?;
    steps.push(client, Step::Connect, (listener, 0), &[])?;
    steps.push(one.id, Step::Accept, (listener, client), &[])?;
    steps.close(listener)
}

/// Names of those that are connected, or were. Several may have the same: that of the listener that accepted them.
fn named<T: Target>(steps: &mut Steps<'_, '_, '_, T>, names: &Names<'_>) -> Result<()> {
    let table = steps.table;
    let is_named = |one: &&One| one.is_unix() && one.local.is_set() && (one.is(Role::Paired) || one.is(Role::Remnant));
    // The file belongs to who is found by it; else to one of these.
    let owner = |one: &One| {
        let all = || names.all(table, &one.local).filter(|other| other.file == one.file);
        all().find(|other| is_found(other)).or_else(|| all().next()).map_or(one.id, |owner| owner.id)
    };
    for one in table.iter().filter(is_named).filter(|one| one.local.path().is_some()) {
        if one.mode == 0 || owner(one) != one.id {
            // What is there may be the file of the one that goes on to be found by it.
            let stale = one.mode != 0 || names.all(table, &one.local).any(|other| is_found(other) && other.mode != 0);
            file::name(steps, one, stale)?;
        }
    }
    for one in table.iter().filter(is_named) {
        let peer = table.get(one.peer as usize).filter(|_| one.is(Role::Paired));
        let has_it = if is_abstract(one) {
            one.connects()
                && peer.is_none_or(|peer| inherits(table, names, one, peer).is_some_and(|(a, _)| a.id == one.id))
        } else {
            one.mode == 0 || owner(one) != one.id
        };
        if !has_it {
            file::bind(steps, one)?;
        }
    }
    Ok(())
}

/// Who connects to whom, and when.
struct Plan<'b> {
    /// Sockets of messages that are connected to another one of the table, by that one's place.
    by_peer: Order<'b>,
    by_ino: Order<'b>,
    diag: Diag,
}

impl<'b> Plan<'b> {
    fn of<T: Target>(steps: &mut Steps<'_, '_, 'b, T>) -> Result<Self> {
        let table = steps.table;
        let (scratch, connects) = (&mut steps.save.scratch, |one: &One| goes_to(table, one).is_some());
        let by_peer = order_of(scratch, table, connects, |one| one.peer)?;
        let by_ino = order_of(scratch, table, One::is_unix, |one| one.ino)?;
        let cannot = |e| Error::failed(format_args!("sockets"), "cannot be examined (sock_diag)", e);
        Ok(Self { by_peer, by_ino, diag: Diag::open().map_err(cannot)? })
    }

    /// All that connect to a socket whose file is there for a moment alone.
    fn connect_to<T: Target>(
        &self,
        steps: &mut Steps<'_, '_, '_, T>,
        (place, one): (u32, &One),
        fill: &mut Fill<'_, '_>,
    ) -> Result<()> {
        let table = steps.table;
        if one.is(Role::Listens) {
            return self.backlog(steps, one);
        }
        for other in self.by_peer.range(table, |other| other.peer.cmp(&place)) {
            connect(steps, other, Some(one), fill)?;
        }
        fill.one(steps, one)
    }

    /// All others: whoever is connected takes connections from its peer alone, and so connects behind those that connect to it.
    fn connect_others<T: Target>(&self, steps: &mut Steps<'_, '_, 'b, T>, fill: &mut Fill<'_, '_>) -> Result<()> {
        let table = steps.table;
        let to_come = steps.save.scratch.take::<u32>(table.len())?;
        let queue = steps.save.scratch.take::<u32>(table.len())?;
        for peer in self.by_peer.as_slice().iter().filter_map(|place| table.get(*place as usize)) {
            *to_come.get_mut(peer.peer as usize).ok_or(Full)? += 1;
        }
        let mut ready = 0;
        let messages = |one: &One| one.is_unix() && one.is(Role::Plain) && !one.connects();
        for (place, _) in (0..).zip(table).filter(|(_, one)| messages(one)) {
            if to_come.get(place as usize) == Some(&0) {
                *queue.get_mut(ready).ok_or(Full)? = place;
                ready += 1;
            }
        }
        let mut next = 0;
        while let Some(one) = queue.get(next).filter(|_| next < ready).and_then(|place| table.get(*place as usize)) {
            next += 1;
            let to = goes_to(table, one);
            if to.is_none_or(|to| !(to.mode == 0 && to.local.path().is_some())) {
                connect(steps, one, to, fill)?;
            }
            if let Some(left) = to.and_then(|_| to_come.get_mut(one.peer as usize)) {
                *left -= 1;
                if *left == 0 {
                    *queue.get_mut(ready).ok_or(Full)? = one.peer;
                    ready += 1;
                }
            }
        }
        for one in table.iter().filter(|one| one.is_unix() && one.is(Role::Listens)) {
            if one.mode != 0 || one.local.path().is_none() {
                self.backlog(steps, one)?;
            }
        }
        Ok(())
    }

    /// Connections that wait at a listener, in the order in which they do.
    fn backlog<T: Target>(&self, steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
        let (table, mut clients) = (steps.table, [0; BACKLOG_MAX]);
        let count = match self.diag.backlog(one.ino, &mut clients) {
            Err(Errno::EMSGSIZE) => {
                let why = "has too many connections waiting, the order of which the kernel does not tell";
                return Err(refuse(one, why, "let it accept some"));
            }
            count => count.map_err(failed(one, "cannot be examined (sock_diag)"))?,
        };
        // One that has gone, or is not saved, is lost.
        for client in clients.iter().take(count).filter(|client| **client != 0) {
            let found = self.by_ino.find(table, |other| other.ino.cmp(client));
            if let Some(client) = found.and_then(|place| table.get(place as usize)) {
                file::push(steps, one, (client.id, Step::Connect), (0, 0))?;
            }
        }
        Ok(())
    }
}

/// The socket of the table that one is connected to by name.
fn goes_to<'t>(table: &'t [One], one: &One) -> Option<&'t One> {
    table.get(one.peer as usize).filter(|_| one.is_unix() && one.is(Role::Plain) && !one.connects())
}

/// Messages wait in it also from others than those from which it will take them, once it is connected.
fn connect<T: Target>(
    steps: &mut Steps<'_, '_, '_, T>,
    one: &One,
    to: Option<&One>,
    fill: &mut Fill<'_, '_>,
) -> Result<()> {
    fill.one(steps, one)?;
    match to {
        Some(to) => file::push(steps, to, (one.id, Step::Connect), (0, 0)),
        None if one.remote.is_set() => file::at(steps, one, (one.id, Step::Connect), (0, 0), &one.remote),
        None => Ok(()),
    }
}
