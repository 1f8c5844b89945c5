//! One of the processes that are saved: seized while it runs, stopped, and known with all its threads and signals.
//!
//! Must never take longer than it has to once it stands still: all others wait for it.

use core::ffi::CStr;
use std::vec::Vec;

use image_format::record::deadline::Deadline;
use image_format::record::seccomp::{Instruction, Seccomp};
use image_format::record::thread::Thread;
use state::itimer::Timers as Interval;
use state::posix_timer::{Owners, Timers as Posix};
use state::process::Relation;
use state::thread::Rseq;
use state::{Error, Question, Result, Target};
use sys::Errno;
use sys::abi::signal::Siginfo;
use sys::fs::{Fd, Owned};
use sys::ptrace;
use sys::text::Text;

mod signals;

use self::signals::{count_signals, waiting_signals};
use super::confined;
use super::filters::{FilterChain, Surroundings};
use super::place::Place;
pub use super::procfs::directory;
use super::procfs::{gone, namespace};
use super::resume;
use super::stop::Stopped as StoppedProcess;
use super::target::{self, Remote, Subject};
use super::thread::{Registers, XSAVE_MAX};
use crate::origin::Origin;
use crate::session::{self, Stopped, Threads};

/// Bytes of a thread's list of children: for as many as a tree can have.
const CHILDREN: usize = 32 << 10;

/// A thread with everything that the session wants of it.
#[derive(Debug)]
struct One {
    registers: Registers,
    record: Thread,
    regs: sys::abi::ptrace::UserRegs,
    pending: Vec<Siginfo>,
    seccomp: Vec<Seccomp>,
}

/// All threads; there is always a first one.
#[derive(Debug)]
pub struct All {
    first: One,
    others: Vec<One>,
    /// What their filters consist of.
    pub programs: Vec<Instruction>,
}

impl Threads for All {
    fn count(&self) -> usize {
        1 + self.others.len()
    }

    fn get(&self, index: usize) -> Stopped<'_> {
        let one = index.checked_sub(1).and_then(|i| self.others.get(i)).unwrap_or(&self.first);
        let tid = one.record.tid;
        let deadline = resume::deadline(&one.regs, &one.registers.regs);
        let deadline = deadline.map(|(clock, at)| Deadline { at: at.into(), clock: clock.into(), tid });
        let (frame, seccomp) = (one.registers.frame(&one.regs), &one.seccomp);
        Stopped { record: &one.record, frame, pending: &one.pending, deadline, seccomp, savers: [[0; 2]; 2] }
    }
}

/// A process of which no thread can become another program unnoticed; it still runs.
#[derive(Debug)]
pub struct Seized {
    /// Its id as we see it.
    pub pid: i32,
    /// Its directory in `/proc`.
    pub proc: Owned,
    pidfd: Owned,
    mem: Owned,
    place: Place,
    stopped: StoppedProcess,
    look: Option<Question>,
    /// What is known of its filters.
    surroundings: Surroundings,
    /// Room for a thread's XSAVE area, there already.
    room: Vec<u8>,
}

/// A process that stands still, with its threads' registers.
#[derive(Debug)]
pub struct Halted {
    subject: Subject,
    by_signal: bool,
    /// What tells whether a security module restricts it.
    look: Option<Question>,
    surroundings: Surroundings,
    first: Registers,
    others: Vec<Registers>,
}

/// All that is known of a process besides what the walk asks it.
#[derive(Debug)]
pub struct Known {
    /// Its threads.
    pub threads: All,
    /// Signals that wait for the process.
    pub shared: Vec<Siginfo>,
    /// Interval timers.
    pub timers: Interval,
    /// POSIX timers.
    pub posix_timers: Posix,
    /// A signal such as SIGSTOP had stopped it.
    pub stopped: bool,
    /// A security module restricts it.
    pub confined: bool,
    /// All threads have the same credentials.
    pub same_credentials: bool,
}

/// Ids of the children that these threads of a process have.
///
/// # Errors
/// The lists cannot be read.
pub fn children(proc: Fd, threads: &[i32]) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    let mut buffer = std::vec![0; CHILDREN];
    for tid in threads {
        let path = Text::<48>::of(format_args!("task/{tid}/children"));
        match sys::fs::read_file_at(proc, path.as_c_str(), &mut buffer) {
            Ok(text) => {
                let ids = sys::text::words(text).filter_map(sys::text::decimal);
                found.extend(ids.filter_map(|id| i32::try_from(id).ok()));
            }
            // Without CONFIG_PROC_CHILDREN nobody can tell.
            Err(Errno::ENOENT | Errno::ESRCH) => {}
            Err(e) => return Err(Error::failed(format_args!("children of thread {tid}"), "cannot be read", e)),
        }
    }
    Ok(found)
}

/// Refuses a child of a tree that a restart could not make as it is: one in other namespaces, or that shares with the root what only
/// threads share. Each is given by its id and its directory in `/proc`.
///
/// # Errors
/// It is such a one; it cannot be asked.
pub fn belongs((child, proc): (i32, Fd), (root, of_root): (i32, Fd)) -> Result<()> {
    const NAMESPACES: [&CStr; 7] = [c"ns/pid", c"ns/user", c"ns/mnt", c"ns/net", c"ns/ipc", c"ns/uts", c"ns/time"];
    const SHARED: [(usize, &str); 4] = [
        (sys::abi::KCMP_VM, "shares its memory with another process"),
        (sys::abi::KCMP_FILES, "shares its descriptors with another process"),
        (sys::abi::KCMP_FS, "shares its working directory with another process"),
        (sys::abi::KCMP_SIGHAND, "shares its signal handlers with another process"),
    ];
    let refuse = |why, remedy| Err(Error::refused(format_args!("child process {child}"), why, remedy));
    let failed = |e| Error::failed(format_args!("child process {child}"), "its namespaces cannot be read", e);
    for link in NAMESPACES {
        if namespace(proc, link).map_err(failed)? != namespace(of_root, link).map_err(failed)? {
            return refuse("lives in other namespaces", "save it by itself");
        }
    }
    let shares = |what| sys::process::shares(child, root, what) == Some(true);
    match SHARED.into_iter().find(|(what, _)| shares(*what)) {
        Some((_, what)) => refuse(what, "let it call exec first"),
        None => Ok(()),
    }
}

impl Seized {
    /// All that can be done while it runs; `withhold`: a signal that it does not get from now on.
    ///
    /// # Errors
    /// It may not be traced, or is gone.
    pub fn new(pid: i32, proc: Owned, withhold: Option<i32>, surroundings: Surroundings) -> Result<Self> {
        surroundings.prepare()?;
        let stopped = StoppedProcess::seize(pid, proc.fd(), withhold)?;
        let pidfd = sys::process::pidfd(pid, 0).map_err(gone(pid))?;
        let mem = sys::fs::open_at(proc.fd(), c"mem", sys::abi::O_RDWR, 0).map_err(gone(pid))?;
        let place = Place::find(proc.fd(), mem.fd())?;
        let look = confined::question(proc.fd());
        Ok(Self { pid, proc, pidfd, mem, place, stopped, look, surroundings, room: std::vec![1; XSAVE_MAX] })
    }

    /// How many threads it has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.stopped.tids().len()
    }

    /// Stops it and reads all registers. `None`: it has called exec or made a thread meanwhile, try again.
    ///
    /// # Errors
    /// It does not stop, or is gone.
    pub fn halt(self, origin: &Origin) -> Result<Option<Halted>> {
        let Self { pid, proc, pidfd, mem, place, mut stopped, look, surroundings, mut room } = self;
        if !stopped.stop()? || !place.is_as_found(mem.fd()) {
            return Ok(None);
        }
        let mut registers = Vec::new();
        for tid in stopped.tids().to_vec() {
            let others = (&origin.components, &surroundings, registers.last());
            let one = Registers::read(&mut stopped, tid, (&place, mem.fd()), others, &mut room)?;
            registers.extend(one);
        }
        // One may have been made while the last ones were being seized.
        let all = registers.first().is_none_or(|first| first.status.threads == registers.len() as u64)
            || state::process::threads(proc.fd()) == Ok(registers.len());
        if stopped.has_changed() || !all {
            return Ok(None);
        }
        let at = registers.iter().map(|r| r.regs.rip).collect();
        let others = registers.split_off(1.min(registers.len()));
        let Some(first) = registers.pop().filter(|r| r.tid == pid) else {
            return Err(Error::refused(
                format_args!("thread {pid}"),
                "the first thread has ended while others go on",
                "let it wait for the others",
            ));
        };
        let inner = first.status.own;
        let by_signal = stopped.by_signal();
        let subject = Subject { outer: pid, inner, proc, mem, pidfd, stopped, place, at };
        Ok(Some(Halted { subject, by_signal, look, surroundings, first, others }))
    }
}

impl Halted {
    /// Its id as we see it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.subject.outer
    }

    /// How it stands to the others; `parent` is its parent's own id, or 0.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn relation(&self, parent: u32) -> Result<Relation> {
        Ok(Relation::read(self.subject.proc.fd(), parent)?.stopped(self.by_signal))
    }

    /// Its directory in `/proc`.
    #[must_use]
    pub fn proc(&self) -> Fd {
        self.subject.proc.fd()
    }

    /// What is known of its filters, its own id, and its directory in `/proc`.
    #[must_use]
    pub fn surroundings(&self) -> (Surroundings, (i32, Fd)) {
        (self.surroundings.clone(), (self.subject.inner, self.proc()))
    }

    /// Ids of its children, also of those that have ended.
    ///
    /// # Errors
    /// The lists cannot be read.
    pub fn children(&self) -> Result<Vec<i32>> {
        let threads: Vec<i32> = core::iter::once(&self.first).chain(&self.others).map(|r| r.tid).collect();
        children(self.subject.proc.fd(), &threads)
    }

    /// Makes calls in it possible, and asks each thread what only that can tell; of a process `alone` a copy may be begun with
    /// that. `None`: try again.
    ///
    /// # Errors
    /// Something that cannot be carried; it is gone.
    pub fn look_into(
        self,
        (pause, since): (target::Pause, std::time::Instant),
        (reset_tcp, with_files): (bool, state::WithFiles),
        alone: bool,
    ) -> Result<Option<(Remote, Known)>> {
        let chains: Vec<_> =
            core::iter::once(&self.first).chain(&self.others).filter_map(|one| one.chain.clone()).collect();
        let looked = self.ask((pause, since), (reset_tcp, with_files), alone);
        chains.iter().try_for_each(|chain| chain.check_withheld())?;
        looked.map(|found| {
            found.map(|(mut remote, known)| {
                remote.chains = chains;
                (remote, known)
            })
        })
    }

    fn ask(
        self,
        (pause, since): (target::Pause, std::time::Instant),
        (reset_tcp, with_files): (bool, state::WithFiles),
        alone: bool,
    ) -> Result<Option<(Remote, Known)>> {
        let Self { subject, by_signal: stopped, look, first, others, .. } = self;
        let own = first.status.credentials;
        let same_credentials = own.is_some() && others.iter().all(|other| other.status.credentials == own);
        let pid = subject.outer;
        let mut remote = match Remote::new(subject, &first, pause, since) {
            // It has mapped something there since the place was found.
            Err(e) if e.errno() == Some(Errno::EEXIST) => return Ok(None),
            other => other?,
        };
        (remote.reset_tcp, remote.with_files) = (reset_tcp, with_files);
        let mut owners = if others.is_empty() { Owners::default() } else { Owners::find(&remote)? };
        let its = |remote: &mut Remote| remote.ask(&state::thread::QUESTIONS);
        let others = others
            .into_iter()
            .map(|registers| one(&mut remote, registers, its, &mut owners))
            .collect::<Result<Vec<_>>>()?;
        let waiting = count_signals(pid, &first, &others)?;
        // The first thread last: it makes the other calls, too.
        let questions = [&state::thread::QUESTIONS, &QUESTIONS.concat()[..], look.as_slice()].concat();
        let all = |remote: &mut Remote| if alone { remote.ask_and_copy(&questions) } else { remote.ask(&questions) };
        let mut threads = All { first: one(&mut remote, first, all, &mut owners)?, others, programs: Vec::new() };
        let confined =
            look.is_some_and(|look| confined::is_refusal(look.ask::<0>(&mut remote).map(|(answer, _)| answer)));
        let All { first, others, programs } = &mut threads;
        let chains: Vec<_> = core::iter::once(&*first).chain(&*others).map(|one| one.registers.chain.clone()).collect();
        let common = FilterChain::common(&chains);
        for (place, one) in core::iter::once(first).chain(others).enumerate() {
            if let Some(chain) = &one.registers.chain {
                one.seccomp = chain.steps(one.record.tid.get(), (common, place == 0), programs);
            }
        }
        let (shared, timers, posix_timers) = waiting_signals(&mut remote, &mut threads, &owners, waiting)?;
        Ok(Some((remote, Known { threads, shared, timers, posix_timers, stopped, confined, same_credentials })))
    }
}

/// What every save asks the process, besides what it asks each thread.
const QUESTIONS: [&[Question]; 4] = [
    &state::itimer::QUESTIONS,
    &[state::process::PERMITTED, state::process::SEGMENTS, target::ADOPTS, state::credentials::DUMPABLE],
    &session::CLOCKS,
    &state::pkey::QUESTIONS,
];

/// Asks a thread for what only it can tell, and what else is to be known from it.
fn one(
    remote: &mut Remote,
    registers: Registers,
    ask: impl FnOnce(&mut Remote) -> Result<()>,
    owners: &mut Owners,
) -> Result<One> {
    let tid = registers.tid;
    remote.use_thread(&registers)?;
    ask(remote)?;
    state::process::check_thread(remote, tid)?;
    let own = registers.status.own;
    if own != tid {
        remote.is_known(own, tid);
    }
    owners.ask(remote, tid as u32, own as u32)?;
    let rseq = match ptrace::rseq(tid) {
        Ok(config) => Rseq::Known(config.area, config.len, config.signature),
        Err(_) => Rseq::Near(registers.regs.fs_base),
    };
    let proc = remote.proc();
    let record = state::thread::save(remote, proc, tid, own, rseq)?;
    let regs = registers.regs;
    Ok(One { registers, record, regs, pending: Vec::new(), seccomp: Vec::new() })
}
