//! The signals that a supervisor gets: all that can be caught, taken one by one.
//!
//! Must never let one act on this process by itself, but those that tell of its own faults.

use sys::abi::signal::{SIGCHLD, SignalfdInfo};
use sys::fs::{Fd, Owned};
use sys::signal::{bit, set_mask};
use sys::{Result, child};

/// Faults of this very process: ILL, TRAP, BUS, FPE, SEGV, SYS, and ABRT, by which it would end itself.
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];

/// Blocked signals, and a descriptor that they come out of.
#[derive(Debug)]
pub struct Inbox {
    fd: Owned,
    /// What is blocked.
    wanted: u64,
    /// The mask with which this process was started: the program's own to be.
    mask: u64,
    /// Whether it was started with SIGCHLD ignored.
    child_ignored: bool,
}

impl Inbox {
    /// Blocks all signals but those that this process was started to ignore: nohup's SIGHUP ends nobody.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> Result<Self> {
        let ignored = child::ignored();
        let child_ignored = ignored & bit(SIGCHLD) != 0;
        sys::signal::set_default(SIGCHLD)?;
        let ignored = ignored & !bit(SIGCHLD);
        let faults = FAULTS.iter().fold(0, |mask, signal| mask | bit(*signal));
        let wanted = !(faults | ignored);
        let mask = set_mask(wanted)?;
        Ok(Self { fd: child::signal_descriptor(wanted)?, wanted, mask, child_ignored })
    }

    /// The descriptor: something can be read when a signal waits.
    #[must_use]
    pub const fn fd(&self) -> Fd {
        self.fd.fd()
    }

    /// The signals that were blocked when this process was started.
    #[must_use]
    pub const fn mask(&self) -> u64 {
        self.mask
    }

    /// The next signal, if one waits.
    #[must_use]
    pub fn next(&self) -> Option<SignalfdInfo> {
        child::next_signal(&self.fd)
    }

    /// Blocks them again, behind [`Inbox::let_go`] in this process.
    pub fn block(&self) {
        let _ = sys::signal::set_default(SIGCHLD);
        let _ = set_mask(self.wanted);
    }

    /// In a child that is about to become the program: signals as this process was given them.
    pub fn let_go(&self) {
        if self.child_ignored {
            let _ = sys::signal::ignore(SIGCHLD);
        }
        let _ = set_mask(self.mask);
    }
}
