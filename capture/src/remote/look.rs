//! What would block a save of a process, all of it at once, without stopping it: from `/proc` and borrowed descriptors.
//!
//! Asks the objects the same questions as a save does, so that both refuse in the same words.

use core::ops::Range;

use std::string::{String, ToString};
use std::vec::Vec;

use image_format::Notes;
use image_format::record::memory::{Backing, Vma};
use image_format::record::process::{FD_BITS, FD_MASK};
use state::content::Contents;
use state::guard::Guards;
use state::posix_timer::Owners;
use state::{Arg, Error, Inside, Result, Save, Scratch, Target};
use sys::fs::{Fd, Owned};
use sys::text::Text;
use sys::{Errno, Sysno};

use super::arena::Arena;
use super::{kind, outside};
use crate::pages::{self, Run, Runs};
use crate::session::{BACKINGS_MAX, GUARDS_MAX, Memory};

/// A process that is looked at as it runs.
struct One {
    outer: i32,
    inner: i32,
    proc: Owned,
    mem: Option<Owned>,
    pidfd: Owned,
}

impl One {
    fn new(pid: i32, proc: Owned) -> Result<Self> {
        let gone = |e| Error::failed(format_args!("process {pid}"), "is not there, or may not be looked at", e);
        Ok(Self {
            outer: pid,
            inner: state::target::inner_id(proc.fd(), c"status").unwrap_or(pid),
            mem: sys::fs::open_at(proc.fd(), c"mem", sys::abi::O_RDONLY, 0).ok(),
            pidfd: sys::process::pidfd(pid).map(Owned::new).map_err(gone)?,
            proc,
        })
    }

    fn threads(&self) -> Vec<i32> {
        let mut threads = Vec::new();
        if let Ok(dir) = sys::fs::open_at(self.proc.fd(), c"task", sys::abi::O_DIRECTORY, 0) {
            let _ = sys::fs::for_each_name(dir.fd(), |name| {
                threads.extend(sys::text::decimal(name).and_then(|n| i32::try_from(n).ok()));
                Ok::<_, Errno>(())
            });
        }
        threads
    }
}

/// A tree of such, its root first.
struct Looker {
    all: Vec<One>,
    entered: usize,
    found: Vec<String>,
}

/// Everything that a save of process `pid`, and of those that descend from it, would refuse, a line each: object, reason,
/// remedy.
///
/// # Errors
/// The process is not there, or may not be looked at.
pub fn blockers(pid: i32) -> Result<Vec<String>> {
    let gone = |e| Error::failed(format_args!("process {pid}"), "is not there, or may not be looked at", e);
    let proc = sys::fs::open(Text::<32>::of(format_args!("/proc/{pid}")).as_c_str(), sys::abi::O_DIRECTORY, 0);
    let proc = proc.map_err(gone)?;
    if let Err(error) = kind::check(pid, &proc) {
        return Ok(std::vec![error.to_string()]);
    }
    let mut looker = Looker { all: std::vec![One::new(pid, proc)?], entered: 0, found: Vec::new() };
    while let Some(one) = looker.all.get(looker.entered) {
        let tracer = super::stop::tracer(one.proc.fd(), one.outer);
        if tracer != 0 {
            looker.found.push(super::stop::traced(one.outer, tracer).to_string());
        }
        let threads = one.threads();
        // One that ends meanwhile, or has ended, blocks nothing.
        let children = super::member::children(one.proc.fd(), &threads).unwrap_or_default();
        for child in children {
            let proc = super::member::directory(child).and_then(|proc| kind::check(child, &proc).map(|()| proc));
            looker.all.extend(proc.and_then(|proc| One::new(child, proc)));
        }
        looker.note(state::process::check);
        for tid in threads {
            looker.note(|l| super::kind::check_thread(l.proc(), tid));
            looker.note(|l| state::process::check_thread(l, tid));
        }
        let owners = Owners::unknown();
        looker.note(|l| state::posix_timer::read(l, &owners).map(drop));
        looker.entered += 1;
    }
    looker.entered = 0;
    let mut arena = Arena::map()?;
    let Memory { prefix, strings, vmas, runs, scratch } = arena.memory();
    let mut save = Save { target: &mut looker, notes: Notes::new(prefix, strings), scratch: Scratch::new(scratch) };
    let result = objects(&mut save, vmas, runs);
    if let Err(error) = result {
        looker.blocked(error)?;
    }
    Ok(looker.found)
}

fn objects(save: &mut Save<'_, '_, Looker>, vmas: &mut [u8], runs: &mut [u8]) -> Result<()> {
    let files = state::descriptor::collect(save)?;
    if let Err(error) = state::cwd::save(save) {
        save.target.blocked(error)?;
    }
    if let Err(error) = state::sigio::save(save, files) {
        save.target.blocked(error)?;
    }
    if let Err(error) = state::lock::save(save, files) {
        save.target.blocked(error)?;
    }
    if let Err(error) = state::epoll::save(save, files) {
        save.target.blocked(error)?;
    }
    if let Err(error) = state::semaphore::save(save) {
        save.target.blocked(error)?;
    }
    let contents = Contents::collect(save, files)?;
    let vmas = Scratch::new(vmas).rest::<Vma>()?;
    let backings = save.scratch.take::<Backing>(BACKINGS_MAX)?;
    let (vma_count, file_count) =
        state::memory::collect(save, vmas, backings, &contents, &mut state::pkey::ANY.clone())?;
    let (vmas, backings) = (vmas.get(..vma_count), backings.get(..file_count));
    let mut runs = Runs::new(Scratch::new(runs).rest::<Run>()?);
    let mut guards = Guards::new(save.scratch.take(GUARDS_MAX)?);
    pages::plan(save.target, vmas.unwrap_or_default(), backings.unwrap_or_default(), &mut runs, &mut guards)
}

impl Looker {
    /// Asks one question; a process that changes meanwhile gives no answer, which is none.
    fn note(&mut self, question: impl FnOnce(&mut Self) -> Result<()>) {
        match question(self) {
            Err(error) if error.errno().is_none() => self.found.push(error.to_string()),
            _ => {}
        }
    }
}

impl Looker {
    #[allow(clippy::indexing_slicing, reason = "there is a root, and a place beyond the last is nobody's")]
    fn one(&self, place: usize) -> &One {
        self.all.get(place).unwrap_or(&self.all[0])
    }

    /// Whose descriptor it is, with its number there.
    fn whose(&self, fd: Fd) -> (&One, Fd) {
        (self.one((fd as u32 >> FD_BITS) as usize), (fd as u32 & FD_MASK) as Fd)
    }
}

impl Inside for Looker {
    fn call(&mut self, number: Sysno, mut args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize> {
        let mut one = self.one(self.entered);
        if let ([Arg::Value(first), ..], true) = (&mut args, super::family::OF_DESCRIPTORS.contains(&number)) {
            (one, *first) = (self.one(*first >> FD_BITS), *first & FD_MASK as usize);
        }
        outside::call(one.outer, one.outer, one.pidfd.fd(), number, args, data).unwrap_or(Err(Errno::ENOSYS))
    }
}

impl Target for Looker {
    const IN_PROCESS: bool = false;

    fn pid(&self) -> i32 {
        self.one(self.entered).inner
    }

    fn proc(&self) -> Fd {
        self.one(self.entered).proc.fd()
    }

    fn processes(&self) -> usize {
        self.all.len()
    }

    fn takes_children(&self) -> bool {
        true
    }

    fn reads_filters(&self) -> bool {
        super::judge::can_read()
    }

    fn enter(&mut self, place: usize) {
        self.entered = place;
    }

    fn proc_of(&self, place: usize) -> Fd {
        self.one(place).proc.fd()
    }

    fn blocked(&mut self, error: Error) -> Result<()> {
        let pid_of = |place: usize| self.all.get(place).map(|one| one.inner as u32);
        self.found.push(error.with_processes(pid_of).to_string());
        Ok(())
    }

    fn is_ours(&self, _: Fd) -> bool {
        false
    }

    fn our_memory(&self) -> Range<u64> {
        0..0
    }

    fn same_description(&self, a: Fd, b: Fd) -> Option<bool> {
        let ((a, a_fd), (b, b_fd)) = (self.whose(a), self.whose(b));
        sys::fs::same_description_between((a.outer, a_fd), (b.outer, b_fd))
    }

    fn is_same(&self, own: Fd, fd: Fd) -> Option<bool> {
        let (whose, fd) = self.whose(fd);
        sys::fs::same_description_between((sys::process::pid(), own), (whose.outer, fd))
    }

    fn inner_id(&self, pid: i32) -> Option<i32> {
        let find = |pid: i32| self.all.iter().find(|one| one.outer == pid).map(|one| one.inner);
        // One that has ended is none of those that are looked at, and saved all the same.
        let ended = || {
            let proc = super::member::directory(pid).ok()?;
            find(state::target::parent(proc.fd()).ok()? as i32)?;
            state::target::inner_id(proc.fd(), c"status")
        };
        find(pid).or_else(ended)
    }

    fn is_watched(&self, epoll: Fd, number: u32, nth: u32, fd: Fd) -> Option<bool> {
        let ((epoll, set), (whose, fd)) = (self.whose(epoll), self.whose(fd));
        sys::fs::is_watched((epoll.outer, set), number, nth, (whose.outer, fd))
    }

    fn borrow(&self, fd: Fd) -> sys::Result<Owned> {
        let (whose, fd) = self.whose(fd);
        sys::process::borrow_descriptor(whose.pidfd.fd(), fd).map(Owned::new)
    }

    fn read_memory(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        sys::fs::pread_exact(self.one(self.entered).mem.as_ref().ok_or(Errno::EACCES)?.fd(), to, addr)
    }
}
