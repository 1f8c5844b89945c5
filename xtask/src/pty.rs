//! A terminal of our own, on which a demonstrated program runs and from which its lines are read.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::Result;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

/// Both ends of a new terminal.
pub struct Pty {
    /// The end that a terminal emulator holds.
    pub master: OwnedFd,
    slave: File,
}

impl Pty {
    /// Opens a new terminal.
    ///
    /// # Errors
    /// There are no pseudo-terminals here.
    pub fn new() -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = File::from(ioctl_tiocgptpeer(&master, flags)?);
        Ok(Self { master, slave })
    }

    /// A command whose standard streams and controlling terminal this is (setsid(1) becomes it in place).
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn command(&self, program: &std::path::Path) -> Result<Command> {
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program);
        command.stdin(Stdio::from(self.slave.try_clone()?));
        command.stdout(Stdio::from(self.slave.try_clone()?));
        command.stderr(Stdio::from(self.slave.try_clone()?));
        Ok(command)
    }

    /// Gives the emulator's end away and closes the other, so that the program's end is the terminal's end.
    pub fn into_master(self) -> OwnedFd {
        self.master
    }
}
