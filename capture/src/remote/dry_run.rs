//! What would block a save of a process, all of it at once, without stopping it: from `/proc` and borrowed descriptors.
//!
//! Asks the objects the same questions as a save does, so that both refuse in the same words.

use core::cmp::Ordering;
use core::convert::Infallible;
use core::ops::Range;

use std::string::{String, ToString};
use std::time::{Duration, Instant};
use std::vec::Vec;

use image_format::Notes;
use image_format::record::memory::{Backing, Vma};
use image_format::record::process::{FD_BITS, FD_MASK};
use state::content::Contents;
use state::guard::Guards;
use state::posix_timer::Owners;
use state::{Arg, Error, ErrorKind, Inside, Result, Save, Scratch, Target};
use sys::abi::F_GETFD;
use sys::fs::{Fd, Owned};
use sys::text::Text;
use sys::{Errno, Sysno};

use super::arena::Arena;
use super::filters::Surroundings;
use super::request::Tcp;
use super::{kind, outside};
use crate::pages::{self, Run, Runs};
use crate::session::{self, BACKINGS_MAX, GUARDS_MAX, Memory};

/// A process that is looked at as it runs.
struct One {
    outer: i32,
    inner: i32,
    proc: Owned,
    mem: Option<Owned>,
    pidfd: Owned,
    surroundings: Surroundings,
}

impl One {
    fn new(pid: i32, proc: Owned, surroundings: Surroundings) -> Result<Self> {
        let gone = |e| Error::failed(format_args!("process {pid}"), "is not there, or may not be looked at", e);
        Ok(Self {
            outer: pid,
            inner: state::target::inner_id(proc.fd(), c"status").unwrap_or(pid),
            mem: sys::fs::open_at(proc.fd(), c"mem", sys::abi::O_RDONLY, 0).ok(),
            pidfd: sys::process::pidfd(pid, 0).map_err(gone)?,
            surroundings,
            proc,
        })
    }

    fn borrow(&self, fd: Fd) -> sys::Result<Owned> {
        sys::process::borrow_descriptor(self.pidfd.fd(), fd)
    }

    fn threads(&self) -> Vec<i32> {
        let mut threads = Vec::new();
        if let Ok(dir) = sys::fs::open_at(self.proc.fd(), c"task", sys::abi::O_DIRECTORY, 0) {
            let _ = sys::fs::for_each_name(dir.fd(), |name| {
                threads.extend(sys::text::decimal(name).and_then(|n| i32::try_from(n).ok()));
                Ok::<_, Infallible>(())
            });
        }
        threads
    }
}

/// Something that a save would refuse.
struct Found {
    line: String,
    /// It may be gone at the next look, as the program runs: a save tries again, too.
    passes: bool,
}

impl Found {
    fn of(error: Error) -> Self {
        let passes = error.errno().is_some()
            || error.is_passing()
            || error.is(ErrorKind::EventsWait)
            || error.is(ErrorKind::InFlight);
        Self { line: error.to_string(), passes }
    }
}

/// A tree of such, its root first.
struct DryRun {
    all: Vec<One>,
    entered: usize,
    tcp: Tcp,
    found: Vec<Found>,
    shows_descriptors: bool,
}

/// How often a process is looked at that seems to have something which blocks a save: it runs meanwhile.
const LOOKS: u32 = 3;

/// Between two looks.
const MOMENT: Duration = Duration::from_millis(20);

/// How long is waited for what passes by itself as a rule.
const PASSES_IN: Duration = Duration::from_secs(1);

/// Everything that a save of process `pid`, and of those that descend from it, would refuse, a line each: object, reason,
/// remedy. What was there at one look, and not at the next one, was the program at work.
///
/// # Errors
/// The process is not there, or may not be looked at.
pub fn blockers(pid: i32, tcp: Tcp) -> Result<Vec<String>> {
    let started = Instant::now();
    let mut lasting = look(pid, tcp)?;
    for looks in 1.. {
        let passes = lasting.iter().any(|one| one.passes) && started.elapsed() < PASSES_IN;
        if lasting.is_empty() || looks >= LOOKS && !passes {
            break;
        }
        std::thread::sleep(MOMENT);
        let now = look(pid, tcp)?;
        lasting.retain(|one| now.iter().any(|other| other.line == one.line));
    }
    Ok(lasting.into_iter().map(|one| one.line).collect())
}

/// Whether what descriptors of running processes lead to can be looked into (pidfd_getfd(2)): filters of containers forbid that. A save has them sent, and
/// may refuse what [`blockers`] did not see.
#[must_use]
pub fn shows_descriptors() -> bool {
    let own = sys::process::pidfd(sys::process::pid(), 0);
    // No process has this one: the answer is whether it would be given.
    own.and_then(|own| sys::process::borrow_descriptor(own.fd(), -1).map(drop)).err() == Some(Errno::EBADF)
}

/// The same at this moment.
fn look(pid: i32, tcp: Tcp) -> Result<Vec<Found>> {
    let pid = super::program(pid)?;
    let gone = |e| Error::failed(format_args!("process {pid}"), "is not there, or may not be looked at", e);
    let proc = sys::fs::open(Text::<32>::of(format_args!("/proc/{pid}")).as_c_str(), sys::abi::O_DIRECTORY, 0);
    let proc = proc.map_err(gone)?;
    if let Err(error) = kind::check(pid, &proc).and_then(|()| kind::is_not_above(pid)) {
        return Ok(std::vec![Found::of(error)]);
    }
    let surroundings = Surroundings::of(pid, false)?;
    let mut dry_run = DryRun {
        all: std::vec![One::new(pid, proc, surroundings)?],
        entered: 0,
        tcp,
        found: Vec::new(),
        shows_descriptors: shows_descriptors(),
    };
    while let Some(one) = dry_run.all.get(dry_run.entered) {
        let (surroundings, parent) = (one.surroundings.clone(), (one.inner, one.proc.fd()));
        let (outer, tracer) = (one.outer, super::tracer::tracer(one.proc.fd(), one.outer));
        let threads = one.threads();
        // One that ends meanwhile, or has ended, blocks nothing.
        let children = super::member::children(one.proc.fd(), &threads).unwrap_or_default();
        if tracer != 0 {
            dry_run.found.push(Found::of(super::tracer::traced(outer, tracer)));
        }
        for child in children {
            let proc = super::member::directory(child).and_then(|proc| kind::check(child, &proc).map(|()| proc));
            let own = proc.and_then(|proc| Ok((surroundings.of_child((child, proc.fd()), parent)?, proc)));
            match own.and_then(|(own, proc)| One::new(child, proc, own)) {
                Ok(one) => dry_run.all.push(one),
                Err(error) if kind::is_over(&error) => {}
                Err(error) => dry_run.found.push(Found::of(error)),
            }
        }
        dry_run.note(state::process::check);
        if outer != pid {
            dry_run.note(|l| super::member::belongs((outer, l.proc()), (pid, l.proc_of(0))));
        }
        for &tid in &threads {
            dry_run.note(|l| super::kind::check_thread(l.proc(), tid).map(drop));
            dry_run.note(|l| state::process::check_thread(l, tid));
            dry_run.note(|_| super::filters::check(tid, &surroundings));
        }
        let owners = Owners::unknown();
        dry_run.note(|l| state::posix_timer::read(l, &owners).map(drop));
        dry_run.entered += 1;
    }
    dry_run.note(|l| super::tree::too_many(l.all.len()));
    dry_run.entered = 0;
    let mut arena = Arena::map()?;
    let Memory { prefix, strings, vmas, runs, scratch } = arena.memory();
    let mut save = Save { target: &mut dry_run, notes: Notes::new(prefix, strings), scratch: Scratch::new(scratch) };
    let result = objects(&mut save, vmas, runs);
    if let Err(error) = result {
        dry_run.blocked(error)?;
    }
    Ok(dry_run.found)
}

/// What the walk of a save asks of all of them, and of each: without a writer, and as far as it can be asked while they run.
fn objects<'b>(save: &mut Save<'_, 'b, DryRun>, vmas: &'b mut [u8], runs: &'b mut [u8]) -> Result<()> {
    let (files, queues) = state::descriptor::collect(save)?;
    session::shared_objects(save, files, &queues)?;
    let contents = Contents::collect(save, files)?;
    own_objects(save, &contents, vmas, runs)?;
    for place in 1..save.target.processes() {
        save.target.enter(place);
        let mut arena = Arena::map()?;
        let Memory { prefix, strings, vmas, runs, scratch } = arena.memory();
        let mut own =
            Save { target: &mut *save.target, notes: Notes::new(prefix, strings), scratch: Scratch::new(scratch) };
        own.notes.adopt(save.notes.parts().1)?;
        own_objects(&mut own, &contents, vmas, runs)?;
    }
    save.target.enter(0);
    Ok(())
}

/// Of the process that is entered.
fn own_objects<'b>(
    save: &mut Save<'_, 'b, DryRun>,
    contents: &Contents<'_>,
    vmas: &'b mut [u8],
    runs: &'b mut [u8],
) -> Result<()> {
    save.part(state::cwd::save)?;
    save.part(|save| {
        let vmas = Scratch::new(vmas).rest::<Vma>()?;
        let backings = save.scratch.take::<Backing>(BACKINGS_MAX)?;
        let found = state::memory::collect(save, vmas, backings, contents, &mut state::pkey::ANY.clone())?;
        let (vmas, backings) = (vmas.get(..found.vmas), backings.get(..found.backings));
        let mut runs = Runs::new(Scratch::new(runs).rest::<Run>()?);
        let mut guards = Guards::new(save.scratch.take(GUARDS_MAX)?);
        pages::plan(save.target, vmas.unwrap_or_default(), backings.unwrap_or_default(), &mut runs, &mut guards)
    })
}

impl DryRun {
    /// Asks one question; a process or thread that has ended meanwhile blocks nothing.
    fn note(&mut self, question: impl FnOnce(&mut Self) -> Result<()>) {
        match question(self) {
            Err(error) if !matches!(error.errno(), Some(Errno::ENOENT | Errno::ESRCH)) => {
                self.found.push(Found::of(error));
            }
            _ => {}
        }
    }
}

impl DryRun {
    #[allow(clippy::indexing_slicing, reason = "there is a root, and no process has a place beyond the last")]
    fn one(&self, place: usize) -> &One {
        self.all.get(place).unwrap_or(&self.all[0])
    }

    /// Whose descriptor it is, with its number there.
    fn whose(&self, fd: Fd) -> (&One, Fd) {
        (self.one((fd as u32 >> FD_BITS) as usize), (fd as u32 & FD_MASK) as Fd)
    }
}

impl Inside for DryRun {
    unsafe fn call(&mut self, number: Sysno, mut args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize> {
        // Only a thread of its own knows, and neither answer blocks a save.
        if number == Sysno::fcntl && matches!(args, [_, Arg::Value(command), ..] if command == F_GETFD.number()) {
            return Ok(0);
        }
        let mut one = self.one(self.entered);
        if let ([Arg::Value(first), ..], true) = (&mut args, super::target::OF_DESCRIPTORS.contains(&number)) {
            (one, *first) = (self.one(*first >> FD_BITS), *first & FD_MASK as usize);
        }
        let made = outside::call(one.outer, one.outer, |fd| one.borrow(fd), number, args, data);
        let made = made.or_else(|| outside::call_of_system(one.proc.fd(), number, args, data));
        made.unwrap_or(Err(Errno::ENOSYS))
    }
}

impl Target for DryRun {
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

    /// Its threads are asked, one by one.
    fn reads_filters(&self) -> bool {
        true
    }

    fn resets_connections(&self) -> bool {
        self.tcp == Tcp::Reset
    }

    fn keeps_connections(&self) -> bool {
        self.tcp == Tcp::Keep
    }

    fn enter(&mut self, place: usize) {
        self.entered = place;
    }

    fn proc_of(&self, place: usize) -> Fd {
        self.one(place).proc.fd()
    }

    fn blocked(&mut self, error: Error) -> Result<()> {
        // What cannot be looked into from here sends its descriptors when it stands still.
        if !self.shows_descriptors && matches!(error.errno(), Some(Errno::EPERM | Errno::ENOSYS)) {
            return Ok(());
        }
        let pid_of = |place: usize| self.all.get(place).map(|one| one.inner as u32);
        let error = error.with_processes(pid_of);
        self.found.push(Found::of(error));
        Ok(())
    }

    fn shows_descriptors(&self) -> bool {
        self.shows_descriptors
    }

    fn stands_still(&self) -> bool {
        false
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

    fn order_of_descriptions(&self, a: Fd, b: Fd) -> Option<Ordering> {
        let ((a, a_fd), (b, b_fd)) = (self.whose(a), self.whose(b));
        sys::fs::order_of_descriptions((a.outer, a_fd), (b.outer, b_fd))
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

    fn order_of_watched(&self, epoll: Fd, number: u32, nth: u32, fd: Fd) -> Option<Ordering> {
        let ((epoll, set), (whose, fd)) = (self.whose(epoll), self.whose(fd));
        sys::fs::order_of_watched((epoll.outer, set), number, nth, (whose.outer, fd))
    }

    fn borrow(&self, fd: Fd) -> sys::Result<Owned> {
        let (whose, fd) = self.whose(fd);
        whose.borrow(fd)
    }

    fn read_memory(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        sys::fs::pread_exact(self.one(self.entered).mem.as_ref().ok_or(Errno::EACCES)?.fd(), to, addr)
    }
}
