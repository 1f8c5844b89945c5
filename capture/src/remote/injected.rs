//! System calls that a stopped thread of the tracee makes for the tracer.
//!
//! The calls run in code that is put into bytes which nothing uses: behind the last instruction of the vdso or of
//! another executable mapping. Invariant: from the moment in which a thread's registers are changed to the one in which they
//! are put back, a thread that is detached must resume where it was stopped, with its own registers and mask: this process may
//! be killed at any instant.

mod fork;

use std::sync::Arc;

use state::frame::{FIXED, Move, Xstate};
use state::{Error, Result};
use sys::abi::ptrace::{PTRACE_EVENT_STOP, UserRegs};
use sys::abi::signal::Altstack;
use sys::arch::{Boot, Code, ResumeState, Run};
use sys::fs::Fd;
use sys::ptrace::{self, Event};
use sys::{Errno, Sysno};

use super::filters::{self, FilterChain};
use super::place::{FRAME, LEN, Place};
use super::resume::resume_regs;
use super::spin;
use super::thread::{Registers, one_waits};
pub use fork::release;

/// A stopped thread of the tracee, into which system calls are injected.
#[derive(Debug)]
pub struct Injected {
    tid: i32,
    /// Where calls are made, and where the thread is when it has signalled their end.
    code: u64,
    end: u64,
    /// Registers as it was stopped with them: what it gets back.
    regs: UserRegs,
    mask: u64,
    /// The mask of the call in which it was stopped, when that call brings its own.
    call_mask: Option<u64>,
    /// Its mask has been changed.
    blocked: bool,
    /// The signal that it may send itself when its calls are done (0: none).
    end_signal: i32,
    /// It has signalled the end, and has not run since.
    at_end: bool,
    /// The memory that its code needs is there.
    has_memory: bool,
    /// What its seccomp filters allow, should the tracer die just before a call.
    chain: Option<Arc<FilterChain>>,
}

/// Where a thread stopped that was let run.
#[derive(Debug)]
enum Stop {
    /// At the end of its calls, with this in R9.
    End(u64),
    /// At an event.
    Event(i32),
}

/// The call with which all injected code resumes the thread.
const RESUME: (Sysno, [usize; 6]) = (Sysno::rt_sigreturn, [0; 6]);

fn write<C: Code>(words: &C::Words, at: u64, mem: Fd) -> Result<()> {
    let mut code = [0; 256];
    let len = C::with(words, code.get_mut(..C::ROOM).unwrap_or_default());
    sys::fs::pwrite_all(mem, code.get(..len).unwrap_or_default(), at).map_err(|e| not_written(at, e))
}

fn not_written(at: u64, errno: Errno) -> Error {
    Error::failed(format_args!("memory at {at:#x}"), "cannot be written by a tracer", errno)
}

fn ended(tid: i32) -> Error {
    Error::failed(format_args!("thread {tid}"), "ended while it was being saved", Errno::ESRCH)
}

impl Injected {
    fn new(thread: &Registers) -> Self {
        let call_mask = (thread.blocked != thread.mask).then_some(thread.blocked);
        let code = 0;
        let (tid, regs, mask, end_signal) = (thread.tid, thread.regs, thread.mask, thread.end_signal());
        let chain = thread.chain.clone();
        let (blocked, at_end, has_memory) = (false, false, true);
        Self { tid, code, end: 0, regs, mask, call_mask, blocked, end_signal, at_end, has_memory, chain }
    }

    /// The first thread, which can make calls before there is memory for a frame.
    ///
    /// # Errors
    /// The code cannot be written.
    pub fn boot(thread: &Registers, place: &Place, mem: Fd) -> Result<Self> {
        let mut injected = Self::new(thread);
        injected.back_to_boot(place, mem)?;
        let mask = (Sysno::rt_sigprocmask, [2, place.boot() as usize, 0, 8, 0, 0]);
        filters::allow_resume(injected.chain.as_ref(), injected.end, &[mask, RESUME])?;
        // In the end the memory is taken away, which must not be found impossible only then.
        if let (Some(chain), false) =
            (&injected.chain, injected.tolerates(&[(Sysno::munmap as usize, [place.memory as usize, LEN, 0, 0, 0, 0])]))
        {
            chain.withhold(Sysno::munmap as usize);
            chain.check_withheld()?;
        }
        Ok(injected)
    }

    /// From now on calls are made by code that needs no memory; none has been made by it yet.
    ///
    /// # Errors
    /// The code cannot be written.
    pub fn back_to_boot(&mut self, place: &Place, mem: Fd) -> Result<()> {
        let r = resume_regs(&self.regs, None);
        let registers = [r.rax, r.rcx, r.rdx, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11];
        write::<Boot>(&ResumeState { registers, rip: r.rip, mask: self.mask }, place.boot(), mem)?;
        (self.code, self.end) = (place.boot(), place.boot() + Boot::end());
        Ok(())
    }

    /// Another thread, when the memory is there.
    ///
    /// # Errors
    /// The code or the frame cannot be written.
    pub fn run(thread: &Registers, place: &Place, mem: Fd) -> Result<Self> {
        let mut injected = Self::new(thread);
        injected.prepare_run(thread, place, false, mem)?;
        filters::allow_resume(injected.chain.as_ref(), injected.end, &[RESUME])?;
        Ok(injected)
    }

    fn prepare_run(&mut self, thread: &Registers, place: &Place, first: bool, mem: Fd) -> Result<()> {
        let (code, at) = place.run(first);
        let mut frame = [0; FRAME];
        // A stack that the kernel takes for a mistake leaves the thread's own as it is.
        let stack = Altstack { flags: i32::MAX, ..Altstack::default() };
        let xstate = thread.xstate.get(..thread.core_size).unwrap_or_default();
        let regs = resume_regs(&self.regs, Some(mem));
        let rest = xstate.len().saturating_sub(FIXED) as u32;
        let same = [Move { bit: 0, from: FIXED as u32, to: FIXED as u32, len: rest }];
        let whole = Xstate { features: u64::MAX, len: xstate.len() as u32, moves: &same };
        let sp = state::frame::build(&mut frame, at, &regs, self.mask, stack, xstate, &whole);
        let sp = sp.ok_or(image_format::writer::Full)?;
        let used = frame.get(..state::frame::size(xstate.len())).unwrap_or_default();
        sys::fs::pwrite_all(mem, used, at).map_err(|e| not_written(at, e))?;
        write::<Run>(&sp, code, mem)?;
        (self.code, self.end) = (code, code + Run::end());
        Ok(())
    }

    /// The first thread goes over to code that resumes it by a signal frame.
    ///
    /// # Errors
    /// As for [`Injected::run`].
    pub fn settle(&mut self, thread: &Registers, place: &Place, mem: Fd) -> Result<()> {
        self.prepare_run(thread, place, true, mem)?;
        if self.blocked {
            let regs = UserRegs { rip: self.code + Run::BACK, orig_rax: u64::MAX, ..self.regs };
            // SAFETY: the code there resumes the thread by itself.
            unsafe { ptrace::set_registers(self.tid, &regs) }.map_err(|_| ended(self.tid))?;
        }
        let _ = sys::fs::pwrite_all(mem, &[0; Boot::ROOM], place.boot());
        Ok(())
    }

    /// The copy of a process: it never resumes. It has the mask and the end signal of the thread that made it.
    #[must_use]
    pub fn of_copy(tid: i32, regs: UserRegs, place: &Place, end_signal: i32) -> Self {
        let code = place.run(true).0;
        let end = code + Run::end();
        let (call_mask, chain) = (None, None);
        Self {
            tid,
            code,
            end,
            regs,
            mask: 0,
            call_mask,
            blocked: true,
            end_signal,
            at_end: false,
            has_memory: true,
            chain,
        }
    }

    /// The signal by which it reports the end of many calls; 0: none.
    #[must_use]
    pub fn end_signal(&self) -> i32 {
        self.end_signal
    }

    /// The thread.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Sets the registers for a call; from here on the way back is in place.
    fn aim(&mut self, at: u64, number: usize, args: [usize; 6]) -> Result<()> {
        let [rdi, rsi, rdx, r10, r8, r9] = args.map(|a| a as u64);
        let (rip, rax) = (at, number as u64);
        self.set(&UserRegs { rip, rax, orig_rax: u64::MAX, rdi, rsi, rdx, r10, r8, r9, ..self.regs })
    }

    /// Sets registers that lead into the code.
    fn set(&mut self, regs: &UserRegs) -> Result<()> {
        // SAFETY: the code there resumes the thread by itself.
        unsafe { ptrace::set_registers(self.tid, regs) }.map_err(|_| ended(self.tid))?;
        if !self.blocked {
            // No signal may come between: it would be delivered to code that is not the program's.
            let open = if self.signals_end() { sys::signal::bit(self.end_signal) } else { 0 };
            ptrace::set_signal_mask(self.tid, sys::signal::ALL & !open).map_err(|_| ended(self.tid))?;
            self.blocked = true;
        }
        Ok(())
    }

    /// Whether it can tell of the end of its calls.
    fn signals_end(&self) -> bool {
        self.end_signal != 0
    }

    /// Registers for code that ends with telling it: only [`Run`] puts these back.
    fn telling(&self) -> UserRegs {
        UserRegs { rbx: self.end_signal as u64, orig_rax: u64::MAX, ..self.regs }
    }

    /// Whether its filters let it live after these calls if the tracer dies now, and after those that signal their end.
    fn tolerates(&self, calls: &[(usize, [usize; 6])]) -> bool {
        let Some(chain) = &self.chain else { return true };
        let tolerated = |(number, args): &(usize, [usize; 6])| chain.tolerates(*number, self.code + 2, *args);
        let to_itself = [self.tid as usize, self.end_signal as usize, 0, 0, 0, 0];
        let signalling = [(Sysno::gettid as usize, [0; 6]), (Sysno::tkill as usize, to_itself)];
        calls.iter().all(tolerated) && (!self.signals_end() || signalling.iter().all(tolerated))
    }

    /// Makes all calls of the table at `table`; false: it cannot, one after the other is the way then.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn call_all(&mut self, table: u64, calls: &[(usize, [usize; 6])]) -> Result<bool> {
        if !self.signals_end() || !self.tolerates(calls) {
            return Ok(false);
        }
        self.set(&self.table_of(table, calls.len(), 0))?;
        self.go().map(|stand| matches!(stand, Stop::End(_)))
    }

    /// Registers for a table of so many calls, and for a clone(2) with these flags behind them; 0: for none.
    fn table_of(&self, table: u64, calls: usize, flags: usize) -> UserRegs {
        let (rip, r13, r14) = (self.code + Run::table(), calls as u64, flags as u64);
        UserRegs { rip, r12: table, r13, r14, ..self.telling() }
    }

    /// Lets it run until it has signalled the end, or to an event.
    fn go(&mut self) -> Result<Stop> {
        let (mut pass, end_signal) = (0, self.end_signal);
        loop {
            ptrace::resume(self.tid, pass).map_err(|_| ended(self.tid))?;
            (pass, self.at_end) = (0, false);
            match spin::wait(self.tid) {
                // The same signal from somebody else: without us it would have been dropped, too.
                Ok(Some(Event::Stopped(signal, 0))) if signal == end_signal => {
                    let regs = ptrace::registers(self.tid).ok().flatten().ok_or_else(|| ended(self.tid))?;
                    if regs.rip == self.end {
                        self.at_end = true;
                        return Ok(Stop::End(regs.r9));
                    }
                }
                Ok(Some(Event::Stopped(signal, 0))) => pass = signal,
                Ok(Some(Event::Stopped(_, PTRACE_EVENT_STOP))) => {}
                Ok(Some(Event::Stopped(_, event))) => return Ok(Stop::Event(event)),
                Ok(None | Some(Event::Gone)) | Err(_) => return Err(ended(self.tid)),
            }
        }
    }

    /// Lets it run to the next entry or exit of a system call; `Some` for another event on the way.
    fn step(&mut self) -> Result<Option<i32>> {
        let mut signal = 0;
        self.at_end = false;
        loop {
            ptrace::resume_to_call(self.tid, signal).map_err(|_| ended(self.tid))?;
            match spin::wait(self.tid) {
                Ok(Some(Event::Stopped(stop, 0))) if stop & 0x80 != 0 => return Ok(None),
                // All can be blocked but SIGSTOP: it is taken, and takes effect when the thread is let go.
                Ok(Some(Event::Stopped(stop, 0))) => signal = stop,
                Ok(Some(Event::Stopped(_, PTRACE_EVENT_STOP))) => signal = 0,
                Ok(Some(Event::Stopped(_, event))) => return Ok(Some(event)),
                Ok(None | Some(Event::Gone)) | Err(_) => return Err(ended(self.tid)),
            }
        }
    }

    fn result(&self) -> Result<sys::Result<usize>> {
        let regs = ptrace::registers(self.tid).ok().flatten().ok_or_else(|| ended(self.tid))?;
        Ok(Errno::from_ret(regs.rax as usize))
    }

    /// Makes a call. The outer result is about the thread, the inner one is the call's.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn call(&mut self, number: usize, args: [usize; 6]) -> Result<sys::Result<usize>> {
        if let Some(chain) = self.chain.as_ref().filter(|chain| !chain.tolerates(number, self.code + 2, args)) {
            chain.withhold(number);
            return Ok(Err(Errno::EPERM));
        }
        self.aim(self.code, number, args)?;
        self.step()?;
        self.step()?;
        self.result()
    }

    /// Makes a call by [`Boot`], with four arguments and nothing (-1, 0) for a fifth and sixth.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn call_in_boot(&mut self, number: usize, args: [usize; 4]) -> Result<sys::Result<usize>> {
        let [rdi, rsi, rdx, r10] = args;
        if !self.signals_end() || !self.tolerates(&[(number, [rdi, rsi, rdx, r10, usize::MAX, 0])]) {
            return self.call(number, [rdi, rsi, rdx, r10, usize::MAX, 0]);
        }
        let [rdi, rsi, rdx, r10] = args.map(|arg| arg as u64);
        let (rip, rax, r8) = (self.code, number as u64, self.end_signal as u64);
        self.set(&UserRegs { rip, rax, rdi, rsi, rdx, r10, r8, r9: 0, orig_rax: u64::MAX, ..self.regs })?;
        match self.go()? {
            Stop::End(result) => Ok(Errno::from_ret(result as usize)),
            Stop::Event(_) => Err(ended(self.tid)),
        }
    }

    /// Stops it before its next instruction.
    fn stop_anew(&self) -> Result<()> {
        let stop = ptrace::interrupt(self.tid).and_then(|()| ptrace::resume(self.tid, 0));
        stop.map_err(|_| ended(self.tid))?;
        loop {
            match spin::wait(self.tid) {
                Ok(Some(Event::Stopped(_, PTRACE_EVENT_STOP))) => return Ok(()),
                Ok(Some(Event::Stopped(signal, 0))) if signal & 0x80 == 0 => {
                    ptrace::resume(self.tid, signal).map_err(|_| ended(self.tid))?;
                }
                Ok(Some(Event::Stopped(..))) => ptrace::resume(self.tid, 0).map_err(|_| ended(self.tid))?,
                Ok(None | Some(Event::Gone)) | Err(_) => return Err(ended(self.tid)),
            }
        }
    }

    /// Gives the thread back what it had. It stands still as before.
    ///
    /// # Errors
    /// It has ended.
    pub fn put_back(self) -> Result<()> {
        if !self.blocked {
            return Ok(());
        }
        // Of the stops only these make the kernel look again at what an interrupted call was to do: by a signal, and before the first
        // instruction of the way back.
        if !self.at_end {
            self.stop_anew()?;
        }
        ptrace::set_signal_mask(self.tid, self.mask).map_err(|_| ended(self.tid))?;
        // The call's own mask cannot be given back. A signal that only it blocks is delivered now, and must find the call still to
        // be made, not one that it interrupts.
        let regs = match self.call_mask {
            Some(own) if !one_waits(self.tid, !(own | self.mask)) => resume_regs(&self.regs, None),
            _ => self.regs,
        };
        // SAFETY: its own registers, as it was stopped with them, or with the same call to be made.
        unsafe { ptrace::set_registers(self.tid, &regs) }.map_err(|_| ended(self.tid))
    }
}
