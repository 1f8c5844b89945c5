//! System calls made by a stopped thread of another process on our behalf.
//!
//! The calls run in code that is put into bytes which nothing uses: behind the last instruction of the vdso or of
//! another executable mapping. Invariant: from the moment in which a thread's registers are changed to the one in which they
//! are put back, letting it go must lead it back by itself, with its registers and its mask; this process may
//! be killed at any instant.

use std::vec::Vec;

use state::{Error, Result};
use sys::Errno;
use sys::abi::ptrace::{PTRACE_EVENT_STOP, UserRegs};
use sys::arch::{INJECTED_MAX, WayBack, injected};
use sys::fs::Fd;
use sys::ptrace::{self, Event};

use super::resume::way_back;

/// Bytes that must be free in front of the code: a program's last instruction ends where its zeros begin.
const MARGIN: usize = 32;

/// Bytes of a process's code that nothing uses, and what they hold.
#[derive(Clone, Debug)]
pub struct Place {
    /// Their address.
    pub addr: u64,
    /// What was there, to be put back.
    pub original: Vec<u8>,
}

impl Place {
    /// Finds bytes at the end of an executable mapping that are all zero. `mem` is the process's memory.
    ///
    /// # Errors
    /// `/proc/PID/maps` cannot be read; no such bytes.
    pub fn find(proc: Fd, mem: Fd) -> Result<Self> {
        let failed = |e| Error::failed(format_args!("mappings"), "/proc/PID/maps cannot be read", e);
        let mut buffer = [0; 8192];
        let mut lines = sys::fs::Lines::open_at(proc, c"maps", &mut buffer).map_err(failed)?;
        let mut best = None;
        while let Some(line) = lines.next_line().map_err(failed)? {
            let mut fields = sys::text::words(line);
            let range = fields.next().and_then(|f| sys::text::cut(f, b'-'));
            let Some((start, end)) = range.and_then(|(a, b)| Some((sys::text::hex(a)?, sys::text::hex(b)?))) else {
                continue;
            };
            let code = fields.next().is_some_and(|perms| perms.get(2) == Some(&b'x') && perms.first() == Some(&b'r'));
            let name = fields.nth(3).unwrap_or_default();
            if !code || end > image_format::USER_END || end - start < image_format::PAGE {
                continue;
            }
            let mut tail = [0; INJECTED_MAX + MARGIN];
            let from = end - tail.len() as u64;
            if sys::fs::pread_exact(mem, &mut tail, from).is_ok() && tail.iter().all(|b| *b == 0) {
                best = Some(end - INJECTED_MAX as u64);
                if name == b"[vdso]" {
                    break;
                }
            }
        }
        match best {
            Some(addr) => Ok(Self { addr: addr & !7, original: [0; INJECTED_MAX].to_vec() }),
            None => Err(Error::refused(
                format_args!("executable mappings"),
                "have no bytes at their ends that nothing uses: no system call can be made inside",
                "preload libckpt.so, or save it by a call of the library",
            )),
        }
    }

    /// Puts back what was there.
    pub fn restore(&self, mem: Fd) {
        let _ = sys::fs::pwrite_all(mem, &self.original, self.addr);
    }
}

/// A stopped thread that makes calls for us.
#[derive(Debug)]
pub struct Puppet {
    tid: i32,
    place: u64,
    fork_at: u64,
    /// Registers as it was stopped with them: what it gets back.
    regs: UserRegs,
    mask: u64,
    /// Its mask has been changed.
    blocked: bool,
}

fn ended(tid: i32) -> Error {
    Error::failed(format_args!("thread {tid}"), "ended while it was being saved", Errno::ESRCH)
}

impl Puppet {
    /// Prepares a thread that stands still with these registers and this mask. One thread at a time.
    ///
    /// # Errors
    /// The code cannot be written.
    pub fn new(tid: i32, regs: UserRegs, mask: u64, place: &Place, mem: Fd) -> Result<Self> {
        let back = way_back(&regs, mask);
        let mut puppet = Self { tid, place: place.addr, fork_at: 0, regs, mask, blocked: false };
        puppet.write(&back, mem)?;
        Ok(puppet)
    }

    /// A process that is nobody's: it needs no way back.
    #[must_use]
    pub fn of_copy(tid: i32, regs: UserRegs, place: u64) -> Self {
        Self { tid, place, fork_at: 0, regs, mask: 0, blocked: true }
    }

    fn write(&mut self, back: &WayBack, mem: Fd) -> Result<()> {
        let (code, len, fork) = injected(back);
        self.fork_at = self.place + fork as u64;
        let code = code.get(..len).unwrap_or_default();
        sys::fs::pwrite_all(mem, code, self.place)
            .map_err(|e| Error::failed(format_args!("memory at {:#x}", self.place), "cannot be written by a tracer", e))
    }

    /// The thread.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Sets the registers for a call; from here on the way back is in place.
    fn aim(&mut self, at: u64, number: usize, args: [usize; 6]) -> Result<()> {
        let [rdi, rsi, rdx, r10, r8, r9] = args.map(|a| a as u64);
        let regs =
            UserRegs { rip: at, rax: number as u64, orig_rax: u64::MAX, rdi, rsi, rdx, r10, r8, r9, ..self.regs };
        // SAFETY: the code at `at` leads back by itself.
        unsafe { ptrace::set_registers(self.tid, &regs) }.map_err(|_| ended(self.tid))?;
        if !self.blocked {
            // No signal may come between: it would be delivered to code that is not the program's.
            ptrace::set_signal_mask(self.tid, sys::signal::ALL).map_err(|_| ended(self.tid))?;
            self.blocked = true;
        }
        Ok(())
    }

    /// Lets it run to the next entry or exit of a system call; `Some` for another event on the way.
    fn step(&self) -> Result<Option<i32>> {
        let mut signal = 0;
        loop {
            ptrace::resume_to_call(self.tid, signal).map_err(|_| ended(self.tid))?;
            match ptrace::wait(self.tid, true) {
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
        let value = regs.rax as i64;
        Ok(if (-4095..0).contains(&value) { Err(Errno::new(-value as i32)) } else { Ok(value as usize) })
    }

    /// Makes a call. The outer result is about the thread, the inner one is the call's.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn call(&mut self, number: usize, args: [usize; 6]) -> Result<sys::Result<usize>> {
        self.aim(self.place, number, args)?;
        self.step()?;
        self.step()?;
        self.result()
    }

    /// Makes a copy of the process; returns the copy's pid (as we see it), standing still, traced and ended with us.
    /// `Err` within: the kernel refuses another process.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn fork(&mut self) -> Result<sys::Result<i32>> {
        use sys::abi::ptrace::{PTRACE_O_EXITKILL, PTRACE_O_TRACECLONE};
        let flags = sys::abi::CLONE_VM | sys::abi::CLONE_FILES;
        self.aim(self.fork_at, sys::Sysno::clone as usize, [flags, 0, 0, 0, 0, 0])?;
        self.step()?;
        if self.step()?.is_none() {
            // No event: the call failed; the thread asks for the end of a child that does not exist and goes back.
            return Ok(Err(self.result()?.err().unwrap_or(Errno::EAGAIN)));
        }
        let middle = ptrace::event_message(self.tid).map_err(|_| ended(self.tid))? as i32;
        let first_stop = |tid| matches!(ptrace::wait(tid, true), Ok(Some(Event::Stopped(..))));
        let mut copy = Err(Errno::EAGAIN);
        if first_stop(middle) {
            let _ = ptrace::set_options(middle, PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
            let _ = ptrace::resume(middle, 0);
            if let Ok(Some(Event::Stopped(_, sys::abi::ptrace::PTRACE_EVENT_CLONE))) = ptrace::wait(middle, true)
                && let Ok(pid) = ptrace::event_message(middle)
                && first_stop(pid as i32)
            {
                let options = PTRACE_O_EXITKILL | sys::abi::ptrace::PTRACE_O_TRACESYSGOOD;
                let _ = ptrace::set_options(pid as i32, options);
                copy = Ok(pid as i32);
            }
            let _ = ptrace::resume(middle, 0);
            while matches!(ptrace::wait(middle, true), Ok(Some(Event::Stopped(..)))) {
                let _ = ptrace::resume(middle, 0);
            }
        }
        // Exit of clone, entry and exit of the wait for the middle process.
        for _ in 0..3 {
            self.step()?;
        }
        Ok(copy)
    }

    /// Gives the thread back what it had. It stands still as before.
    ///
    /// # Errors
    /// It has ended.
    pub fn put_back(self) -> Result<()> {
        if !self.blocked {
            return Ok(());
        }
        // Stopped anew, before the first instruction of the way back: only here does the kernel look again at what an
        // interrupted call was to do.
        let stop = ptrace::interrupt(self.tid).and_then(|()| ptrace::resume(self.tid, 0));
        stop.map_err(|_| ended(self.tid))?;
        loop {
            match ptrace::wait(self.tid, true) {
                Ok(Some(Event::Stopped(_, PTRACE_EVENT_STOP))) => break,
                Ok(Some(Event::Stopped(signal, 0))) if signal & 0x80 == 0 => {
                    ptrace::resume(self.tid, signal).map_err(|_| ended(self.tid))?;
                }
                Ok(Some(Event::Stopped(..))) => ptrace::resume(self.tid, 0).map_err(|_| ended(self.tid))?,
                Ok(None | Some(Event::Gone)) | Err(_) => return Err(ended(self.tid)),
            }
        }
        ptrace::set_signal_mask(self.tid, self.mask).map_err(|_| ended(self.tid))?;
        // SAFETY: its own registers, as it was stopped with them.
        unsafe { ptrace::set_registers(self.tid, &self.regs) }.map_err(|_| ended(self.tid))
    }
}
