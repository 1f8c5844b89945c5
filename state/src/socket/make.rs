//! Sockets that need no other one: with options, addresses, and whether these may be in use.
//!
//! A socket may have an address that others have, too, because of options that were other ones when it got it. So all that share one
//! allow it until each has its own, and then are as they were.

use image_format::record::socket::Step;
use sys::Errno;
use sys::abi::net::{AF_INET, SO_REUSEADDR, SO_REUSEPORT, SOL_SOCKET};
use sys::socket::number;

use super::diag::{is_of_this_machine, is_told_of};
use super::one::{One, Role, failed};
use super::option;
use super::steps::Steps;
use crate::{Result, Target};

/// `IP_FREEBIND`, `IPV6_FREEBIND`, with their levels.
const FREEBIND: [(u32, u32); 2] = [(0, 15), (41, 78)];

/// Places of sockets whose address others of the table may exclude, ascending.
struct Shared<'b>(&'b [u32]);

impl<'b> Shared<'b> {
    fn of<T: Target>(steps: &mut Steps<'_, '_, 'b, T>) -> Result<Self> {
        let table = steps.table;
        let bound = || table.iter().enumerate().filter(|(_, one)| is_bound(one));
        let order = steps.save.scratch.take::<u32>(bound().count())?;
        for (place, (index, _)) in order.iter_mut().zip(bound()) {
            *place = index as u32;
        }
        let key = |index: u32| table.get(index as usize).map(|one| (one.protocol, one.local.port()));
        let at = |index: u32| table.get(index as usize).map(|one| (one.local.is_any(), one.local.place()));
        // Those that say any address first.
        order.sort_unstable_by_key(|index| (key(*index), at(*index).map(|(any, place)| (!any, place))));
        let mut rest = &mut *order;
        while let Some(first) = rest.first().copied() {
            let same = rest.iter().take_while(|index| key(**index) == key(first)).count();
            let (group, others) = rest.split_at_mut(same);
            let overlap = group.len() > 1 && at(first).is_some_and(|(any, _)| any)
                || group.windows(2).any(|two| matches!(two, [a, b] if at(*a) == at(*b)));
            if !overlap {
                group.fill(u32::MAX);
            }
            rest = others;
        }
        order.sort_unstable();
        let used = order.partition_point(|index| *index != u32::MAX);
        Ok(Self(order.get(..used).unwrap_or_default()))
    }

    fn has(&self, index: usize) -> bool {
        self.0.binary_search(&(index as u32)).is_ok()
    }
}

/// Whether it gets its address by a call of its own, and not by connecting or being accepted.
fn is_bound(one: &One) -> bool {
    one.has_ports() && (one.is(Role::Plain) || one.is(Role::Listens)) && one.local.is_set()
}

/// Steps that make internet sockets without connections, and netlink's.
///
/// # Errors
/// No room.
pub fn save<T: Target>(steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
    let (table, shared) = (steps.table, Shared::of(steps)?);
    for (index, one) in table.iter().enumerate() {
        if one.is_unix() || !one.is(Role::Plain) && !one.is(Role::Listens) {
            continue;
        }
        steps.push(one.id, Step::Make, (0, 0), &[])?;
        option::all(steps, one)?;
        super::inet::memberships(steps, one)?;
        if !one.local.is_set() {
            continue;
        }
        if one.has_ports() {
            sharing(steps, one, shared.has(index))?;
        }
        bind(steps, one)?;
        if one.is(Role::Listens) {
            steps.push(one.id, Step::Listen, (one.backlog, 0), &[])?;
        }
    }
    Ok(())
}

/// Steps that let a socket have an address that is in use.
fn sharing<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, shared: bool) -> Result<()> {
    let own = steps.borrow(one)?;
    let ask = |name| match number(own.fd(), SOL_SOCKET, name) {
        // Not all kinds know both.
        Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => Ok(0),
        value => value.map_err(failed(one, "cannot be examined")),
    };
    let (address, port) = (ask(SO_REUSEADDR)?, ask(SO_REUSEPORT)?);
    // Connections of a listener have its address, also ended ones.
    if address != 0 || shared || one.is(Role::Listens) {
        steps.reuse(one.id)?;
    }
    if port != 0 || shared && one.is(Role::Listens) {
        steps.set(one.id, Step::Option, (SOL_SOCKET, SO_REUSEPORT), 1)?;
    }
    Ok(())
}

/// Binds, also to an address that no machine here has any more, or ever had: the program was allowed to.
fn bind<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
    let [v4, v6] = FREEBIND;
    let freely = if one.family == AF_INET { v4 } else { v6 };
    let foreign = one.is_inet()
        && !one.local.is_any()
        && is_told_of(&*steps.save.target)
        && !is_of_this_machine(&one.local)
        && number(steps.borrow(one)?.fd(), freely.0, freely.1).map_err(failed(one, "cannot be examined"))? == 0;
    if foreign {
        steps.set(one.id, Step::Option, freely, 1)?;
    }
    steps.push(one.id, Step::Bind, (0, 0), one.local.bytes())?;
    if foreign {
        steps.set(one.id, Step::Option, freely, 0)?;
    }
    Ok(())
}

/// Steps after which each internet socket allows as much as it did: all have their addresses.
///
/// # Errors
/// No room.
pub fn settle<T: Target>(steps: &mut Steps<'_, '_, '_, T>) -> Result<()> {
    for one in steps.table.iter().filter(|one| one.is_inet() && !one.is(Role::Outside)) {
        let own = steps.borrow(one)?;
        for name in [SO_REUSEADDR, SO_REUSEPORT] {
            // Not all kinds know both.
            let value = match number(own.fd(), SOL_SOCKET, name) {
                Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => continue,
                value => value.map_err(failed(one, "cannot be examined"))?,
            };
            steps.set(one.id, Step::Option, (SOL_SOCKET, name), value)?;
        }
    }
    Ok(())
}
