//! TCP connections that are carried: held from the moment in which they are read until the process has ended, and kept from others'
//! packets from then on.
//!
//! Must never leave one held in a process that goes on, also when this process is killed: a guard, which shares its
//! descriptors, lets them go then.

use std::vec::Vec;

use state::socket::shield::{self, Batch, Name, RULES};
use state::socket::{Address, repair};
use sys::Errno;
use sys::abi::net::{AF_INET, AF_INET6};
use sys::fs::Owned;

/// Greatest descriptor that the guard looks at: the saver's own are low ones.
const FD_MAX: i32 = 1 << 16;

/// The connections that are held.
#[derive(Debug, Default)]
pub struct Connections {
    held: Vec<Owned>,
    guard: Option<i32>,
    /// What will let nothing in for them.
    shield: Option<Name>,
}

/// What became of the packets that come for connections whose process has ended.
#[derive(Clone, Copy, Debug)]
pub struct Shielded {
    /// How many connections there are.
    pub count: usize,
    /// The tables of nftables that let nothing of them in, by their name; or why there is none.
    pub by: Result<Name, Errno>,
}

impl Connections {
    /// Holds one more.
    ///
    /// # Errors
    /// The kernel does not allow it; no process for the guard.
    pub fn hold(&mut self, own: Owned) -> sys::Result<()> {
        if self.guard.is_none() {
            let name = self.name();
            let let_go = || {
                (0..FD_MAX).for_each(repair::release);
                name.iter().for_each(lower);
            };
            // SAFETY: it makes system calls alone.
            self.guard = Some(unsafe { sys::child::guard(let_go) }?);
        }
        repair::hold(own.fd())?;
        self.held.push(own);
        Ok(())
    }

    /// The name of what will let nothing in for them.
    pub fn name(&mut self) -> Option<Name> {
        if self.shield.is_none() {
            self.shield = Name::new().ok();
        }
        self.shield
    }

    /// The process ends now: nothing comes in for them any more. `is_here`: they are of this process's network, which alone it can
    /// change. `None`: there are none.
    pub fn raise(&mut self, is_here: bool) -> Option<Shielded> {
        let count = self.held.len();
        let name = self.name().filter(|_| is_here).ok_or(Errno::EXDEV);
        let by = name.and_then(|name| self.raise_as(&name).map(|()| name));
        (count != 0).then_some(Shielded { count, by })
    }

    fn raise_as(&self, name: &Name) -> sys::Result<()> {
        let socket = shield::open()?;
        for family in [AF_INET, AF_INET6] {
            let ends = self.held.iter().map(|own| (Address::read(own.fd(), false), Address::read(own.fd(), true)));
            let ends: Vec<_> = ends.filter(|(_, remote)| shield::family(remote) == family).collect();
            if ends.is_empty() {
                continue;
            }
            let batches = ends.chunks(RULES).map(|some| Batch::rules(name, family, some.iter()));
            let made = core::iter::once(Batch::table(name, family)).chain(batches);
            if let Err(e) = made.into_iter().try_for_each(|batch| shield::submit(&socket, &batch)) {
                lower(name);
                return Err(e);
            }
        }
        Ok(())
    }

    /// The process ends now: whoever has them last closes them without a word.
    pub fn silence(&mut self) {
        for own in &self.held {
            repair::silence(own.fd());
        }
    }

    /// Lets all of them go on.
    pub fn release(&mut self) {
        for own in self.held.drain(..) {
            repair::release(own.fd());
        }
    }
}

/// Removes the tables of this name, those that there are.
fn lower(name: &Name) {
    for family in [AF_INET, AF_INET6] {
        let _ = shield::open().and_then(|socket| shield::submit(&socket, &Batch::without(name, family)));
    }
}

/// Calls `act`; should this process end meanwhile, `undo`, on descriptors of this process.
///
/// # Errors
/// No process to see to that.
///
/// # Safety
/// `undo` makes system calls alone.
pub unsafe fn guarded<R>(undo: impl FnOnce(), act: impl FnOnce() -> R) -> sys::Result<R> {
    // SAFETY: the caller vouches.
    let guard = unsafe { sys::child::guard(undo) }?;
    let done = act();
    dismiss(guard);
    Ok(done)
}

fn dismiss(guard: i32) {
    let _ = sys::process::kill(guard, sys::abi::signal::SIGKILL);
    let _ = sys::child::wait(guard, true);
}

impl Drop for Connections {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            dismiss(guard);
        }
    }
}
