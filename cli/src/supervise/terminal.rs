//! The terminal that this command runs on, and whose turn it is to use it.
//!
//! Must never be called while SIGTTOU could stop this process: see [`super::inbox`], which keeps it blocked.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::process::{Pid, getpgrp};
use rustix::stdio;
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The controlling terminal.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

impl Terminal {
    /// None without one.
    pub fn open() -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        openat(CWD, "/dev/tty", flags, Mode::empty()).ok().map(Self)
    }

    /// Whether keys of the terminal reach this process group.
    pub fn is_ours(&self) -> bool {
        self.is_of(getpgrp())
    }

    /// Whether they reach that group.
    pub fn is_of(&self, group: Pid) -> bool {
        tcgetpgrp(&self.0).is_ok_and(|now| now == group)
    }

    /// Makes a group the one that they reach. One that has just ended cannot be: nothing is lost.
    pub fn give(&self, group: Pid) {
        let _ = tcsetpgrp(&self.0, group);
    }

    /// Takes it back from a group that has it.
    pub fn take_back(&self, from: Pid) {
        if self.is_of(from) {
            self.give(getpgrp());
        }
    }
}

/// Whether a shell runs this command as a part of a pipeline: others of its process group read or write beside it.
pub fn in_pipeline() -> bool {
    let is_pipe = |fd| fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    is_pipe(stdio::stdin()) || is_pipe(stdio::stdout())
}
