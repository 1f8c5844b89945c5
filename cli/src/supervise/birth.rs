//! A child that becomes a program: a copy of this process that arranges its ids, group and namespaces, then executes.
//!
//! What goes wrong in the child before the exec comes back through a pipe, as the failure that it is. The stub tells
//! through the same pipe when its program has taken over. Must never return in the child.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use image_format::ExitCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    PTracer, Pid, PidfdFlags, Signal, getpid, pidfd_open, set_parent_process_death_signal, set_ptracer, setpgid, setsid,
};

use super::inbox::Inbox;
use super::namespace::Namespace;
use super::terminal::{Terminal, in_pipeline};
use crate::failure::{Failure, errno, reason};

/// Where a program lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the process group of this command: keys of the terminal reach both.
    WithUs,
    /// In a group of its own, which is the terminal's foreground if this command's was.
    OwnGroup,
    /// In a session of its own, without a terminal.
    OwnSession,
}

impl Place {
    /// In the foreground a pipeline stays one group, so that the terminal serves all of it; else a group of its own
    /// makes a key, or a signal to this command's group, come once.
    pub fn beside_us(terminal: Option<&Terminal>) -> Self {
        if terminal.is_some_and(Terminal::is_ours) && in_pipeline() { Self::WithUs } else { Self::OwnGroup }
    }
}

/// What the child shall be.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The id that it shall have.
    pub id: Option<i32>,
    /// Group and session.
    pub place: Place,
    /// Whether it is killed when this command is.
    pub dies_with_us: bool,
    /// The namespaces that it is born into.
    pub namespace: Option<&'a Namespace>,
    /// The terminal, if there is one.
    pub terminal: Option<&'a Terminal>,
}

/// How the child says, through the pipe, that it is what it shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// By its exec, which closes the pipe.
    Exec,
    /// By a byte from the stub, in which the pipe's end stays open.
    Stub,
}

/// A child that was started.
#[derive(Debug)]
pub struct Child {
    /// Its id as this command sees it.
    pub pid: Pid,
    /// Its place.
    pub place: Place,
    news: File,
    by_exec: bool,
}

/// What the pipe has said at its end.
#[derive(Debug)]
pub enum News {
    /// The program has taken over.
    Running,
    /// The stub has ended without: its exit code says why.
    Died,
}

/// The pipe's two ends; the one for the stub stays open across an exec, under a number of at least `above`.
pub fn pipe_for_stub(above: i32) -> Result<(OwnedFd, OwnedFd), Failure> {
    let (read, write) = pipe()?;
    let write = fcntl_dupfd_cloexec(&write, above).map_err(|e| {
        Failure::new(
            ExitCode::Kernel,
            format_args!(
                "descriptor {above}: above the limit of descriptors: {}: raise it (ulimit -n)",
                reason(&e.into())
            ),
        )
    })?;
    Ok((read, write))
}

/// A pipe whose ends the exec closes.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|e| errno("a pipe: cannot be made", e))
}

impl Child {
    /// Makes the child, which then executes `command`. `news` is the pipe's end for reading.
    pub fn start(
        inbox: &Inbox,
        setup: &Setup<'_>,
        mut command: Command,
        news: OwnedFd,
        sign: Sign,
        tell: OwnedFd,
    ) -> Result<Self, Failure> {
        let us = getpid();
        // Asked here: ids of other namespaces show as none inside.
        let foreground = setup.terminal.filter(|terminal| terminal.is_ours());
        let parent = pidfd_open(us, PidfdFlags::empty()).map_err(|e| errno("own process", e))?;
        // SAFETY: this command has one thread; the child makes system calls, allocates and executes.
        let pid = unsafe { sys::child::fork(setup.id) }.map_err(|e| no_child(setup, e))?;
        let Some(pid) = Pid::from_raw(pid) else {
            let executed = |()| command.exec();
            let failure = match prepare(inbox, setup, foreground, (sign == Sign::Stub).then_some(&tell), (us, &parent))
                .map(executed)
            {
                Ok(error) => Failure::exec(command.get_program().as_ref(), &error),
                Err(failure) => failure,
            };
            let (code, message) = failure.into_parts();
            let mut tell = File::from(tell);
            let _ = tell.write_all(&[&[b'!', code], message.as_bytes()].concat());
            sys::process::exit(i32::from(code))
        };
        drop(tell);
        if setup.place == Place::OwnGroup {
            // The child does it too: whoever comes first. After its exec it is too late, and done.
            let _ = setpgid(Some(pid), Some(pid));
        }
        Ok(Self { pid, place: setup.place, news: news.into(), by_exec: sign == Sign::Exec })
    }

    /// Reads what the pipe says; waits for it.
    pub fn news(&mut self) -> Result<News, Failure> {
        let mut said = Vec::new();
        let mut first = [0];
        let got = self.news.read(&mut first).unwrap_or(0);
        match (got, first) {
            (0, _) if self.by_exec => Ok(News::Running),
            (0, _) => Ok(News::Died),
            (_, [b'!']) => {
                let _ = self.news.read_to_end(&mut said);
                let (code, message) = said.split_first().unwrap_or((&(ExitCode::Kernel as u8), &[]));
                Err(Failure::of_parts(*code, String::from_utf8_lossy(message).into_owned()))
            }
            _ => Ok(News::Running),
        }
    }

    /// The pipe, to wait for news.
    pub fn pipe(&self) -> &File {
        &self.news
    }
}

/// In the child: everything but the exec.
fn prepare(
    inbox: &Inbox,
    setup: &Setup<'_>,
    foreground: Option<&Terminal>,
    hand_on: Option<&OwnedFd>,
    (us, parent): (Pid, &OwnedFd),
) -> Result<(), Failure> {
    match setup.place {
        Place::WithUs => {}
        Place::OwnGroup => {
            setpgid(None, None).map_err(|e| errno("process group: cannot be made", e))?;
            if let Some(terminal) = foreground {
                terminal.give(getpid());
            }
        }
        Place::OwnSession => drop(setsid().map_err(|e| errno("session: cannot be made", e))?),
    }
    if let Some(namespace) = setup.namespace {
        namespace.furnish()?;
    }
    if let Some(fd) = hand_on {
        fcntl_setfd(fd, FdFlags::empty()).map_err(|e| errno("descriptor: cannot be handed on", e))?;
    }
    if setup.dies_with_us {
        // Where Yama is on, this command's own helpers may trace the program so; elsewhere the kernel knows no such thing.
        let _ = set_ptracer(PTracer::ProcessID(us));
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let mut died = [PollFd::new(parent, PollFlags::IN)];
        if poll(&mut died, Some(&Timespec::default())).is_ok_and(|n| n > 0) {
            sys::process::exit(i32::from(ExitCode::Kernel as u8));
        }
    }
    inbox.let_go();
    Ok(())
}

/// Why a child with a chosen id could not be made.
fn no_child(setup: &Setup<'_>, error: sys::Errno) -> Failure {
    let Some(id) = setup.id else { return errno("a process: cannot be made", error) };
    let remedy = if setup.namespace.is_some() { "" } else { ": --namespace gives it in a namespace of its own" };
    let said = |what: &str| Failure::new(ExitCode::Kernel, format_args!("process id {id}: {what}{remedy}"));
    match error {
        sys::Errno::EEXIST => said(&format!("is taken{}", holder(id))),
        sys::Errno::EPERM => said("may not be chosen without the capability CHECKPOINT_RESTORE"),
        sys::Errno::EINVAL => said("is larger than this system's greatest (sysctl kernel.pid_max)"),
        sys::Errno::ENOSYS => said("cannot be chosen on this kernel (clone3)"),
        other => errno(&format!("process id {id}: no process could be made"), other),
    }
}

/// Who has an id, as far as `/proc` tells.
fn holder(id: i32) -> String {
    let name = std::fs::read(format!("/proc/{id}/comm")).unwrap_or_default();
    let name = crate::text::plain(name.trim_ascii_end());
    if name.is_empty() { String::new() } else { format!(" by {name}") }
}

/// The number under which the stub finds the pipe.
pub fn number(fd: &OwnedFd) -> String {
    fd.as_raw_fd().to_string()
}
