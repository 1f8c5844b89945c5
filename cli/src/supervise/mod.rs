//! Children of this command that are, or become, the program: made here, supervised by [`loader::supervise`].
//!
//! What goes wrong in a child before its exec comes back through a pipe, as the failure that it is. The stub tells through the same pipe which
//! process the program is, and when it has taken over. Must never return in the child.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use image_format::ExitCode;
use loader::supervise::{Inbox, News, Place, SAYS_PID, SAYS_RUNNING, Terminal, end_with_parent};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use sys::child::Change;

use crate::failure::{Failure, errno, reason};

/// A child that was started.
#[derive(Debug)]
pub struct Child {
    /// Its id.
    pub pid: i32,
    /// Its group.
    pub place: Place,
    news: File,
    /// The end of the pipe says that it runs: its exec closes that, or it has said so already. Else a byte says it.
    end_is_running: bool,
    /// What it said before an exec that failed.
    pub failure: Option<Failure>,
}

/// A pipe whose ends an exec closes.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|e| errno("a pipe: cannot be made", e))
}

/// The same with the end for writing under a number of at least `above`.
pub fn pipe_above(above: i32) -> Result<(OwnedFd, OwnedFd), Failure> {
    let (read, write) = pipe()?;
    let write = fcntl_dupfd_cloexec(&write, above).map_err(|e| {
        let why = reason(&e.into());
        let what =
            format_args!("descriptor {above}: above the limit of descriptors: {why}: raise it (ulimit -n)").to_string();
        Failure::new(ExitCode::Kernel, what)
    })?;
    Ok((read, write))
}

/// The number under which the stub finds a pipe.
pub fn number(fd: &OwnedFd) -> String {
    fd.as_raw_fd().to_string()
}

/// The failure when an [`Inbox`] cannot be opened.
pub fn no_signals(e: sys::Errno) -> Failure {
    errno("signals: cannot be taken", e)
}

impl Child {
    /// A program in a process of its own, which ends with this one.
    pub fn fresh(inbox: &Inbox, place: Place, terminal: Option<&Terminal>, command: Command) -> Result<Self, Failure> {
        let foreground = terminal.filter(|terminal| terminal.is_ours());
        let parent = sys::process::pid();
        let (read, write) = pipe()?;
        let prepare = |tell: &OwnedFd| {
            place.take(foreground).map_err(|e| errno("process group: cannot be made", e))?;
            if !end_with_parent(parent, tell.as_raw_fd()) {
                sys::process::exit(i32::from(ExitCode::Kernel as u8));
            }
            Ok(())
        };
        let pid = execute(inbox, command, (&read, write), prepare)?;
        if place == Place::OwnGroup {
            // The child does it too: whoever comes first. After its exec it is too late, and done.
            let _ = rustix::process::setpgid(rustix::process::Pid::from_raw(pid), rustix::process::Pid::from_raw(pid));
        }
        Ok(Self { pid, place, news: read.into(), end_is_running: true, failure: None })
    }

    /// The program that a stub restarts, as a child of this process; `pipe` is the one that the stub gets.
    pub fn of_stub(
        inbox: &Inbox,
        place: Place,
        command: Command,
        (read, write): (OwnedFd, OwnedFd),
    ) -> Result<Self, Failure> {
        let hand_on =
            |fd: &OwnedFd| fcntl_setfd(fd, FdFlags::empty()).map_err(|e| errno("descriptor: cannot be handed on", e));
        let stub = execute(inbox, command, (&read, write), hand_on)?;
        let mut child = Self { pid: stub, place, news: read.into(), end_is_running: false, failure: None };
        match told(&mut child.news) {
            Ok((pid, is_running)) => {
                (child.pid, child.end_is_running) = (pid, is_running);
                Ok(child)
            }
            Err(first) => Err(first.and_then(|first| child.failed(&[first])).unwrap_or_else(|| ended(stub))),
        }
    }

    /// Reads what the pipe says; waits for it.
    pub fn news(&mut self) -> News {
        let mut first = [0];
        match (self.news.read(&mut first).unwrap_or(0), first) {
            (0, _) if self.end_is_running => News::Running,
            (0, _) => News::Died,
            (_, [b'!']) => {
                self.failure = self.failed(&first);
                News::Failed
            }
            _ => News::Running,
        }
    }

    /// What the child said before an exec that failed, behind what was read of it.
    fn failed(&mut self, first: &[u8]) -> Option<Failure> {
        let mut said = first.to_vec();
        self.news.read_to_end(&mut said).ok()?;
        let (code, message) = said.strip_prefix(b"!")?.split_first()?;
        Some(Failure::of_parts(*code, String::from_utf8_lossy(message).into_owned()))
    }

    /// The pipe, to wait for news.
    pub fn pipe(&self) -> i32 {
        self.news.as_raw_fd()
    }
}

/// What a stub says: the program's pid, and whether it has taken over already; else the first byte that is neither, if there is one.
fn told(news: &mut impl Read) -> Result<(i32, bool), Option<u8>> {
    let mut is_running = false;
    loop {
        let (mut first, mut pid) = ([0], [0; 4]);
        match (news.read_exact(&mut first), first) {
            (Ok(()), [SAYS_RUNNING]) => is_running = true,
            (Ok(()), [SAYS_PID]) => {
                return news.read_exact(&mut pid).map(|()| (i32::from_ne_bytes(pid), is_running)).map_err(|_| None);
            }
            (Ok(()), [other]) => return Err(Some(other)),
            (Err(_), _) => return Err(None),
        }
    }
}

/// Makes a child that executes `command` behind `prepare`; what fails there goes into the pipe.
fn execute(
    inbox: &Inbox,
    mut command: Command,
    (_, tell): (&OwnedFd, OwnedFd),
    prepare: impl FnOnce(&OwnedFd) -> Result<(), Failure>,
) -> Result<i32, Failure> {
    // SAFETY: this command has one thread; the child makes system calls, allocates and executes.
    let pid = unsafe { sys::child::fork(None) }.map_err(|e| errno("a process: cannot be made", e))?;
    if pid != 0 {
        return Ok(pid);
    }
    let executed = |()| {
        inbox.let_go();
        command.exec()
    };
    let failure = match prepare(&tell).map(executed) {
        Ok(error) => Failure::exec(command.get_program().as_ref(), &error),
        Err(failure) => failure,
    };
    let (code, message) = failure.into_parts();
    let mut tell = File::from(tell);
    let _ = tell.write_all(&[&[b'!', code], message.as_bytes()].concat());
    sys::process::exit(i32::from(code))
}

/// The status of a child that has ended, or will; it has said why.
pub fn ended(pid: i32) -> Failure {
    loop {
        match sys::child::wait(pid, true) {
            Ok(Some((_, Change::Exited(code)))) => return Failure::status(code),
            Ok(Some((_, Change::Killed(signal)))) => {
                return Failure::status(128 + u8::try_from(signal).unwrap_or(0));
            }
            Ok(_) | Err(sys::Errno::EINTR) => {}
            Err(_) => return Failure::status(ExitCode::Restore as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_faster_than_the_stub_that_tells_its_pid() {
        let said = |bytes: &[u8]| told(&mut &*bytes);
        let pid = 4711i32.to_ne_bytes();
        let first = [&[SAYS_PID][..], &pid, &[SAYS_RUNNING]].concat();
        assert_eq!(said(&first), Ok((4711, false)));
        assert_eq!(said(&[&[SAYS_RUNNING, SAYS_PID][..], &pid].concat()), Ok((4711, true)));
        assert_eq!(said(b"!why"), Err(Some(b'!')));
        assert_eq!(said(&[SAYS_PID, 1]), Err(None));
        assert_eq!(said(&[SAYS_RUNNING]), Err(None));
    }
}
