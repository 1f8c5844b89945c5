//! This process as a target.

use core::cmp::Ordering;
use core::ops::Range;

use state::socket::Address;
use state::socket::leave::{self, Leaving};
use state::{Arg, Here, Inside, Target};
use sys::Sysno;
use sys::fs::{Fd, Owned};

/// This process, while one of its threads saves it.
#[derive(Debug)]
pub struct Local {
    proc: Owned,
    mem: Owned,
    ours: [Fd; 2],
    memory: Range<u64>,
    /// How sockets are left at the process's end: descriptor and number, the first so many.
    left: &'static mut [[u32; 2]],
    leaves: usize,
}

impl Local {
    /// Opens what is needed of `/proc`. `ours`: descriptors of the saver; `memory`: its window.
    ///
    /// # Errors
    /// `/proc` is not there, or no descriptor is free.
    pub fn open(ours: [Fd; 2], memory: Range<u64>) -> sys::Result<Self> {
        let proc = sys::fs::open(c"/proc/self", sys::abi::O_DIRECTORY, 0)?;
        let mem = sys::fs::open_at(proc.fd(), c"mem", sys::abi::O_RDONLY, 0)?;
        Ok(Self { proc, mem, ours, memory, left: &mut [], leaves: 0 })
    }

    /// Notes how sockets are left here, which is all zero.
    pub fn notes_in(&mut self, left: &'static mut [[u32; 2]]) {
        self.left = left;
    }
}

impl Inside for Local {
    unsafe fn call(&mut self, number: Sysno, args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize> {
        // SAFETY: the caller vouches for the call.
        unsafe { Here.call(number, args, data) }
    }
}

impl Target for Local {
    const IN_PROCESS: bool = true;

    fn pid(&self) -> i32 {
        sys::process::pid()
    }

    fn proc(&self) -> Fd {
        self.proc.fd()
    }

    fn is_ours(&self, fd: Fd) -> bool {
        fd == self.proc.fd() || fd == self.mem.fd() || self.ours.contains(&fd)
    }

    fn our_memory(&self) -> Range<u64> {
        self.memory.clone()
    }

    fn same_description(&self, a: Fd, b: Fd) -> Option<bool> {
        sys::fs::same_description(self.pid(), a, b)
    }

    fn order_of_descriptions(&self, a: Fd, b: Fd) -> Option<Ordering> {
        sys::fs::order_of_descriptions((self.pid(), a), (self.pid(), b))
    }

    fn is_same(&self, own: Fd, fd: Fd) -> Option<bool> {
        sys::fs::same_description(self.pid(), own, fd)
    }

    fn leave(&mut self, fd: u32, how: Leaving) {
        // What has no room there keeps its address for a minute, as after any other end.
        if let Some(free) = self.left.get_mut(self.leaves) {
            *free = [fd, how as u32];
            self.leaves += 1;
        }
    }

    fn order_of_watched(&self, epoll: Fd, number: u32, nth: u32, fd: Fd) -> Option<Ordering> {
        sys::fs::order_of_watched((self.pid(), epoll), number, nth, (self.pid(), fd))
    }

    fn borrow(&self, fd: Fd) -> sys::Result<Owned> {
        sys::fs::duplicate(fd)
    }

    fn read_memory(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        sys::fs::pread_exact(self.mem.fd(), to, addr)
    }
}

/// The process ends: its sockets are left as was noted.
pub fn leave_sockets(left: &[[u32; 2]]) {
    let noted = || left.iter().map_while(|[fd, how]| Some((*fd as Fd, Leaving::from_number(*how)?)));
    for (fd, how) in noted() {
        let _ = leave::one(fd, how);
    }
    let listeners = || noted().filter(|(_, how)| *how == Leaving::Clearing).map(|(fd, _)| Address::read(fd, false));
    if listeners().next().is_some() {
        let _ = leave::clear(|at| listeners().any(|listener| leave::listens_for(&listener, at)));
    }
}
