//! Calls inside a process that is saved: answered ahead, from outside, by one of its threads, or by its copy.
//!
//! Must never let a process that goes on already make one.

use state::{Arg, Error, Inside, Question, Result, Target};
use sys::{Errno, Sysno, fs};

use super::live::Making;
use super::{Copy, DATA, Injected, Remote, outside};
use crate::remote::ahead::{self, Table};

impl Remote {
    /// Makes these calls on the thread in use, or in the copy, all at once where it can: each is answered when it is made next.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn ask(&mut self, questions: &[Question]) -> Result<()> {
        let failed = |e| Error::failed(format_args!("memory of the process"), "cannot be written by a tracer", e);
        let at = self.place.data();
        self.complete_copy();
        let mut parts = ahead::parts(questions, DATA).peekable();
        while let Some(some) = parts.next() {
            let mut table = Table::new(some, at);
            let mem = self.memory();
            sys::fs::pwrite_all(mem, &table.bytes, at).map_err(failed)?;
            let injected = self.other.as_mut().or(self.first.as_mut());
            let made = match (self.copy.as_ref().filter(|_| self.stopped.is_none()), injected) {
                (Some(copy), _) => copy.call_all(&self.place, at, &table.calls(some.len())).map_err(failed)?,
                (None, Some(injected)) if self.readies && parts.peek().is_none() => {
                    let (made, middle) = injected.call_all_and_fork(at, &table.calls(some.len()))?;
                    self.making = middle.map_or(self.making, Making::Ready);
                    made
                }
                (None, Some(injected)) => injected.call_all(at, &table.calls(some.len()))?,
                (None, None) => false,
            };
            if made {
                sys::fs::pread_exact(mem, &mut table.bytes, at).map_err(failed)?;
                self.answers.extend(table.answers(some));
            }
        }
        Ok(())
    }
}

impl Inside for Remote {
    fn prefetch(&mut self, questions: &[Question]) {
        // What is not answered ahead is asked one by one, and says what is wrong.
        let _ = self.ask(questions);
    }

    unsafe fn call(&mut self, number: Sysno, args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize> {
        let tid = self.other.as_ref().map_or(self.outer, Injected::tid);
        // What a copy inherits is asked of it, when the process may have gone on with something else.
        let pid = self.copy.as_ref().filter(|_| self.stopped.is_none()).map_or(self.outer, Copy::pid);
        if let Some(result) = outside::call(pid, tid, |fd| self.borrow(fd), number, args, data) {
            return result;
        }
        if let Some(answer) = self.answers.iter().position(|a| a.is_to(number, &args, data)) {
            return self.answers.swap_remove(answer).give(data);
        }
        if data.len() > DATA {
            return Err(Errno::EOVERFLOW);
        }
        let base = self.place.data() as usize;
        let args = args.map(|arg| match arg {
            Arg::Value(n) => n,
            Arg::Data(offset) => base + offset,
        });
        let mem = self.memory();
        if !data.is_empty() {
            fs::pwrite_all(mem, data, self.place.data())?;
        }
        let result = match self.copy.as_mut().filter(|_| self.stopped.is_none()) {
            Some(copy) => copy.call(&self.place, number, args),
            None => self.inject(number, args),
        }?;
        if !data.is_empty() {
            fs::pread_exact(mem, data, self.place.data())?;
        }
        Ok(result)
    }
}
