//! All threads of another process stand still, and go on when this value is dropped, whatever happened.
//!
//! Must never take a signal away from a thread: what arrives while it is being stopped is delivered first.

use core::convert::Infallible;

use std::collections::HashSet;
use std::time::{Duration, Instant};
use std::vec::Vec;

use state::{Error, Result};
use sys::Errno;
use sys::abi::ptrace::{
    PTRACE_EVENT_CLONE, PTRACE_EVENT_EXEC, PTRACE_EVENT_STOP, PTRACE_O_TRACECLONE, PTRACE_O_TRACEEXEC,
    PTRACE_O_TRACESYSGOOD,
};
use sys::abi::signal::{SIGTRAP, Siginfo};
use sys::fs::Fd;
use sys::ptrace::{self, Event};
use sys::text::Text;

use super::tracer::{is_ours, not_allowed};

/// How long a thread may take to stop: it may wait for a `vfork` child or a dead file server. As long again it is waited for
/// when the save is given up, as only a stopped thread can be let go.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long to look without sleeping: a thread that can stop does so within microseconds. By looking, not by yielding: a
/// kernel since Linux 6.18 lets one that yields wait behind all others (`yield_task_fair`), seconds on a busy machine.
const SPIN: Duration = Duration::from_micros(200);

/// What is asked of a thread that is traced.
pub const OPTIONS: usize = PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD;

/// Threads that stand still.
#[derive(Debug)]
pub struct Stopped {
    pid: i32,
    tids: Vec<i32>,
    /// How many of them, from the first on, are known to stand still with no signal in their hands.
    still: usize,
    /// What is known of the threads is void: one was made, or the process called exec, since all stood still.
    changed: bool,
    /// The process was stopped by a signal before, and will be again when it is let go.
    by_signal: bool,
    withheld: Withheld,
}

/// A signal that is kept from the process as long as it is traced.
#[derive(Clone, Copy, Debug, Default)]
struct Withheld {
    signal: Option<i32>,
    /// It has come.
    came: bool,
    /// A thread had it in its hands: it is sent again to a process that is let go.
    taken: bool,
}

/// What became of a thread that was told to stop.
enum Settled {
    Still,
    Gone,
    /// It called exec: all others are gone, and what was known of it is void.
    Executed,
}

impl Stopped {
    /// Seizes all threads of `pid`, whose directory in `/proc` is `proc`. They run on; what they make from here on is seized, too.
    ///
    /// `withhold`: a signal that they do not get while they are ours.
    ///
    /// # Errors
    /// Not allowed, or gone.
    pub fn seize(pid: i32, proc: Fd, withhold: Option<i32>) -> Result<Self> {
        let withheld = Withheld { signal: withhold, ..Withheld::default() };
        let mut stopped = Self { pid, tids: Vec::new(), still: 0, changed: false, by_signal: false, withheld };
        // A thread that was not seized yet may have made another one.
        while stopped.seize_new(proc)? {}
        if stopped.tids.is_empty() {
            return Err(gone(pid, Errno::ESRCH));
        }
        Ok(stopped)
    }

    /// Stops them all. False: it called exec meanwhile, try again.
    ///
    /// # Errors
    /// A thread does not stop, or all are gone.
    pub fn stop(&mut self) -> Result<bool> {
        for tid in &self.tids {
            let _ = ptrace::interrupt(*tid);
        }
        while let Some(tid) = self.tids.get(self.still).copied() {
            match self.settle(tid)? {
                Settled::Still => self.still += 1,
                Settled::Gone => drop(self.tids.remove(self.still)),
                Settled::Executed => {
                    self.still += 1;
                    return Ok(false);
                }
            }
        }
        if self.tids.is_empty() {
            return Err(gone(self.pid, Errno::ESRCH));
        }
        self.changed = false;
        Ok(true)
    }

    /// Whether a signal such as SIGSTOP had stopped the process.
    #[must_use]
    pub fn by_signal(&self) -> bool {
        self.by_signal
    }

    /// Ids of the threads, the process's first one first.
    #[must_use]
    pub fn tids(&self) -> &[i32] {
        &self.tids
    }

    /// Seizes threads that are not known yet; false: there are none.
    fn seize_new(&mut self, proc: Fd) -> Result<bool> {
        let dir = sys::fs::open_at(proc, c"task", sys::abi::O_DIRECTORY, 0).map_err(|e| gone(self.pid, e))?;
        let mut found = Vec::new();
        sys::fs::for_each_name(dir.fd(), |name| {
            found.extend(sys::text::decimal(name).and_then(|n| i32::try_from(n).ok()));
            Ok::<_, Infallible>(())
        })
        .map_err(|e| gone(self.pid, e))?
        .unwrap_or_else(|never| match never {});
        let (before, known) = (self.tids.len(), self.tids.iter().copied().collect::<HashSet<_>>());
        for tid in found.into_iter().filter(|tid| !known.contains(tid)) {
            if tid != self.pid && !super::kind::check_thread(proc, tid)? {
                continue;
            }
            match ptrace::seize(tid, OPTIONS) {
                Ok(()) => {}
                // Ended between the listing and now; or made by a thread that was seized already, and so ours.
                Err(Errno::ESRCH) if tid != self.pid => continue,
                Err(Errno::EPERM) if is_ours(proc, tid) => {}
                // On its way out.
                Err(Errno::EPERM) if tid != self.pid && has_ended(proc, tid) => continue,
                Err(e) => return Err(not_allowed(self.pid, tid, proc, e)),
            }
            if tid == self.pid { self.tids.insert(0, tid) } else { self.tids.push(tid) }
        }
        Ok(self.tids.len() != before)
    }

    /// Waits until a thread that was interrupted stands still outside any system call and with no signal in its hands.
    fn settle(&mut self, tid: i32) -> Result<Settled> {
        let start = Instant::now();
        loop {
            let event = match ptrace::wait(tid, false) {
                Ok(event) => event,
                Err(_) => return Ok(Settled::Gone),
            };
            match event {
                None if start.elapsed() > TIMEOUT => {
                    // It may have been frozen just now.
                    super::frozen::check(self.pid)?;
                    return Err(Error::refused(
                        format_args!("thread {tid}"),
                        "does not stop within 5 seconds: it waits inside the kernel, for a vfork child or a file server",
                        "try again when that is over",
                    ));
                }
                None if start.elapsed() > SPIN => std::thread::sleep(Duration::from_micros(50)),
                None => std::hint::spin_loop(),
                Some(Event::Gone) => return Ok(Settled::Gone),
                Some(Event::Stopped(signal, PTRACE_EVENT_STOP)) => {
                    // Else the signal that has stopped all of its threads (kernel/signal.c, `do_jobctl_trap`).
                    self.by_signal |= signal != SIGTRAP;
                    undo_interruption(tid);
                    return Ok(Settled::Still);
                }
                Some(Event::Stopped(_, PTRACE_EVENT_EXEC)) => {
                    self.changed = true;
                    return Ok(Settled::Executed);
                }
                // Any stop uses up the one that was asked for (kernel/signal.c, ptrace_stop), so it is asked for again.
                Some(Event::Stopped(_, PTRACE_EVENT_CLONE)) => {
                    self.made_by(tid);
                    let _ = ptrace::interrupt(tid).and_then(|()| ptrace::resume(tid, 0));
                }
                // A signal that is ignored interrupts no call of a program that nobody traces.
                Some(Event::Stopped(signal, 0)) if signal & 0x80 == 0 => {
                    undo_interruption(tid);
                    let signal = self.withheld.pass(signal);
                    let _ = ptrace::interrupt(tid).and_then(|()| ptrace::resume(tid, signal));
                }
                Some(Event::Stopped(..)) => {
                    let _ = ptrace::interrupt(tid).and_then(|()| ptrace::resume(tid, 0));
                }
            }
        }
    }

    /// A seized thread has made another one, which is seized with it; or a process, which is none of ours.
    fn made_by(&mut self, tid: i32) {
        let Some(new) = ptrace::event_message(tid).ok().and_then(|new| i32::try_from(new).ok()) else { return };
        let path = Text::<64>::of(format_args!("/proc/{}/task/{new}", self.pid));
        if sys::fs::stat(path.as_c_str()).is_err() {
            let _ = ptrace::wait(new, true);
            let _ = ptrace::detach(new, 0);
        } else if !self.tids.contains(&new) {
            self.tids.push(new);
            self.changed = true;
        }
    }

    /// Whether a thread was made, or exec called, since all stood still: what was read is void.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Lets a thread run for a moment and stops it again, when it stood where it cannot be saved. False: it is gone.
    ///
    /// # Errors
    /// It does not stop.
    pub fn nudge(&mut self, tid: i32, moment: Duration) -> Result<bool> {
        if ptrace::resume(tid, 0).is_err() {
            return Ok(false);
        }
        // Asked to stop at once, it would not get to its next instruction.
        let start = Instant::now();
        while start.elapsed() < moment {
            std::hint::spin_loop();
        }
        if ptrace::interrupt(tid).is_err() {
            return Ok(false);
        }
        Ok(matches!(self.settle(tid)?, Settled::Still))
    }

    /// Takes the signal that is withheld out of those that wait.
    pub fn withhold(&mut self, waiting: &mut Vec<Siginfo>) {
        let before = waiting.len();
        waiting.retain(|info| Some(info.signo) != self.withheld.signal);
        self.withheld.came |= waiting.len() != before;
    }

    /// Whether the signal that is withheld has come.
    #[must_use]
    pub fn has_withheld(&self) -> bool {
        self.withheld.came
    }

    /// Ends the process, and waits until all of it is gone.
    pub fn kill(mut self) {
        self.withheld.taken = false;
        let _ = sys::process::kill(self.pid, sys::abi::signal::SIGKILL);
        for tid in std::mem::take(&mut self.tids).into_iter().rev() {
            while matches!(ptrace::wait(tid, true), Ok(Some(Event::Stopped(..)))) {}
        }
    }
}

impl Drop for Stopped {
    /// Lets all threads go; first those that stand still, then those that have not stopped yet, as only a stopped one can be
    /// let go. They are waited for together: one that never stops must not hold the others.
    fn drop(&mut self) {
        let mut tids = std::mem::take(&mut self.tids);
        let mut left = tids.split_off(self.still.min(tids.len()));
        left.extend(tids.into_iter().filter(|tid| ptrace::detach(*tid, 0) == Err(Errno::ESRCH)));
        for tid in &left {
            let _ = ptrace::interrupt(*tid);
        }
        let start = Instant::now();
        while !left.is_empty() && start.elapsed() < TIMEOUT {
            let mut made = Vec::new();
            left.retain(|tid| match ptrace::wait(*tid, false) {
                Ok(None) => true,
                Ok(Some(Event::Stopped(signal, event))) => {
                    if event == PTRACE_EVENT_CLONE {
                        made.extend(ptrace::event_message(*tid).ok().and_then(|new| i32::try_from(new).ok()));
                    }
                    undo_interruption(*tid);
                    // A signal that it was about to take is its own.
                    let own = if event == 0 && signal & 0x80 == 0 { self.withheld.pass(signal) } else { 0 };
                    ptrace::detach(*tid, own).is_err()
                }
                Ok(Some(Event::Gone)) | Err(_) => false,
            });
            left.extend(made.into_iter().filter(|new| !left.contains(new)).collect::<Vec<_>>());
            std::thread::sleep(Duration::from_micros(100));
        }
        if let Some(signal) = self.withheld.signal.filter(|_| self.withheld.taken) {
            let _ = sys::process::kill(self.pid, signal);
        }
    }
}

impl Withheld {
    /// What a thread is to be given of a signal that it is about to take.
    fn pass(&mut self, signal: i32) -> i32 {
        if Some(signal) != self.signal {
            return signal;
        }
        (self.came, self.taken) = (true, true);
        0
    }
}

/// A thread that stands still sees nothing of it, even if it is let go this instant because we are killed.
fn undo_interruption(tid: i32) {
    let Ok(Some(mut regs)) = ptrace::registers(tid) else { return };
    if super::resume::undo_interruption(&mut regs) {
        // SAFETY: its own registers, with the result that makes the kernel repeat the call.
        let _ = unsafe { ptrace::set_registers(tid, &regs) };
    }
}

fn gone(pid: i32, errno: Errno) -> Error {
    Error::failed(format_args!("process {pid}"), "is not there, or has ended", errno)
}

fn has_ended(proc: Fd, tid: i32) -> bool {
    let path = Text::<48>::of(format_args!("task/{tid}/status"));
    let mut buffer = [0; 64];
    let state = state::target::status_value(proc, path.as_c_str(), b"State", &mut buffer);
    !matches!(state, Ok(Some(value)) if !matches!(value, [b'Z' | b'X', ..]))
}
