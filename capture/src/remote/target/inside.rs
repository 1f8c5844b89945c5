//! Calls inside a process that is saved: answered ahead, from outside, by one of its threads, or by its copy.
//!
//! Must never let a process that goes on already make one.

use state::{Arg, Inside, Question};
use sys::{Errno, Sysno, fs};

use super::{Copy, DATA, Injected, Remote, outside};

impl Inside for Remote {
    fn prefetch(&mut self, questions: &[Question]) {
        // What is not answered ahead is asked one by one, and says what is wrong.
        let _ = self.ask(questions);
    }

    unsafe fn call(&mut self, number: Sysno, args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize> {
        let tid = self.other.as_ref().map_or(self.outer, Injected::tid);
        // What a copy inherits is asked of it, when the process may have gone on with something else.
        let pid = self.copy.as_ref().filter(|_| self.stopped.is_none()).map_or(self.outer, Copy::pid);
        if let Some(result) = outside::call(pid, tid, self.pidfd.fd(), number, args, data) {
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
