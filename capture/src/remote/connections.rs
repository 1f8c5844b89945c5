//! TCP connections that are carried: held from the moment in which they are read until the process has ended.
//!
//! Must never leave one held in a process that goes on, also when this process is killed: a guard, which shares its
//! descriptors, lets them go then.

use std::vec::Vec;

use state::socket::repair;
use sys::fs::Owned;

/// Greatest descriptor that the guard looks at: the saver's own are low ones.
const FD_MAX: i32 = 1 << 16;

/// The connections that are held.
#[derive(Debug, Default)]
pub struct Connections {
    held: Vec<Owned>,
    guard: Option<i32>,
}

impl Connections {
    /// Holds one more.
    ///
    /// # Errors
    /// The kernel does not allow it; no process for the guard.
    pub fn hold(&mut self, own: Owned) -> sys::Result<()> {
        if self.guard.is_none() {
            self.guard = Some(sys::child::guard(|| (0..FD_MAX).for_each(repair::release))?);
        }
        repair::hold(own.fd())?;
        self.held.push(own);
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

impl Drop for Connections {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            let _ = sys::process::kill(guard, sys::abi::signal::SIGKILL);
            let _ = sys::child::wait(guard, true);
        }
    }
}
