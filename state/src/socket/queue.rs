//! What waited in Unix sockets is sent again at the restart, from where it came.

use image_format::record::socket::Step;
use image_format::writer::Full;
use sys::abi::net::{SO_SNDBUF, SO_SNDBUFFORCE, SOL_SOCKET};
use sys::socket::number;

use super::address::Address;
use super::file;
use super::join::NOBODY;
use super::one::{NONE, One, Role, failed, refuse};
use super::order::{Order, order_of};
use super::steps::Steps;
use super::unix::Names;
use super::waiting::{Piece, Queues};
use crate::{Result, Target};

/// A sender's room while it sends again, bytes; the kernel gives what this user may have.
const ROOM: u32 = 64 << 20;

/// Fills Unix sockets again, each once.
pub struct Fill<'f, 'b> {
    queues: &'f Queues<'f>,
    names: Names<'b>,
    /// By the socket that they are connected to.
    by_target: Order<'b>,
    /// Of each socket the helper that sends to it, or [`NOBODY`].
    helpers: &'b mut [u32],
    /// 1: it is filled.
    done: &'b mut [u8],
}

impl<'f, 'b> Fill<'f, 'b> {
    /// Of all sockets of the table.
    ///
    /// # Errors
    /// No room.
    pub fn of<T: Target>(steps: &mut Steps<'_, '_, 'b, T>, queues: &'f Queues<'f>) -> Result<Self> {
        let (table, scratch) = (steps.table, &mut steps.save.scratch);
        let helpers = scratch.take::<u32>(table.len())?;
        helpers.fill(NOBODY);
        Ok(Self {
            queues,
            names: Names::of(scratch, table)?,
            by_target: order_of(scratch, table, |one| one.is_unix() && !one.local.is_set(), |one| one.peer_ino)?,
            helpers,
            done: scratch.bytes(table.len())?,
        })
    }

    /// A helper plays the peer of the socket at this place.
    ///
    /// # Errors
    /// There is no such place.
    pub fn plays(&mut self, place: usize, helper: u32) -> Result<()> {
        *self.helpers.get_mut(place).ok_or(Full)? = helper;
        Ok(())
    }

    /// Steps that fill one socket, if it is not filled yet.
    ///
    /// # Errors
    /// What waits cannot be carried; no room.
    pub fn one<T: Target>(&mut self, steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
        let place = steps.table.binary_search_by_key(&one.id, |other| other.id).unwrap_or(0);
        if core::mem::replace(self.done.get_mut(place).ok_or(Full)?, 1) != 0 {
            return Ok(());
        }
        for piece in self.queues.of(one.id) {
            self.send(steps, (place, one), piece)?;
        }
        Ok(())
    }

    /// Steps that send something to a socket again.
    fn send<T: Target>(
        &mut self,
        steps: &mut Steps<'_, '_, '_, T>,
        (place, one): (usize, &One),
        piece: &Piece,
    ) -> Result<()> {
        let (sender, unconnected) = self.sender(steps, (place, one), piece.from)?;
        for id in self.queues.rights(piece) {
            steps.push(sender, Step::Right, (*id, 0), &[])?;
        }
        if unconnected {
            file::push(steps, one, (sender, Step::To), (0, 0))?;
        }
        // The same bytes in other pieces may take more of the sender's room than they took.
        let size = |steps: &mut Steps<'_, '_, '_, T>, size: u32| -> Result<()> {
            for name in [SO_SNDBUF, SO_SNDBUFFORCE] {
                steps.set(sender, Step::Wish, (SOL_SOCKET, name), size)?;
            }
            Ok(())
        };
        size(steps, ROOM)?;
        steps.send(sender, piece.bytes())?;
        let Ok(own) = steps.table.binary_search_by_key(&sender, |other| other.id) else { return Ok(()) };
        let Some(own) = steps.table.get(own) else { return Ok(()) };
        let before =
            number(steps.borrow(own)?.fd(), SOL_SOCKET, SO_SNDBUF).map_err(failed(own, "cannot be examined"))?;
        size(steps, before / 2)
    }

    /// Who sends: the peer, the socket of that name, or a helper; and whether it must be told where to.
    fn sender<T: Target>(
        &mut self,
        steps: &mut Steps<'_, '_, '_, T>,
        (place, one): (usize, &One),
        from: Address,
    ) -> Result<(u32, bool)> {
        let from = Some(from).filter(Address::is_set);
        let known = self.helpers.get(place).copied().filter(|helper| *helper != NOBODY);
        if let Some(helper) = known.filter(|_| one.is(Role::Remnant)) {
            return Ok((helper, false));
        }
        if let Some(peer) = steps.table.get(one.peer as usize).filter(|_| one.is(Role::Paired)) {
            if from.is_some_and(|from| from != peer.local) {
                let why = "holds a message of another socket than its peer, which cannot be carried";
                return Err(refuse(one, why, "let the program read it"));
            }
            return Ok((peer.id, false));
        }
        if let Some(from) = from {
            let named = self.names.all(steps.table, &from).next();
            let Some(named) = named else {
                let why = "holds a message of another process, which cannot be carried";
                return Err(refuse(one, why, "let the program read it"));
            };
            return Ok((named.id, named.peer_ino != one.ino));
        }
        // One that has no name, but is connected to this one.
        let mut connected = self.by_target.range(steps.table, |other| other.peer_ino.cmp(&one.ino));
        match (connected.next().filter(|_| one.ino != NONE), known) {
            (Some(unnamed), _) => Ok((unnamed.id, false)),
            (None, Some(helper)) => Ok((helper, true)),
            (None, None) => {
                let helper = steps.made_helper(one)?;
                self.plays(place, helper)?;
                Ok((helper, true))
            }
        }
    }
}
