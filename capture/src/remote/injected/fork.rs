//! A copy of a process, made by one of its threads in passing: by way of a process in the middle that makes it and ends, so that the
//! copy is no process's child.
//!
//! Must never leave the one in the middle: the thread waits for its end.

use state::Result;
use sys::abi::ptrace::{P_PID, PTRACE_EVENT_CLONE, UserRegs, WALL, WEXITED};
use sys::arch::{Boot, Run};
use sys::fs::Fd;
use sys::ptrace::{self, Event};
use sys::{Errno, Sysno};

use super::{Injected, Stop, ended};
use crate::remote::place::Place;
use crate::remote::{copy, spin};

/// What the process in the middle shares with the program.
const MIDDLE: usize = sys::abi::CLONE_VM | sys::abi::CLONE_FILES;

/// Lets the process in the middle make the copy, beside us.
pub fn release(middle: i32) {
    spin::keep_off(middle);
    let _ = ptrace::resume(middle, 0);
}

impl Injected {
    /// Begins to make a copy of the process, by way of a process in the middle, whose id this is; [`Injected::end_fork`] must follow
    /// before anything else is done with the thread. `Err` within: the kernel refuses another process.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn begin_fork(&mut self) -> Result<sys::Result<i32>> {
        let made = self.clone(MIDDLE)?;
        made.iter().for_each(|middle| release(*middle));
        Ok(made)
    }

    /// Makes a process that shares the program's memory and has its descriptors, to send them: it stands still before its first instruction.
    /// [`Injected::abandon_fork`] must follow.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn make_sender(&mut self) -> Result<sys::Result<i32>> {
        self.clone(sys::abi::CLONE_VM)
    }

    /// Makes a process, which stands still before its first instruction; the thread waits for its end.
    fn clone(&mut self, flags: usize) -> Result<sys::Result<i32>> {
        if !self.may_fork(flags) {
            return Ok(Err(Errno::EPERM));
        }
        let (signals_end, rip) = (self.signals_end(), self.code + Run::fork());
        let (rax, rdi) = (Sysno::clone as u64, flags as u64);
        self.set(&UserRegs { rip, rax, rdi, rsi: 0, rdx: 0, r10: 0, r8: 0, ..self.telling() })?;
        // No event: the call failed; the thread asks for the end of a child that does not exist and goes back.
        let failed = |result: u64| Ok(Err(Errno::from_ret(result as usize).err().unwrap_or(Errno::EAGAIN)));
        if signals_end {
            if let Stop::End(result) = self.go()? {
                return failed(result);
            }
        } else if self.step().and_then(|_| self.step())?.is_none() {
            let regs = ptrace::registers(self.tid).ok().flatten().ok_or_else(|| ended(self.tid))?;
            return failed(regs.rax);
        }
        self.middle().map(Ok)
    }

    /// As [`Injected::call_all`], and when all calls are made begins to make a copy, at once: the process in the middle, if there is one,
    /// stands still before its first instruction. [`release`], or [`Injected::abandon_fork`], must follow.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn call_all_and_fork(&mut self, table: u64, calls: &[(usize, [usize; 6])]) -> Result<(bool, Option<i32>)> {
        if !self.signals_end() || !self.may_fork(MIDDLE) || !self.tolerates(calls) {
            return self.call_all(table, calls).map(|made| (made, None));
        }
        self.set(&self.table_of(table, calls.len(), MIDDLE))?;
        match self.go()? {
            Stop::Event(PTRACE_EVENT_CLONE) => self.middle().map(|middle| (true, Some(middle))),
            stand => Ok((matches!(stand, Stop::End(_)), None)),
        }
    }

    /// The process in the middle ends without having made a copy.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn abandon_fork(&mut self, middle: i32) -> Result<()> {
        copy::end(middle);
        self.await_end()
    }

    /// Has come back from its wait for the process that it made.
    fn await_end(&mut self) -> Result<()> {
        if self.signals_end() {
            return self.go().map(drop);
        }
        // Exit of clone, entry and exit of the wait for the other process.
        for _ in 0..3 {
            self.step()?;
        }
        Ok(())
    }

    /// Whether filters leave it alone for all of this.
    fn may_fork(&self, flags: usize) -> bool {
        let wait = [P_PID, 1, 0, WEXITED | WALL, 0, 0];
        let clone = |flags| (Sysno::clone as usize, [flags, 0, 0, 0, 0, 0]);
        // The one in the middle has the thread's filters, and its memory: what ends it may end both.
        let end = (Sysno::exit_group as usize, [0; 6]);
        self.tolerates(&[clone(flags), clone(sys::abi::CLONE_FILES), (Sysno::waitid as usize, wait), end])
    }

    /// Makes the thread, which was stopped in its clone(2), go over to code that needs no memory, and give that back.
    fn leave(&mut self, place: &Place, mem: Fd) -> Result<()> {
        self.back_to_boot(place, mem)?;
        let r9 = place.memory + self.end_signal as u64;
        let (rip, rdi, r10) = (self.code + Boot::last(), P_PID as u64, (WEXITED | WALL) as u64);
        self.set(&UserRegs { rip, rdi, rdx: 0, r10, r8: 0, r9, orig_rax: u64::MAX, ..self.regs })?;
        self.has_memory = false;
        Ok(())
    }

    /// Whether its memory for calls is still there.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.has_memory
    }

    /// The process in the middle, which was just made and stands still.
    fn middle(&self) -> Result<i32> {
        let middle = ptrace::event_message(self.tid).map_err(|_| ended(self.tid))? as i32;
        // What it makes is seized, too: it has our options from the thread.
        let _ = spin::wait(middle);
        Ok(middle)
    }

    /// Returns the copy's pid (as we see it), traced and about to stop; let go, it ends at once. With `last` nothing else will be
    /// asked of the thread, and the memory there is given back where that can be done in passing ([`Injected::has_memory`]).
    /// `Err` within: the kernel refuses another process.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn end_fork(&mut self, middle: i32, last: Option<(&Place, Fd)>) -> Result<sys::Result<i32>> {
        let mut copy = Err(Errno::EAGAIN);
        let mut last = last.filter(|_| self.signals_end() && self.chain.is_none());
        while let Ok(Some(Event::Stopped(_, event))) = spin::wait(middle) {
            if event == PTRACE_EVENT_CLONE {
                copy = ptrace::event_message(middle).map(|pid| pid as i32);
                if let Some((place, mem)) = last.take() {
                    self.leave(place, mem)?;
                }
                // It ends at once, and its maker sees to it.
                let _ = ptrace::detach(middle, 0);
                break;
            }
            let _ = ptrace::resume(middle, 0);
        }
        self.await_end()?;
        Ok(copy)
    }
}
