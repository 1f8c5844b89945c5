//! Another process as a target: facts from `/proc` and ptrace(2), calls made by one of its threads, memory of a copy.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use std::vec::Vec;

use state::{Error, Result, Target};
use sys::abi::mm::{MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE};
use sys::abi::signal::Siginfo;
use sys::fs::{Fd, Owned};
use sys::{Errno, Sysno};

mod apart;
mod inside;
mod live;
mod sent;

use super::ahead::Answer;
use super::connections::Connections;
use super::copy::Copy;
use super::filters::FilterChain;
use super::injected::Injected;
use super::outside;
use super::place::{DATA, LEN, Place};
use super::stop::Stopped;
use super::thread::Registers;

use apart::Apart;
use live::Making;
pub use live::{ADOPTS, Pause};

/// Calls whose first argument is a descriptor's number, of those that the objects make.
pub const OF_DESCRIPTORS: [Sysno; 7] = [
    Sysno::ioctl,
    Sysno::fcntl,
    Sysno::timerfd_gettime,
    Sysno::read,
    Sysno::write,
    Sysno::io_uring_enter,
    Sysno::io_uring_register,
];

/// What is known of a stopped process before anything is put into it.
#[derive(Debug)]
pub struct Subject {
    /// Its id as we see it.
    pub outer: i32,
    /// Its id as it sees it.
    pub inner: i32,
    /// Its directory in `/proc`.
    pub proc: Owned,
    /// Its memory.
    pub mem: Owned,
    /// A hold on it.
    pub pidfd: Owned,
    /// Its threads.
    pub stopped: Stopped,
    /// Where code and data may go.
    pub place: Place,
    /// Where its threads stand.
    pub at: Vec<u64>,
}

/// A process whose threads all stand still.
#[derive(Debug)]
pub struct Remote {
    /// Its id as we see it.
    outer: i32,
    /// Its id as it sees it.
    inner: i32,
    proc: Owned,
    mem: Owned,
    pidfd: Owned,
    place: Place,
    /// The first thread, which makes calls from beginning to end: should we die, it takes the data's page away.
    first: Option<Injected>,
    /// Another thread that makes calls just now.
    other: Option<Injected>,
    stopped: Option<Stopped>,
    copy: Option<Copy>,
    /// What a fork leaves out.
    apart: Option<Apart>,
    making: Making,
    /// The copy is begun with the last answer.
    readies: bool,
    /// Where its threads stand.
    at: Vec<u64>,
    /// Ids of its threads: as they know themselves, and as we see them.
    ids: [HashMap<i32, i32>; 2],
    pause: Pause,
    since: Instant,
    thawed: Option<Duration>,
    /// Connections to other processes are to be reset at the restart.
    pub reset_tcp: bool,
    /// Those that are carried.
    pub connections: Option<Connections>,
    /// Which open files' contents are carried.
    pub with_files: state::WithFiles,
    /// Why it is not live although it should be.
    pub held: Option<&'static str>,
    /// The process has died under our hands.
    lost: AtomicBool,
    /// Answers to calls that were made ahead.
    answers: Vec<Answer>,
    /// Its descriptors, where they cannot be taken from it.
    sent: Option<HashMap<Fd, Owned>>,
    /// The process has locked memory.
    locks_memory: bool,
    /// It has shared mappings; `None`: not asked since it stands still.
    shares: Option<bool>,
    /// What it has in memory, KiB.
    resident: u64,
    /// Its address space with what is put into it, KiB.
    size: u64,
    /// What the copy lacks, so that only the process itself can be saved; and what restricts its threads.
    pub lacking: Option<&'static str>,
    pub chains: Vec<std::sync::Arc<FilterChain>>,
}

impl Remote {
    /// Takes the signal that is withheld out of those that wait.
    pub fn withhold(&mut self, waiting: &mut Vec<Siginfo>) {
        if let Some(stopped) = &mut self.stopped {
            stopped.withhold(waiting);
        }
    }

    /// Whether the signal that is withheld has come.
    pub fn has_withheld(&self) -> bool {
        self.stopped.as_ref().is_some_and(Stopped::has_withheld)
    }

    /// Prepares calls inside the process; `first` is the thread that makes them.
    ///
    /// # Errors
    /// No place for code, no page for data.
    pub fn new(subject: Subject, first: &Registers, pause: Pause, since: Instant) -> Result<Self> {
        let Subject { outer, inner, proc, mem, pidfd, stopped, place, at } = subject;
        let mut remote = Self {
            outer,
            inner,
            proc,
            mem,
            pidfd,
            place,
            first: None,
            other: None,
            stopped: Some(stopped),
            copy: None,
            apart: None,
            making: Making::Not,
            readies: false,
            at,
            ids: Default::default(),
            pause,
            since,
            thawed: None,
            reset_tcp: false,
            connections: None,
            with_files: state::WithFiles::None,
            held: None,
            lost: AtomicBool::new(false),
            answers: Vec::new(),
            sent: None,
            locks_memory: first.status.locks_memory,
            shares: None,
            resident: first.status.resident,
            size: first.status.size + if place.is_mapped { 0 } else { LEN as u64 / 1024 },
            lacking: None,
            chains: Vec::new(),
        };
        let mem = remote.mem.fd();
        remote.first = Some(Injected::boot(first, &place, mem)?);
        if !place.is_mapped {
            let how = (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE) as usize;
            let memory = [place.memory as usize, LEN, Place::PROTECTION as usize, how];
            let mapped = remote.first.as_mut().map(|first| first.call_in_boot(Sysno::mmap as usize, memory));
            mapped.transpose()?.unwrap_or(Err(Errno::ESRCH)).map_err(|e| {
                Error::failed(format_args!("process {outer}"), "memory for the saver cannot be mapped in it", e)
                    .remedy("raise its address space limit (ulimit -v)")
            })?;
            place.sign(mem);
        }
        if let Some(injected) = remote.first.as_mut() {
            injected.settle(first, &place, mem)?;
        }
        remote.have_descriptors_sent()?;
        Ok(remote)
    }

    /// From now on this thread makes the calls; the one before gets back what it had.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn use_thread(&mut self, thread: &Registers) -> Result<()> {
        self.complete_copy();
        self.answers.clear();
        if let Some(before) = self.other.take() {
            before.put_back()?;
        }
        if thread.tid == self.outer {
            return Ok(());
        }
        self.other = Some(Injected::run(thread, &self.place, self.mem.fd())?);
        Ok(())
    }

    /// A thread calls itself by another id than we do.
    pub fn is_known(&mut self, own: i32, outer: i32) {
        let [outers, owns] = &mut self.ids;
        outers.insert(own, outer);
        owns.insert(outer, own);
    }

    /// The process's memory, open.
    #[must_use]
    pub fn mem(&self) -> Fd {
        self.mem.fd()
    }

    fn inject(&mut self, number: Sysno, args: [usize; 6]) -> sys::Result<usize> {
        self.complete_copy();
        let Some(injected) = self.other.as_mut().or(self.first.as_mut()) else { return Err(Errno::ESRCH) };
        injected.call(number as usize, args).unwrap_or_else(|_| {
            self.lost.store(true, Ordering::Relaxed);
            Err(Errno::ESRCH)
        })
    }

    /// The memory that is saved: the copy's, once there is one.
    fn memory(&self) -> Fd {
        self.copy.as_ref().map_or(self.mem.fd(), Copy::mem)
    }

    /// Its id as we see it.
    #[must_use]
    pub fn outer(&self) -> i32 {
        self.outer
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.let_go(false);
    }
}

impl Target for Remote {
    const IN_PROCESS: bool = false;

    fn pid(&self) -> i32 {
        self.inner
    }

    fn proc(&self) -> Fd {
        self.proc.fd()
    }

    fn memory_proc(&self) -> Fd {
        self.copy.as_ref().map_or(self.proc.fd(), Copy::proc)
    }

    fn is_live(&self) -> bool {
        self.pause != Pause::Frozen
    }

    fn hold(&mut self, why: &'static str) {
        (self.pause, self.held) = (Pause::Frozen, Some(why));
        self.drop_copy();
    }

    fn copy_ahead(&mut self) {
        self.begin_copy_ahead();
    }

    fn shares_any(&self) -> bool {
        self.shares.unwrap_or_else(|| live::asks_shares(self.proc.fd()))
    }

    fn locks_memory(&self) -> Option<bool> {
        Some(self.locks_memory)
    }

    fn takes_children(&self) -> bool {
        true
    }

    fn tid_here(&self, tid: i32) -> i32 {
        let [outers, _] = &self.ids;
        outers.get(&tid).copied().unwrap_or(tid)
    }

    fn tid_there(&self, tid: i32) -> i32 {
        let [_, owns] = &self.ids;
        owns.get(&tid).copied().unwrap_or(tid)
    }

    fn stands_in(&self, range: &Range<u64>) -> bool {
        self.at.iter().any(|rip| range.contains(rip))
    }

    fn smaps(&self) -> sys::Result<Owned> {
        let of_memory = || sys::fs::open_at(self.memory_proc(), c"smaps", sys::abi::O_RDONLY, 0);
        self.apart.as_ref().map_or_else(of_memory, Apart::smaps)
    }

    fn is_copy(&self) -> bool {
        self.copy.is_some() && self.apart.is_none()
    }

    fn is_ours(&self, _: Fd) -> bool {
        false
    }

    fn our_memory(&self) -> Range<u64> {
        self.place.memory..self.place.memory + LEN as u64
    }

    fn same_description(&self, a: Fd, b: Fd) -> Option<bool> {
        let borrowed = || sys::fs::same_own(self.borrow(a).ok()?.fd(), self.borrow(b).ok()?.fd());
        sys::fs::same_description_in(self.outer, a, b).or_else(borrowed)
    }

    fn order_of_descriptions(&self, a: Fd, b: Fd) -> Option<core::cmp::Ordering> {
        sys::fs::order_of_descriptions((self.outer, a), (self.outer, b))
    }

    fn is_same(&self, own: Fd, fd: Fd) -> Option<bool> {
        let borrowed = || sys::fs::same_own(own, self.borrow(fd).ok()?.fd());
        sys::fs::same_description_between((sys::process::pid(), own), (self.outer, fd)).or_else(borrowed)
    }

    fn carries_files(&self) -> state::WithFiles {
        self.with_files
    }

    fn resets_connections(&self) -> bool {
        self.reset_tcp
    }

    fn keeps_connections(&self) -> bool {
        self.connections.is_some()
    }

    fn keep_connection(&mut self, own: Owned) -> sys::Result<()> {
        self.connections.as_mut().ok_or(Errno::EPERM)?.hold(own)
    }

    fn order_of_watched(&self, epoll: Fd, number: u32, nth: u32, fd: Fd) -> Option<core::cmp::Ordering> {
        sys::fs::order_of_watched((self.outer, epoll), number, nth, (self.outer, fd))
    }

    fn borrow(&self, fd: Fd) -> sys::Result<Owned> {
        match &self.sent {
            Some(sent) => sys::fs::duplicate(sent.get(&fd).ok_or(Errno::EPERM)?.fd()),
            None => sys::process::borrow_descriptor(self.pidfd.fd(), fd),
        }
    }

    fn read_memory(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        // Not process_vm_readv(2): it gives a page of its own to whoever shares one with a copy (mm/gup.c, unsharing).
        sys::fs::pread_exact(self.memory(), to, addr)?;
        self.place.hide(addr, to);
        Ok(())
    }

    fn read_file_pages(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        // Without the page in between through which the kernel reads for others; it has no way around their protection.
        let pid = self.copy.as_ref().map_or(self.outer, Copy::pid);
        if sys::process::read_memory_of(pid, addr, to) != Ok(to.len()) {
            return self.read_memory(addr, to);
        }
        self.place.hide(addr, to);
        Ok(())
    }
}
