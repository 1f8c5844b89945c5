//! What would block a save of a process, all of it at once, without stopping it: from `/proc` and borrowed descriptors.
//!
//! Asks the objects the same questions as a save does, so that both refuse in the same words.

use core::ops::Range;

use std::string::{String, ToString};
use std::vec::Vec;

use image_format::Notes;
use image_format::record::memory::{Backing, Vma};
use state::content::Contents;
use state::guard::Guards;
use state::{Arg, Error, Inside, Result, Save, Scratch, Target};
use sys::fs::{Fd, Owned};
use sys::text::Text;
use sys::{Errno, Sysno};

use super::arena::Arena;
use super::{check_kind, outside};
use crate::pages::{self, Run, Runs};
use crate::session::{BACKINGS_MAX, GUARDS_MAX, Memory};

/// A process that is looked at as it runs.
struct Looker {
    outer: i32,
    inner: i32,
    proc: Owned,
    mem: Option<Owned>,
    pidfd: Owned,
    found: Vec<String>,
}

/// Everything that a save of process `pid` would refuse, a line each: object, reason, remedy.
///
/// # Errors
/// The process is not there, or may not be looked at.
pub fn blockers(pid: i32) -> Result<Vec<String>> {
    let gone = |e| Error::failed(format_args!("process {pid}"), "is not there, or may not be looked at", e);
    let proc = sys::fs::open(Text::<32>::of(format_args!("/proc/{pid}")).as_c_str(), sys::abi::O_DIRECTORY, 0);
    let proc = proc.map_err(gone)?;
    if let Err(error) = check_kind(pid, &proc) {
        return Ok(std::vec![error.to_string()]);
    }
    let mut looker = Looker {
        outer: pid,
        inner: inner_id(proc.fd(), c"status").unwrap_or(pid),
        mem: sys::fs::open_at(proc.fd(), c"mem", sys::abi::O_RDONLY, 0).ok(),
        pidfd: sys::process::pidfd(pid).map(Owned::new).map_err(gone)?,
        proc,
        found: Vec::new(),
    };
    let tracer = super::stop::tracer(looker.proc.fd(), pid);
    if tracer != 0 {
        looker.found.push(super::stop::traced(pid, tracer).to_string());
    }
    looker.note(state::process::check);
    let mut threads = Vec::new();
    let dir = sys::fs::open_at(looker.proc.fd(), c"task", sys::abi::O_DIRECTORY, 0).map_err(gone)?;
    sys::fs::for_each_name(dir.fd(), |name| {
        threads.extend(sys::text::decimal(name).and_then(|n| i32::try_from(n).ok()));
        Ok::<_, Errno>(())
    })
    .map_err(gone)?;
    for tid in threads {
        looker.note(|l| state::process::check_thread(l, tid));
    }
    looker.note(|l| state::posix_timer::read(l).map(drop));
    let mut arena = Arena::map()?;
    let Memory { prefix, strings, vmas, runs, scratch } = arena.memory();
    let mut save = Save { target: &mut looker, notes: Notes::new(prefix, strings), scratch: Scratch::new(scratch) };
    let result = objects(&mut save, vmas, runs);
    if let Err(error) = result {
        looker.found.push(error.to_string());
    }
    Ok(looker.found)
}

fn objects(save: &mut Save<'_, '_, Looker>, vmas: &mut [u8], runs: &mut [u8]) -> Result<()> {
    let files = state::descriptor::collect(save)?;
    if let Err(error) = state::cwd::save(save) {
        save.target.blocked(error)?;
    }
    if let Err(error) = state::lock::save(save, files) {
        save.target.blocked(error)?;
    }
    if let Err(error) = state::epoll::save(save, files) {
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

/// The id that a process or thread has in its own, innermost pid namespace.
fn inner_id(proc: Fd, status: &core::ffi::CStr) -> Option<i32> {
    let mut buffer = [0; 256];
    let ids = state::target::status_value(proc, status, b"NSpid", &mut buffer).ok().flatten()?;
    sys::text::words(ids).last().and_then(sys::text::decimal).and_then(|n| i32::try_from(n).ok())
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

impl Inside for Looker {
    fn call(&mut self, number: Sysno, args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize> {
        outside::call(self.outer, self.outer, self.pidfd.fd(), number, args, data).unwrap_or(Err(Errno::ENOSYS))
    }
}

impl Target for Looker {
    const IN_PROCESS: bool = false;

    fn pid(&self) -> i32 {
        self.inner
    }

    fn proc(&self) -> Fd {
        self.proc.fd()
    }

    fn blocked(&mut self, error: Error) -> Result<()> {
        self.found.push(error.to_string());
        Ok(())
    }

    fn is_ours(&self, _: Fd) -> bool {
        false
    }

    fn our_memory(&self) -> Range<u64> {
        0..0
    }

    fn same_description(&self, a: Fd, b: Fd) -> Option<bool> {
        sys::fs::same_description_in(self.outer, a, b)
    }

    fn is_same(&self, own: Fd, fd: Fd) -> Option<bool> {
        sys::fs::same_description_between((sys::process::pid(), own), (self.outer, fd))
    }

    fn is_watched(&self, epoll: Fd, number: u32, nth: u32, fd: Fd) -> Option<bool> {
        sys::fs::is_watched(self.outer, epoll, number, nth, fd)
    }

    fn borrow(&self, fd: Fd) -> sys::Result<Owned> {
        sys::process::borrow_descriptor(self.pidfd.fd(), fd).map(Owned::new)
    }

    fn read_memory(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        sys::fs::pread_exact(self.mem.as_ref().ok_or(Errno::EACCES)?.fd(), to, addr)
    }
}
