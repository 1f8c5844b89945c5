//! The signals that this command gets while it stands in for a program: all that can be caught, taken one by one.
//!
//! Must never let one act on this process by itself, but those that tell of its own faults.

use std::os::fd::{AsFd, BorrowedFd};

use sys::abi::signal::{SIGCHLD, Sigaction, SignalfdInfo};
use sys::child;
use sys::fs::Owned;
use sys::signal::{bit, set_action, set_mask};

use crate::failure::{Failure, errno};

/// Faults of this very process: ILL, TRAP, BUS, FPE, SEGV, SYS, and ABRT, by which it would end itself.
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];

/// Blocked signals, and a descriptor that they come out of.
#[derive(Debug)]
pub struct Inbox {
    fd: Owned,
    /// The mask with which this command was started: a program's own to be.
    mask: u64,
    /// Whether this command was started with SIGCHLD ignored.
    child_ignored: bool,
}

impl Inbox {
    /// Blocks all signals but those that this command was started to ignore: nohup's SIGHUP ends nobody.
    pub fn open() -> Result<Self, Failure> {
        let ignored = child::ignored();
        let child_ignored = ignored & bit(SIGCHLD) != 0;
        default(SIGCHLD);
        // The Rust runtime ignores SIGPIPE, so that nobody knows whether it was ignored before.
        let ignored = ignored & !bit(SIGCHLD);
        let faults = FAULTS.iter().fold(0, |mask, signal| mask | bit(*signal));
        let wanted = !(faults | ignored);
        let mask = set_mask(wanted).map_err(|e| errno("signals: cannot be blocked", e))?;
        let fd = child::signal_descriptor(wanted).map_err(|e| errno("signals: cannot be taken", e))?;
        Ok(Self { fd, mask, child_ignored })
    }

    /// The next signal, if one waits.
    pub fn next(&self) -> Option<SignalfdInfo> {
        child::next_signal(&self.fd)
    }

    /// In a child that is about to become the program: signals as this command was given them.
    pub fn let_go(&self) {
        if self.child_ignored {
            let ignore = Sigaction { handler: sys::abi::signal::SIG_IGN, ..Sigaction::default() };
            // SAFETY: to ignore is no code.
            let _ = unsafe { set_action(SIGCHLD, &ignore) };
        }
        let _ = set_mask(self.mask);
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.fd.fd()) }
    }
}

/// Gives a signal its default action.
pub fn default(signal: i32) {
    // SAFETY: the default action is no code.
    let _ = unsafe { set_action(signal, &Sigaction::default()) };
}
