//! What filters that nobody can read say of a call. A process that has the same is asked, and never makes the call.
//!
//! It has one filter more, which answers `SECCOMP_RET_TRACE` to everything. Of all filters' answers the kernel takes the strictest (kernel/seccomp.c,
//! `seccomp_run_filters`): only a call that all others allow gets as far as its tracer, which has it skipped. A filter could tell that process's
//! instruction pointer from the program's; one that an engine installs for programs that it does not know cannot.

use std::time::{Duration, Instant};

use sys::abi::ptrace::{
    PTRACE_EVENT_SECCOMP, PTRACE_O_EXITKILL, PTRACE_O_TRACESECCOMP, PTRACE_O_TRACESYSGOOD, UserRegs,
};
use sys::abi::signal::{SIGKILL, SIGSYS};
use sys::child::{self, Birth};
use sys::ptrace::{self, Event};
use sys::{Errno, process, signal};

use crate::remote::spin;

/// How long a call may hang that filters leave to another process (`SECCOMP_RET_USER_NOTIF`).
const LIMIT: Duration = Duration::from_secs(1);

/// How long to look without sleeping.
const SPIN: Duration = Duration::from_micros(200);

/// Bytes of the instruction that makes a call.
const CALL: u64 = 2;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Allowed,
    /// It fails.
    Fails,
    /// It ends the process, or sends it a signal, or waits for somebody.
    Harms,
}

/// That process. It stands still at the end of a call.
#[derive(Debug)]
pub struct Probe {
    pid: i32,
    regs: UserRegs,
}

/// Where it stopped.
enum Stop {
    /// At a call's entry or exit.
    Call,
    /// The tracer is asked about a call.
    Asked,
    /// It never will, or would not have.
    Harmed,
}

impl Probe {
    /// Starts it.
    ///
    /// # Errors
    /// No process can be made, or traced; the filters forbid another one.
    pub fn start() -> sys::Result<Self> {
        let own = process::pid();
        // No signal of a terminal's stops it. It inherits that.
        let mask = signal::set_mask(signal::ALL)?;
        // SAFETY: the child makes system calls alone.
        let made = unsafe { child::fork_as(&Birth { exit_signal: 0, ..Birth::default() }) };
        if made == Ok(0) {
            // Whoever waits for the end of what the saver writes must not wait for this one.
            // SAFETY: this process uses none, and its values are never dropped.
            let closed = unsafe { sys::fs::close_range(0, u32::MAX) };
            let ready = closed.is_ok() && process::set_death_signal(SIGKILL).is_ok() && child::parent() == own;
            // Without the filter this ends it; with it the tracer is asked.
            process::exit(i32::from(!ready || process::let_tracer_decide().is_err()));
        }
        signal::set_mask(mask)?;
        let mut probe = Self { pid: made?, regs: UserRegs::default() };
        ptrace::seize(probe.pid, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)?;
        let Stop::Asked = probe.await_stop() else { return Err(Errno::EACCES) };
        probe.regs = probe.skip().ok_or(Errno::EACCES)?;
        probe.regs.rip -= CALL;
        Ok(probe)
    }

    /// What the filters say of a call. Once one harms, it cannot be asked again.
    #[must_use]
    pub fn ask(&mut self, number: usize, args: [usize; 6]) -> Verdict {
        let [rdi, rsi, rdx, r10, r8, r9] = args.map(|arg| arg as u64);
        let regs = UserRegs { rax: number as u64, orig_rax: u64::MAX, rdi, rsi, rdx, r10, r8, r9, ..self.regs };
        // SAFETY: its own code, to make a call that is not made.
        let set = unsafe { ptrace::set_registers(self.pid, &regs) };
        if set.is_err() || !matches!(self.go(), Stop::Call) {
            return Verdict::Harms;
        }
        match self.go() {
            Stop::Call => Verdict::Fails,
            Stop::Asked if self.skip().is_some() => Verdict::Allowed,
            Stop::Asked | Stop::Harmed => Verdict::Harms,
        }
    }

    /// Skips the call that it is asked about: its registers at the end of that.
    fn skip(&self) -> Option<UserRegs> {
        let regs = ptrace::registers(self.pid).ok().flatten()?;
        let regs = UserRegs { orig_rax: u64::MAX, ..regs };
        // SAFETY: its own registers, but for the call.
        unsafe { ptrace::set_registers(self.pid, &regs) }.ok()?;
        matches!(self.go(), Stop::Call).then_some(regs)
    }

    fn go(&self) -> Stop {
        if ptrace::resume_to_call(self.pid, 0).is_err() {
            return Stop::Harmed;
        }
        self.await_stop()
    }

    fn await_stop(&self) -> Stop {
        let start = Instant::now();
        loop {
            match ptrace::wait(self.pid, false) {
                Ok(Some(Event::Stopped(_, PTRACE_EVENT_SECCOMP))) => return Stop::Asked,
                Ok(Some(Event::Stopped(stop, 0))) if stop & 0x80 != 0 => return Stop::Call,
                Ok(Some(Event::Stopped(SIGSYS, 0) | Event::Gone)) | Err(_) => return Stop::Harmed,
                // What it is sent by others is none of its business.
                Ok(Some(Event::Stopped(..))) if ptrace::resume_to_call(self.pid, 0).is_ok() => {}
                Ok(None) if start.elapsed() < SPIN => std::hint::spin_loop(),
                Ok(None) if start.elapsed() < LIMIT => std::thread::sleep(Duration::from_micros(50)),
                Ok(None | Some(Event::Stopped(..))) => return Stop::Harmed,
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        spin::end(self.pid);
    }
}
