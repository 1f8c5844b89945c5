//! This process supervises the program, which is its child, and ends as it ends.

use image_format::ExitCode;
use loader::supervise::{Duty, End, Inbox, News, Place, Proxy, Terminal};
use sys::fs::Fd;

use super::namespaces::Namespaces;
use super::pidfile::{NOT_WRITTEN, PidFile};
use crate::start::{MARK, tell};

/// All that is left to do.
pub struct Supervisor<'a> {
    /// Signals for this process.
    pub inbox: &'a Inbox,
    /// The program's process.
    pub child: i32,
    /// Its group.
    pub place: Place,
    /// The end for reading of the pipe by which the program says that it runs.
    pub pipe: Fd,
    /// The terminal, if there is one.
    pub terminal: Option<&'a Terminal>,
    /// What gets the program's pid.
    pub pidfile: Option<PidFile>,
    /// The program's namespaces.
    pub namespaces: Option<Namespaces>,
}

impl Supervisor<'_> {
    /// Supervises until the program ends; returns the status to end with.
    pub fn run(mut self) -> i32 {
        MARK.supervises(self.child);
        // The program's pipes are open in the program alone.
        let kept = [2, self.inbox.fd(), self.pipe, self.terminal.map_or(-1, Terminal::fd)];
        close_all_but(kept);
        let proxy =
            Proxy { inbox: self.inbox, child: self.child, place: self.place, pipe: self.pipe, terminal: self.terminal };
        let end = proxy.run(&mut self);
        if end == End::Failed {
            // PID 1 of its namespace ends after it.
            sys::child::reap(self.child.cast_unsigned());
        }
        if let Some(namespaces) = &mut self.namespaces {
            namespaces.end();
        }
        match end {
            End::Status(status) => i32::from(status),
            End::Failed => i32::from(ExitCode::Usage as u8),
        }
    }
}

impl Duty for Supervisor<'_> {
    fn news(&mut self) -> News {
        if sys::fs::read(self.pipe, &mut [0]) == Ok(1) { News::Running } else { News::Died }
    }

    fn running(&mut self) -> bool {
        if let Some(pidfile) = &self.pidfile
            && let Err(e) = pidfile.write(self.child)
        {
            tell(2, NOT_WRITTEN, 0, pidfile.path, e.into_raw());
            return false;
        }
        // Nothing is left to say: who reads what the program writes there is not to wait for this process.
        // SAFETY: of no use to this process any more.
        unsafe { sys::fs::close(2) };
        true
    }
}

/// Closes all descriptors but these; negative numbers are none.
fn close_all_but(mut kept: [Fd; 4]) {
    kept.sort_unstable();
    let mut from = 0u32;
    for fd in kept.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
        if fd > from {
            // SAFETY: this process uses only those that it keeps.
            let _ = unsafe { sys::fs::close_range(from, fd - 1) };
        }
        from = fd + 1;
    }
    // SAFETY: this process uses only those that it keeps.
    let _ = unsafe { sys::fs::close_range(from, u32::MAX) };
}
