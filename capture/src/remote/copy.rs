//! A copy-on-write copy of a process, made by it in passing and not its child: it stands still and is read at leisure.
//!
//! It shares the process's table of descriptors, so that it holds none open on its own. Must never run an instruction
//! of the program: it stays traced, and ends with us.

use state::{Error, Result};
use sys::fs::{Fd, Owned};
use sys::ptrace::{self, Event};
use sys::text::Text;
use sys::{Errno, Sysno};

use super::injected::Injected;
use super::place::Place;
pub use super::spin::end;

/// The copy; killed with the value.
#[derive(Debug)]
pub struct Copy {
    pid: i32,
    proc: Owned,
    mem: Owned,
    /// See [`Injected::end_signal`].
    end_signal: i32,
    /// It is not needed any more, and has had so many bytes.
    ended: Option<u64>,
}

/// Bytes of a copy that is waited for: to give back as much takes as long as to start a thread.
const SMALL: u64 = 2 << 20;

impl Copy {
    /// Takes over a process that was just made by a thread with this end_signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn new(pid: i32, end_signal: i32) -> Result<Self> {
        use sys::abi::ptrace::{PTRACE_O_EXITKILL, PTRACE_O_SUSPEND_SECCOMP, PTRACE_O_TRACESYSGOOD};
        let open = || -> sys::Result<(Owned, Owned)> {
            let Some(Event::Stopped(..)) = ptrace::wait(pid, true)? else { return Err(Errno::ESRCH) };
            let options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD;
            // It inherits its process's filters; who may not suspend them has found none.
            ptrace::set_options(pid, options | PTRACE_O_SUSPEND_SECCOMP)
                .or_else(|_| ptrace::set_options(pid, options))?;
            let proc = sys::fs::open(Text::<32>::of(format_args!("/proc/{pid}")).as_c_str(), sys::abi::O_DIRECTORY, 0)?;
            let mem = sys::fs::open_at(proc.fd(), c"mem", sys::abi::O_RDWR, 0)?;
            Ok((proc, mem))
        };
        match open() {
            Ok((proc, mem)) => Ok(Self { pid, proc, mem, end_signal, ended: None }),
            Err(e) => {
                end(pid);
                Err(Error::failed(format_args!("copy {pid} of the process"), "cannot be read", e))
            }
        }
    }

    /// Whether nobody else has killed it.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.ended.is_some() || ptrace::registers(self.pid).is_ok()
    }

    /// All of its so many bytes have been read: it ends by itself.
    pub fn end(&mut self, bytes: u64) {
        let killed = sys::process::kill(self.pid, sys::abi::signal::SIGKILL);
        self.ended = killed.is_ok().then_some(bytes);
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its directory in `/proc`.
    #[must_use]
    pub fn proc(&self) -> Fd {
        self.proc.fd()
    }

    /// Its memory.
    #[must_use]
    pub fn mem(&self) -> Fd {
        self.mem.fd()
    }

    /// Makes a call in it.
    ///
    /// # Errors
    /// The call's; ESRCH: somebody has killed it.
    pub fn call(&self, place: &Place, number: Sysno, args: [usize; 6]) -> sys::Result<usize> {
        self.injected(place)?.call(number as usize, args).unwrap_or(Err(Errno::ESRCH))
    }

    /// Makes all calls of a table in it; false: it cannot.
    ///
    /// # Errors
    /// As for [`Copy::call`].
    pub fn call_all(&self, place: &Place, table: u64, calls: &[(usize, [usize; 6])]) -> sys::Result<bool> {
        self.injected(place)?.call_all(table, calls).map_err(|_| Errno::ESRCH)
    }

    fn injected(&self, place: &Place) -> sys::Result<Injected> {
        let regs = ptrace::registers(self.pid)?.ok_or(Errno::ESRCH)?;
        Ok(Injected::of_copy(self.pid, regs, place, self.end_signal))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let pid = self.pid;
        // The kernel takes back all of its memory before its end can be seen: nobody has to wait for that.
        if self.ended.is_none_or(|bytes| bytes <= SMALL) || std::thread::Builder::new().spawn(move || end(pid)).is_err()
        {
            end(pid);
        }
    }
}
