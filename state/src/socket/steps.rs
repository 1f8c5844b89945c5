//! The steps of a restart as they are written: which sockets they name, and helpers that exist at the restart alone.

use image_format::StrRef;
use image_format::record::socket::{HELPERS, Socket, SocketStep, Step};
use image_format::writer::Full;
use sys::abi::net::{SO_LINGER, SO_REUSEADDR, SOL_SOCKET};
use sys::fs::{Fd, Owned};

use super::one::{One, failed};
use crate::{Result, Save, Target};

/// `struct linger` of a socket whose end is a reset.
pub const RESET: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

/// The steps that are being written.
pub struct Steps<'s, 'p, 'b, T> {
    pub save: &'s mut Save<'p, 'b, T>,
    /// The process's sockets, ascending by id.
    pub table: &'b [One],
    /// Sockets that exist at the restart only.
    helpers: &'b mut [Socket],
    used: usize,
}

impl<'s, 'p, 'b, T: Target> Steps<'s, 'p, 'b, T> {
    /// None yet; `helpers`: room for some.
    pub fn new(save: &'s mut Save<'p, 'b, T>, table: &'b [One], helpers: &'b mut [Socket]) -> Self {
        Self { save, table, helpers, used: 0 }
    }

    /// The helpers.
    pub fn helpers(self) -> &'b [Socket] {
        let Self { helpers, used, .. } = self;
        helpers.get(..used).unwrap_or_default()
    }

    /// The place of a socket in the image's table.
    fn place(&self, id: u32) -> u32 {
        match id.checked_sub(HELPERS) {
            Some(helper) => self.table.len() as u32 + helper,
            None => self.table.binary_search_by_key(&id, |one| one.id).unwrap_or(0) as u32,
        }
    }

    /// One more step. Sockets are named by their ids here.
    pub fn push(&mut self, socket: u32, step: Step, (mut a, mut b): (u32, u32), bytes: &[u8]) -> Result<()> {
        match step {
            Step::Pair => a = self.place(a),
            Step::Connect if bytes.is_empty() => a = self.place(a),
            Step::Accept => (a, b) = (self.place(a), self.place(b)),
            Step::Right if self.table.binary_search_by_key(&a, |one| one.id).is_ok() => (a, b) = (self.place(a), 1),
            _ => {}
        }
        let bytes = self.save.notes.string(bytes)?;
        self.write(socket, step, (a, b), bytes)
    }

    /// Sends what is among the strings already.
    pub fn send(&mut self, socket: u32, bytes: StrRef) -> Result<()> {
        self.write(socket, Step::Send, (0, 0), bytes)
    }

    fn write(&mut self, socket: u32, step: Step, (a, b): (u32, u32), bytes: StrRef) -> Result<()> {
        let socket = self.place(socket).into();
        let step = (step as u32).into();
        self.save.notes.push(&SocketStep { socket, step, a: a.into(), b: b.into(), bytes })?;
        Ok(())
    }

    /// An option that is a number; `step`: whether it must succeed.
    pub fn set(&mut self, socket: u32, step: Step, (level, name): (u32, u32), value: u32) -> Result<()> {
        self.push(socket, step, (level, name), &value.to_le_bytes())
    }

    /// A socket of the same kind that helps to make others.
    pub fn helper(&mut self, like: &One) -> Result<u32> {
        let id = HELPERS + self.used as u32;
        let name = self.save.notes.string(b"helper")?;
        *self.helpers.get_mut(self.used).ok_or(Full)? = record(id, 0, name, like);
        self.used += 1;
        Ok(id)
    }

    /// The same, made by a call of its own.
    pub fn made_helper(&mut self, like: &One) -> Result<u32> {
        let helper = self.helper(like)?;
        self.push(helper, Step::Make, (0, 0), &[])?;
        Ok(helper)
    }

    /// Its address may be one that connections, also ended ones, still have.
    pub fn reuse(&mut self, socket: u32) -> Result<()> {
        self.set(socket, Step::Option, (SOL_SOCKET, SO_REUSEADDR), 1)
    }

    /// It leaves without a farewell: the other side, if there is one, is reset.
    pub fn reset(&mut self, socket: u32) -> Result<()> {
        self.push(socket, Step::Option, (SOL_SOCKET, SO_LINGER), &RESET)?;
        self.close(socket)
    }

    /// A helper has done its work.
    pub fn close(&mut self, socket: u32) -> Result<()> {
        self.push(socket, Step::Close, (0, 0), &[])
    }

    /// A descriptor of the saver's own for a socket.
    pub fn borrow(&self, one: &One) -> Result<Owned> {
        self.save.target.borrow(one.fd as Fd).map_err(failed(one, "cannot be examined"))
    }
}

/// A socket's record; `like` tells what kind of socket it is.
pub fn record(id: u32, flags: u32, name: StrRef, like: &One) -> Socket {
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
