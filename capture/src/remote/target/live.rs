//! How a process that was stopped goes on: with a copy kept of it, or without.
//!
//! Must never leave it with anything that was put into it.

use core::sync::atomic::Ordering;
use std::time::Duration;

use state::{Arg, Error, ErrorKind, Inside, Question, Result, Target};
use sys::fs::Fd;
use sys::text::Text;
use sys::{Errno, Sysno};

use super::Remote;
use super::apart::Apart;
use crate::remote::copy::{self, Copy};
use crate::remote::injected::{self, Injected};
use crate::remote::place::LEN;

/// Most memory, KiB, of a process that is copied before all is known that may forbid to save it: with more, what the walk takes
/// counts for little beside the copying, which would be in vain.
const AHEAD_MAX: u64 = 256 << 10;

/// How the process goes on when everything but its memory has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Its memory is copied on write, and it goes on at once.
    Live,
    /// The same, and what a fork leaves out is read before it goes on.
    Whole,
    /// It stands still until the image is written.
    Frozen,
}

/// How far the copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    /// None was begun, or it was handed over.
    Not,
    /// The process with this id is about to make it.
    Ready(i32),
    /// The process with this id is making it.
    Begun(i32),
    /// It has this id.
    Made(i32),
    /// There will be none.
    Failed(&'static str),
}

/// Asks whether the process adopts orphaned ones.
// SAFETY: fills a number.
pub const ADOPTS: Question =
    unsafe { Question::new(Sysno::prctl, Arg::Value(sys::abi::PR_GET_CHILD_SUBREAPER), Arg::Data(0), 8) };

/// Whether a process has shared mappings, or it cannot be told.
pub(super) fn asks_shares(proc: Fd) -> bool {
    !matches!(sys::memory::shares_any(proc), Ok(false))
}

/// Bytes that a process has mapped, KiB.
fn address_space(proc: Fd) -> sys::Result<u64> {
    let mut text = [0; 64];
    let text = sys::fs::read_file_at(proc, c"statm", &mut text)?;
    let pages = sys::text::words(text).next().and_then(sys::text::decimal).ok_or(Errno::EIO)?;
    Ok(pages * image_format::PAGE / 1024)
}

impl Remote {
    /// Whether the process can be let go with a copy kept; else says why not.
    fn copyable(&mut self) -> Result<(), &'static str> {
        if self.inner == 1 {
            return Err("it is the first process of its namespace");
        }
        if ADOPTS.ask(self).is_ok_and(|(_, data)| data != [0; 8]) {
            return Err("it adopts orphaned processes");
        }
        Ok(())
    }

    /// Begins to make a copy, if it can be had in passing: the kernel is busy with it while the walk goes on.
    pub(in crate::remote) fn begin_copy_ahead(&mut self) {
        if self.copies_ahead() {
            self.begin_copy();
        }
    }

    /// Whether a copy is made before all is known that may forbid to save the process.
    fn copies_ahead(&mut self) -> bool {
        // Asked once: the kernel answers when it has copied the memory, and in between it does not change.
        let shares = *self.shares.get_or_insert_with(|| asks_shares(self.proc.fd()));
        // Who counts the users of shared memory would count the copy.
        self.is_live() && !shares && self.resident <= AHEAD_MAX
    }

    /// Begins to make a copy.
    fn begin_copy(&mut self) {
        let copyable = self.copyable();
        let begun = match (copyable, self.making) {
            (Ok(()), Making::Ready(middle)) => {
                injected::release(middle);
                Ok(middle)
            }
            (Ok(()), _) => {
                let begun = self.first.as_mut().map(Injected::begin_fork);
                self.told(begun)
            }
            (Err(why), _) => {
                self.complete_copy();
                Err(why)
            }
        };
        self.making = match begun {
            Ok(middle) => Making::Begun(middle),
            Err(why) => Making::Failed(why),
        };
    }

    /// As [`Remote::ask`], of the first thread, with these questions the last before the walk over the process `alone`, which may have a
    /// copy made in passing: that is begun with the last answer.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn ask_and_copy(&mut self, questions: &[Question]) -> Result<()> {
        self.readies = self.copies_ahead() && self.inner != 1 && !self.locks_memory;
        let asked = self.ask(questions);
        self.readies = false;
        asked
    }

    /// What a copy's maker says.
    fn told(&self, made: Option<Result<sys::Result<i32>>>) -> Result<i32, &'static str> {
        match made {
            Some(Ok(Ok(pid))) => Ok(pid),
            Some(Ok(Err(_))) => Err("no further process is allowed"),
            Some(Err(_)) => {
                self.lost.store(true, Ordering::Relaxed);
                Err("it has ended")
            }
            None => Err("its first thread has ended"),
        }
    }

    /// The copy is there, if one was begun, and none is about to be: before that the thread can do nothing else.
    pub(in crate::remote) fn complete_copy(&mut self) {
        self.end_making(false);
    }

    /// As [`Remote::complete_copy`]; `last`: nothing else will be asked of the process.
    fn end_making(&mut self, last: bool) {
        self.making = match self.making {
            Making::Ready(middle) => {
                if self.first.as_mut().is_none_or(|injected| injected.abandon_fork(middle).is_err()) {
                    self.lost.store(true, Ordering::Relaxed);
                }
                Making::Not
            }
            Making::Begun(middle) => {
                let last = last.then_some((&self.place, self.mem.fd()));
                let made = self.first.as_mut().map(|injected| injected.end_fork(middle, last));
                match self.told(made) {
                    Ok(pid) => Making::Made(pid),
                    Err(why) => Making::Failed(why),
                }
            }
            other => other,
        };
    }

    /// Hands a copy over, made now if none was begun: its id, and its maker's end_signal. With `last` the process must be let go then.
    pub(in crate::remote) fn make_copy(&mut self, last: bool) -> Result<(i32, i32), &'static str> {
        if matches!(self.making, Making::Not | Making::Ready(_)) {
            self.begin_copy();
        }
        self.end_making(last && self.other.is_none());
        match core::mem::replace(&mut self.making, Making::Not) {
            Making::Made(pid) => Ok((pid, self.first.as_ref().map_or(0, Injected::end_signal))),
            Making::Failed(why) => Err(why),
            Making::Not | Making::Ready(_) | Making::Begun(_) => Err("its first thread has ended"),
        }
    }

    /// Reads what a fork has left out of the copy with this id, if it has; where that cannot be read, [`Remote::take_copy`] finds it lacking.
    pub(in crate::remote) fn read_lacking(&mut self, copy: i32) {
        let proc = sys::fs::open(Text::<32>::of(format_args!("/proc/{copy}")).as_c_str(), sys::abi::O_DIRECTORY, 0);
        if self.apart.is_none() && proc.and_then(|proc| address_space(proc.fd())) != Ok(self.size) {
            self.apart = Apart::read(self.proc.fd(), self.mem.fd()).ok();
        }
    }

    /// Reads what a fork leaves out, where that is known to be needed; or says why the process must stand still.
    pub(in crate::remote) fn read_apart(&mut self) -> Result<(), &'static str> {
        if self.pause == Pause::Whole || self.locks_memory {
            self.complete_copy();
            self.apart = Some(Apart::read(self.proc.fd(), self.mem.fd())?);
        }
        Ok(())
    }

    /// All of the copy has been read: it ends while the image is made durable.
    pub fn end_copy(&mut self, bytes: u64) {
        self.copy.iter_mut().for_each(|copy| copy.end(bytes));
    }

    /// Nobody wants the copy any more.
    pub(in crate::remote) fn drop_copy(&mut self) {
        self.complete_copy();
        if let Making::Made(pid) = core::mem::replace(&mut self.making, Making::Not) {
            copy::end(pid);
        }
    }

    /// Takes over the copy when the process goes on already, and makes sure that it is one and stands alone: left with the process's
    /// table of descriptors, it would keep files and locks of a program that ends, or calls exec, before the image is written.
    pub(in crate::remote) fn take_copy(&mut self, (pid, end_signal): (i32, i32)) -> Result<()> {
        self.lacking = Some("its copy could not be saved");
        self.copy = Some(Copy::new(pid, end_signal)?);
        self.answers.clear();
        let all = [0, u32::MAX as usize, sys::abi::CLOSE_RANGE_UNSHARE, 0, 0, 0];
        // SAFETY: touches no memory; the descriptors that are closed are the copy's, which uses none.
        let close = unsafe { Question::of(Sysno::close_range, all.map(Arg::Value), 0) };
        self.ask(&[&[close, state::mm::BREAK][..], &state::setting::questions()].concat())?;
        let outer = self.outer;
        let failed = |e| Error::failed(format_args!("copy of process {outer}"), "cannot be used", e);
        close.ask::<0>(self).map_err(failed)?;
        // Once it has ended, its parent, init, may take its time to reap it: until then nobody else could have the program's group and session ids.
        // SAFETY: touches no memory.
        unsafe { self.call(Sysno::setsid, [Arg::Value(0); 6], &mut []) }.map_err(failed)?;
        let Some(copy) = &self.copy else { return Ok(()) };
        if let Some(apart) = &self.apart {
            apart.give(copy, &self.place).map_err(failed)?;
        }
        if address_space(copy.proc()).map_err(failed)? != self.size {
            self.lacking = Some("it has memory that is left out of copies (MADV_DONTFORK)");
            return Err(failed(Errno::ENODATA).kind(ErrorKind::Wiped));
        }
        self.lacking = None;
        Ok(())
    }

    /// Lets the process go on, or ends it.
    pub fn finish(mut self, kill: bool) -> Result<()> {
        self.let_go(kill);
        self.is_there()
    }

    /// It goes on: a copy of it was made.
    pub fn goes_on(&mut self) {
        self.let_go(false);
        self.shares = None;
        self.thawed = Some(self.since.elapsed());
    }

    /// Whether it has not died under our hands.
    ///
    /// # Errors
    /// It has.
    pub fn is_there(&self) -> Result<()> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(Error::failed(format_args!("process {}", self.outer), "ended during the save", Errno::ESRCH));
        }
        Ok(())
    }

    /// Whether the copy is still there; true when there is none.
    #[must_use]
    pub fn copy_lives(&self) -> bool {
        self.copy.as_ref().is_none_or(Copy::lives)
    }

    /// How long it stood still, when it goes on already.
    #[must_use]
    pub fn thawed(&self) -> Option<Duration> {
        self.thawed
    }

    /// Takes away what was put into the process and lets it go on.
    pub(in crate::remote) fn let_go(&mut self, kill: bool) {
        self.complete_copy();
        self.sent = None;
        if self.stopped.is_some() && !self.lost.load(Ordering::Relaxed) {
            if let Some(other) = self.other.take() {
                let _ = other.put_back();
            }
            let mem = self.mem.fd();
            if let Some(mut first) = self.first.take() {
                let memory = [self.place.memory as usize, LEN, 0, 0];
                if first.has_memory()
                    && first.back_to_boot(&self.place, mem).is_ok()
                    && first.call_in_boot(Sysno::munmap as usize, memory).is_err()
                {
                    self.lost.store(true, Ordering::Relaxed);
                }
                let _ = first.put_back();
            }
            self.place.restore(self.mem.fd());
        }
        (self.first, self.other) = (None, None);
        if let Some(connections) = self.connections.as_mut().filter(|_| !kill) {
            connections.release();
        }
        match self.stopped.take() {
            Some(stopped) if kill => {
                if let Some(connections) = self.connections.as_mut() {
                    connections.silence();
                }
                stopped.kill();
                self.connections = None;
            }
            other => drop(other),
        }
        self.drop_copy();
    }
}
