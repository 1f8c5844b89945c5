//! Stands in for a program: hands on signals, stops and goes on with it, lends it the terminal, ends as it ends.
//!
//! Must never hand on what the program has got by itself already: keys of a terminal that serves both.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, getpid, kill_process, kill_process_group, setrlimit};
use sys::abi::signal::{
    SI_KERNEL, SI_QUEUE, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, Siginfo, SignalfdInfo,
};
use sys::child::Change;
use sys::signal::{bit, change_mask, take_pending};

use super::birth::{Child, News, Place};
use super::inbox::{Inbox, default};
use super::terminal::Terminal;
use crate::failure::Failure;

/// What a command does besides standing in.
pub trait Duty {
    /// The program has taken over.
    fn running(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    /// Whether a signal for this command is its own affair, and not handed on.
    fn takes(&mut self, _signal: i32) -> bool {
        false
    }
    /// When [`Duty::tick`] is due.
    fn due(&self) -> Option<Instant> {
        None
    }
    /// The time has come.
    fn tick(&mut self) {}
    /// A child that is not the program has changed.
    fn child(&mut self, _pid: Pid, _change: Change) {}
    /// The status to end with instead of the program's.
    fn status(&mut self, _end: Change) -> Option<u8> {
        None
    }
}

/// A command that only stands in, and calls this once the program runs.
pub struct OnceRunning<F>(pub F);

impl<F: FnMut() -> Result<(), Failure>> Duty for OnceRunning<F> {
    fn running(&mut self) -> Result<(), Failure> {
        (self.0)()
    }
}

/// The program's stand-in.
pub struct Proxy<'a> {
    /// Signals for this command.
    pub inbox: &'a Inbox,
    /// The program.
    pub child: Child,
    /// The terminal, if there is one.
    pub terminal: Option<&'a Terminal>,
}

impl Proxy<'_> {
    /// Stands in until the program ends, then ends in the same way. Returns what went wrong before it ran.
    pub fn run(mut self, duty: &mut impl Duty) -> Failure {
        let mut awaited = true;
        loop {
            // First: a SIGCHLD that is taken here is answered below, one that comes later ends the wait.
            while let Some(signal) = self.inbox.next() {
                self.signal(&signal, duty);
            }
            if let Some(end) = self.children(duty) {
                if awaited {
                    // A failure that the child had before its exec is told by this command.
                    if let Err(failure) = self.child.news() {
                        self.leave();
                        return failure;
                    }
                }
                return self.end(end, duty);
            }
            let now = Instant::now();
            if duty.due().is_some_and(|due| due <= now) {
                duty.tick();
            }
            let news = self.wait(awaited, duty.due().map(|due| due.saturating_duration_since(now)));
            if awaited && news {
                match self.child.news() {
                    Ok(News::Running) => {
                        if let Err(failure) = duty.running() {
                            // The end comes as any other's.
                            let _ = kill_process(self.child.pid, Signal::KILL);
                            self.leave();
                            return failure;
                        }
                        awaited = false;
                    }
                    Ok(News::Died) => awaited = false,
                    Err(failure) => {
                        self.leave();
                        return failure;
                    }
                }
            }
        }
    }

    /// Waits for a signal, for time, or for news of the child; tells whether these have come.
    fn wait(&self, awaited: bool, time: Option<Duration>) -> bool {
        let timeout = time.and_then(|time| Timespec::try_from(time).ok());
        let inbox = PollFd::new(self.inbox, PollFlags::IN);
        let pipe = PollFd::from_borrowed_fd(self.child.pipe().as_fd(), PollFlags::IN);
        let mut both = [inbox, pipe];
        let fds = if awaited { &mut both[..] } else { &mut both[..1] };
        let _ = poll(fds, timeout.as_ref());
        awaited && !both[1].revents().is_empty()
    }

    /// Takes all changes of children; the program's end is returned.
    fn children(&mut self, duty: &mut impl Duty) -> Option<Change> {
        while let Ok(Some((pid, change))) = sys::child::wait(-1, false) {
            let Some(pid) = Pid::from_raw(pid) else { break };
            match change {
                change if pid != self.child.pid => duty.child(pid, change),
                Change::Stopped(signal) => self.stopped(signal),
                Change::Continued => {}
                end => return Some(end),
            }
        }
        None
    }

    fn signal(&mut self, signal: &SignalfdInfo, duty: &mut impl Duty) {
        let number = i32::try_from(signal.signo).unwrap_or(0);
        if number == SIGCHLD || duty.takes(number) {
            return;
        }
        match number {
            SIGCONT => self.go_on(),
            // A key of the terminal: the program is in the same group and has got it.
            _ if self.child.place == Place::WithUs && signal.code == SI_KERNEL => {}
            _ if signal.code == SI_QUEUE => {
                let mut info = Siginfo { signo: number, code: SI_QUEUE, ..Siginfo::zeroed() };
                (info.pid, info.uid, info.value) = (i32::try_from(signal.pid).unwrap_or(0), signal.uid, signal.ptr);
                let _ = sys::signal::queue(self.child.pid.as_raw_nonzero().get(), number, &info);
            }
            _ => {
                let _ = sys::process::kill(self.child.pid.as_raw_nonzero().get(), number);
            }
        }
    }

    /// The program was stopped: so is this command, until somebody lets it go on.
    fn stopped(&mut self, signal: i32) {
        let group = self.group();
        if let (Some(terminal), Some(group)) = (self.terminal, group) {
            if matches!(signal, SIGTTIN | SIGTTOU) && terminal.is_ours() {
                // It is this command's turn, so it is the program's: it only asked before it was given.
                return self.go_on();
            }
            terminal.take_back(group);
        }
        let _ = take_pending(bit(SIGCONT));
        match signal {
            // The kernel does not let these stop a group that nobody could let go on again.
            SIGTSTP | SIGTTIN | SIGTTOU => {
                default(signal);
                let _ = sys::process::kill(getpid().as_raw_nonzero().get(), signal);
                let _ = change_mask(sys::abi::signal::SIG_UNBLOCK, bit(signal));
                let _ = change_mask(sys::abi::signal::SIG_BLOCK, bit(signal));
            }
            _ => drop(sys::process::kill(getpid().as_raw_nonzero().get(), SIGSTOP)),
        }
        let _ = take_pending(bit(SIGCONT));
        self.go_on();
    }

    /// Lets the program go on, with the terminal if it is this command's turn.
    fn go_on(&self) {
        match self.group() {
            Some(group) => {
                if let Some(terminal) = self.terminal.filter(|terminal| terminal.is_ours()) {
                    terminal.give(group);
                }
                let _ = kill_process_group(group, Signal::CONT);
            }
            None => drop(kill_process(self.child.pid, Signal::CONT)),
        }
    }

    /// The program's own process group.
    fn group(&self) -> Option<Pid> {
        (self.child.place != Place::WithUs).then_some(self.child.pid)
    }

    fn leave(&self) {
        if let (Some(terminal), Some(group)) = (self.terminal, self.group()) {
            terminal.take_back(group);
        }
    }

    /// Ends as the program has ended.
    fn end(&self, end: Change, duty: &mut impl Duty) -> Failure {
        self.leave();
        match (duty.status(end), end) {
            (Some(status), _) | (None, Change::Exited(status)) => Failure::status(status),
            (None, Change::Killed(signal)) => {
                // A core of this command would tell nothing.
                let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
                default(signal);
                let _ = sys::process::kill(getpid().as_raw_nonzero().get(), signal);
                let _ = change_mask(sys::abi::signal::SIG_UNBLOCK, bit(signal));
                // Whoever is PID 1 survives its own signals.
                Failure::status(128 + u8::try_from(signal).unwrap_or(0))
            }
            (None, _) => Failure::QUIET,
        }
    }
}
