//! A supervisor's loop: hands signals on to the program, stops and continues with it, lends it the terminal, ends as it ends.
//!
//! Must never hand on what the program has got by itself already: keys of a terminal that serves both.

use core::time::Duration;

use sys::abi::signal::{
    SI_KERNEL, SI_QUEUE, SIG_BLOCK, SIG_UNBLOCK, SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU,
    Siginfo, SignalfdInfo,
};
use sys::abi::{RLIMIT_CORE, Rlimit, Timespec};
use sys::child::Change;
use sys::fs::Fd;
use sys::signal::{bit, change_mask, take_pending};

use super::{Inbox, Place, Terminal};

/// What is known of a program's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The program has taken over.
    Running,
    /// It never will; its process ends, with the reason as its status.
    Died,
    /// It never will, and the supervisor says why.
    Failed,
}

/// What a supervisor does besides.
pub trait Duty {
    /// Something has come through the pipe that tells of the program's start.
    fn news(&mut self) -> News;
    /// The program has taken over. False: it is to be ended at once.
    fn running(&mut self) -> bool {
        true
    }
    /// Whether a signal for the supervisor is its own affair, and not handed on.
    fn takes(&mut self, _signal: i32) -> bool {
        false
    }
    /// How long until [`Duty::tick`] is due.
    fn due(&self) -> Option<Duration> {
        None
    }
    /// The time has come.
    fn tick(&mut self) {}
    /// A child that is not the program has changed.
    fn child(&mut self, _pid: i32, _change: Change) {}
    /// The status to end with instead of the program's.
    fn status(&mut self, _end: Change) -> Option<u8> {
        None
    }
}

/// How supervision ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Status(u8),
    /// The program did not start: [`News::Failed`], or [`Duty::running`] was false.
    Failed,
}

/// The supervisor of one program.
#[derive(Debug)]
pub struct Proxy<'a> {
    /// Signals for the supervisor.
    pub inbox: &'a Inbox,
    /// The program's process.
    pub child: i32,
    /// Its group.
    pub place: Place,
    /// The pipe that tells of its start.
    pub pipe: Fd,
    /// The terminal, if there is one.
    pub terminal: Option<&'a Terminal>,
}

impl Proxy<'_> {
    /// Supervises the program until it ends.
    pub fn run(self, duty: &mut impl Duty) -> End {
        let mut awaited = true;
        loop {
            // First: a SIGCHLD that is taken here is answered below, one that comes later ends the wait.
            while let Some(signal) = self.inbox.next() {
                self.signal(&signal, duty);
            }
            let Ok(end) = self.children(&mut awaited, duty) else { return End::Failed };
            if let Some(end) = end {
                if awaited {
                    match duty.news() {
                        // It ran, and ended before anybody looked.
                        News::Running => drop(duty.running()),
                        News::Died => {}
                        News::Failed => {
                            self.leave();
                            return End::Failed;
                        }
                    }
                }
                return self.end(end, duty);
            }
            if duty.due() == Some(Duration::ZERO) {
                duty.tick();
            }
            if !self.wait(awaited, duty.due()) {
                continue;
            }
            if self.hear(&mut awaited, duty).is_err() {
                return End::Failed;
            }
        }
    }

    /// Takes the news of the program's start, which are there. An error: it did not start.
    fn hear(&self, awaited: &mut bool, duty: &mut impl Duty) -> Result<(), ()> {
        *awaited = false;
        match duty.news() {
            News::Running if duty.running() => return Ok(()),
            News::Died => return Ok(()),
            News::Running => drop(sys::process::kill(self.child, SIGKILL)),
            News::Failed => {}
        }
        self.leave();
        Err(())
    }

    /// Waits for a signal, for time, or for news of the program's start; tells whether these have come.
    fn wait(&self, awaited: bool, time: Option<Duration>) -> bool {
        let limit = time.map(|time| Timespec {
            sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nsec: time.subsec_nanos().into(),
        });
        let pipe = if awaited { self.pipe } else { -1 };
        sys::fs::wait_for_any([self.inbox.fd(), pipe], limit).is_ok_and(|[_, news]| news)
    }

    /// Takes all changes of children; the program's end is returned.
    fn children(&self, awaited: &mut bool, duty: &mut impl Duty) -> Result<Option<Change>, ()> {
        while let Ok(Some((pid, change))) = sys::child::wait(-1, false) {
            match change {
                change if pid != self.child => duty.child(pid, change),
                Change::Stopped(signal) => {
                    // A program that was saved as it stood stops when it has said that it runs.
                    if *awaited && self.wait(true, Some(Duration::ZERO)) {
                        self.hear(awaited, duty)?;
                    }
                    self.stopped(signal);
                }
                Change::Continued => {}
                end => return Ok(Some(end)),
            }
        }
        Ok(None)
    }

    fn signal(&self, signal: &SignalfdInfo, duty: &mut impl Duty) {
        let Ok(number) = i32::try_from(signal.signo) else { return };
        if number == SIGCHLD || duty.takes(number) {
            return;
        }
        match number {
            SIGCONT => self.go_on(),
            // A key of the terminal: the program is in the same group and has got it.
            _ if self.place == Place::WithUs && signal.code == SI_KERNEL => {}
            _ if signal.code == SI_QUEUE => {
                let mut info = Siginfo { signo: number, code: SI_QUEUE, ..Siginfo::zeroed() };
                (info.pid, info.uid, info.value) = (signal.pid.cast_signed(), signal.uid, signal.ptr);
                let _ = sys::signal::queue(self.child, number, &info);
            }
            _ => {
                let _ = sys::process::kill(self.child, number);
            }
        }
    }

    /// The program was stopped: so is this process, until somebody continues it.
    #[inline(never)] // A smaller frame has shorter addresses.
    fn stopped(&self, signal: i32) {
        if let (Some(terminal), Some(group)) = (self.terminal, self.group()) {
            if matches!(signal, SIGTTIN | SIGTTOU) && terminal.is_ours() {
                // It is this process's turn, so it is the program's: it only asked before it was given.
                return self.go_on();
            }
            terminal.take_back(group);
        }
        let own = sys::process::pid();
        if take_pending(bit(SIGCONT)).is_ok() {
            // Somebody has continued it before it could stop.
            return self.go_on();
        }
        match signal {
            // The kernel does not let these stop a group that nobody could continue.
            SIGTSTP | SIGTTIN | SIGTTOU => {
                let _ = sys::signal::set_default(signal);
                let _ = sys::process::kill(own, signal);
                let _ = change_mask(SIG_UNBLOCK, bit(signal));
                let _ = change_mask(SIG_BLOCK, bit(signal));
            }
            _ => drop(sys::process::kill(own, SIGSTOP)),
        }
        let _ = take_pending(bit(SIGCONT));
        self.go_on();
    }

    /// Continues the program, with the terminal if it is this process's turn.
    fn go_on(&self) {
        match self.group() {
            Some(group) => {
                if let Some(terminal) = self.terminal.filter(|terminal| terminal.is_ours()) {
                    terminal.give(group);
                }
                let _ = sys::process::kill(-group, SIGCONT);
            }
            None => drop(sys::process::kill(self.child, SIGCONT)),
        }
    }

    /// The program's own process group.
    fn group(&self) -> Option<i32> {
        (self.place != Place::WithUs).then_some(self.child)
    }

    fn leave(&self) {
        if let (Some(terminal), Some(group)) = (self.terminal, self.group()) {
            terminal.take_back(group);
        }
    }

    /// Ends as the program has ended.
    fn end(&self, end: Change, duty: &mut impl Duty) -> End {
        self.leave();
        match (duty.status(end), end) {
            (Some(status), _) | (None, Change::Exited(status)) => End::Status(status),
            (None, Change::Killed(signal)) => {
                // A core of this process would tell nothing.
                let _ = sys::process::set_rlimit(RLIMIT_CORE, &Rlimit { soft: 0, hard: 0 });
                let _ = sys::signal::set_default(signal);
                let _ = sys::process::kill(sys::process::pid(), signal);
                let _ = change_mask(SIG_UNBLOCK, bit(signal));
                // Whoever is PID 1 survives its own signals.
                End::Status(128u8.wrapping_add(signal as u8))
            }
            (None, Change::Stopped(_) | Change::Continued) => End::Status(0),
        }
    }
}
