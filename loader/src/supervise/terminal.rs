//! The terminal that a supervisor runs on, and whose turn it is to use it.
//!
//! Must never take a terminal from others than this process's own group and the program.

use sys::abi::signal::{SIG_BLOCK, SIGTTOU};
use sys::abi::{O_NOCTTY, O_RDWR, S_IFIFO, S_IFMT};
use sys::fs::{Fd, Owned};
use sys::signal::{bit, change_mask, set_mask};

/// The controlling terminal.
#[derive(Debug)]
pub struct Terminal(Owned);

impl Terminal {
    /// None without one.
    #[must_use]
    pub fn open() -> Option<Self> {
        sys::fs::open(c"/dev/tty", O_RDWR | O_NOCTTY, 0).ok().map(Self)
    }

    /// Its descriptor.
    #[must_use]
    pub const fn fd(&self) -> Fd {
        self.0.fd()
    }

    /// Whether keys of the terminal reach this process's group.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.is_of(sys::process::group())
    }

    /// Whether they reach that group.
    #[must_use]
    pub fn is_of(&self, group: i32) -> bool {
        sys::terminal::foreground(self.fd()) == Ok(group)
    }

    /// Makes a group the one that they reach. One that has just ended cannot be: nothing is lost.
    pub fn give(&self, group: i32) {
        // A process of the background would be stopped for it.
        let mask = change_mask(SIG_BLOCK, bit(SIGTTOU));
        let _ = sys::terminal::set_foreground(self.fd(), group);
        if let Ok(mask) = mask {
            let _ = set_mask(mask);
        }
    }

    /// Takes it back from a group that has it.
    pub fn take_back(&self, from: i32) {
        if self.is_of(from) {
            self.give(sys::process::group());
        }
    }
}

/// Whether a shell runs this process as a part of a pipeline: others of its process group read or write beside it.
#[must_use]
pub fn in_pipeline() -> bool {
    let is_pipe = |fd| sys::fs::fstat(fd).is_ok_and(|stat| stat.mode & S_IFMT == S_IFIFO);
    is_pipe(0) || is_pipe(1)
}
