//! A terminal of a test's own: it types, and collects what appears.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use anyhow::Result;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::User;
use crate::capture::Capture;
use crate::user::NOBODY;

/// The side of a terminal where a person would sit.
#[derive(Debug)]
pub struct Pty {
    master: File,
    /// Held open, so that the terminal lives on between two programs.
    slave: OwnedFd,
    screen: Capture,
}

impl Pty {
    /// A new terminal of this size that belongs to `user`.
    ///
    /// # Errors
    /// The kernel has none left.
    pub fn new(user: User, rows: u16, columns: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        if user == User::Nobody {
            std::os::unix::fs::fchown(&slave, Some(NOBODY), None)?;
        }
        tcsetwinsize(&slave, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        let master = File::from(master);
        let screen = Capture::of(master.try_clone()?);
        Ok(Self { master, slave, screen })
    }

    /// The program's side, for one of its standard streams.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn other_end(&self) -> Result<Stdio> {
        Ok(self.slave.try_clone()?.into())
    }

    /// Types.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// What appeared so far.
    #[must_use]
    pub fn screen(&self) -> Capture {
        self.screen.clone()
    }
}
