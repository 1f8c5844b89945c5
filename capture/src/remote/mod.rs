//! Saves any process by its pid, from outside: no root, no preparation, no library in it.
//!
//! ```text
//! seize ─► stop all threads ─► registers ─► objects ─► copy-on-write copy ─► let go ─► the copy, memory ─► seal
//!          └───────────────────────────── the pause ─────────────────────────────┘
//! ```
//!
//! Must never change the process for good: what is put into it for a moment is taken out again, and if this process is
//! killed meanwhile, leads back by itself.

mod ahead;
mod arena;
mod copy;
mod glance;
mod look;
mod outside;
mod patience;
mod place;
mod puppet;
mod resume;
mod stop;
mod target;
mod thread;

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};
use std::vec::Vec;

use image_format::record::deadline::Deadline;
use image_format::record::thread::Thread;
use state::inotify::UNREAD;
use state::itimer::Timers as Interval;
use state::memory::WIPED;
use state::posix_timer::Timers as Posix;
use state::thread::Rseq;
use state::{Error, Inside, Question, Result, Target};
use sys::abi::signal::{NSIG, SA_RESTART, Siginfo};
use sys::fs::{Fd, Owned};
use sys::ptrace;
use sys::signal::bit;
use sys::text::Text;
use sys::{Errno, Sysno};

use self::arena::Arena;
pub use self::look::blockers;
use self::patience::Patience;
use self::place::Place;
use self::resume::Waiting;
use self::stop::Stopped as StoppedProcess;
use self::target::{Pause, Remote, Subject};
use self::thread::{Registers, XSAVE_MAX};
use crate::origin::Origin;
use crate::output::Output;
use crate::session::{self, Facts, Stopped, Threads};

/// How often a process is tried that keeps calling exec, or making threads.
const ATTEMPTS: u32 = 20;

/// Where an image goes.
pub enum Destination<'a> {
    /// A file, replaced by rename when the image is whole and durable.
    File(&'a Path),
    /// A pipe or a socket, written in one forward pass.
    Stream(OwnedFd),
    /// The same; when all is written it is closed, and whoever took the bytes says whether the image has arrived. Only
    /// then has it been saved, and only then does `kill` end the process, which stands still until then with it.
    Arrives(OwnedFd, &'a mut dyn FnMut() -> Result<()>),
}

impl Destination<'_> {
    /// Waits until the bytes are where they shall be.
    fn arrives(&mut self) -> Result<()> {
        let Self::Arrives(..) = self else { return Ok(()) };
        match core::mem::replace(self, Self::File(Path::new(""))) {
            Self::Arrives(fd, taken) => {
                drop(fd);
                taken()
            }
            _ => Ok(()),
        }
    }
}

/// How to save.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Let the process stand still until the image is written.
    pub freeze: bool,
    /// End the process when the image is durable; it stands still until then.
    pub kill: bool,
    /// Do not refuse TCP connections to other processes: the restarted process gets them reset.
    pub reset_tcp: bool,
    /// Carry the contents of open files, too, for where they are missing.
    pub with_files: state::WithFiles,
}

/// What a save took.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Length of the image, bytes.
    pub bytes: u64,
    /// How long the process stood still.
    pub pause: Duration,
    /// From the call to the durable image.
    pub total: Duration,
    /// Threads that were saved.
    pub threads: usize,
    /// Why the process stood still all the time, although it need not have.
    pub frozen: Option<&'static str>,
}

/// Saves process `pid`, which goes on.
///
/// # Errors
/// It may not be traced, it holds something that cannot be carried, or the image cannot be written. It goes on, and an
/// older image is whole.
pub fn save(pid: i32, mut to: Destination<'_>, options: Options) -> Result<Report> {
    let started = Instant::now();
    let mut output = match &to {
        Destination::File(path) => {
            let path = std::path::absolute(path).map_err(|_| Error::from(image_format::writer::Full))?;
            Output::create(path.as_os_str().as_bytes())?
        }
        Destination::Stream(fd) | Destination::Arrives(fd, _) => Output::stream(std::os::fd::AsRawFd::as_raw_fd(fd)),
    };
    let mut pause = if options.freeze || options.kill { Pause::Frozen } else { Pause::Live };
    let patience = Patience::since(started);
    let (mut frozen, mut executed) = (None, 0);
    while executed < ATTEMPTS {
        match attempt(pid, pause, options, &mut output, &mut to) {
            Ok(Attempt::Done(mut report)) => {
                report.total = started.elapsed();
                report.frozen = report.frozen.or(frozen);
                return Ok(report);
            }
            Ok(Attempt::Executed) => executed += 1,
            Ok(Attempt::Restarting) => patience.with_restart(pid)?,
            // Whatever a copy lacks, the process itself has; but a stream cannot begin anew.
            Ok(Attempt::CopyFailed(lacking, _)) if output.restart().is_ok() => {
                (pause, frozen) = (Pause::Frozen, Some(lacking));
                continue;
            }
            Err(e) if e.is(UNREAD) => patience.with_reader(e)?,
            Ok(Attempt::CopyFailed(_, why)) | Err(why) => return Err(why),
        }
        output.restart()?;
    }
    Err(Error::refused(
        format_args!("process {pid}"),
        "starts one program, or one thread, after the other",
        "save it when it has settled",
    ))
}

enum Attempt {
    Done(Report),
    Executed,
    /// The restart stub is still at work in it.
    Restarting,
    /// What it lacks, and how that was noticed.
    CopyFailed(&'static str, Error),
}

/// A thread with everything that the session wants of it.
struct One {
    registers: Registers,
    record: Thread,
    regs: sys::abi::ptrace::UserRegs,
    pending: Vec<Siginfo>,
}

/// All threads; there is always a first one.
struct All {
    first: One,
    others: Vec<One>,
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
        Stopped { record: &one.record, frame: one.registers.frame(&one.regs), pending: &one.pending, deadline }
    }
}

fn attempt(pid: i32, pause: Pause, options: Options, output: &mut Output, to: &mut Destination<'_>) -> Result<Attempt> {
    let gone = |e| Error::failed(format_args!("process {pid}"), "is not there, or may not be read", e);
    let proc = sys::fs::open(Text::<32>::of(format_args!("/proc/{pid}")).as_c_str(), sys::abi::O_DIRECTORY, 0);
    let proc = proc.map_err(gone)?;
    check_kind(pid, &proc)?;
    let mut name = [0; 32];
    let name = sys::fs::read_file_at(proc.fd(), c"comm", &mut name).map_err(gone)?;
    if state::process::is_restarting(name.trim_ascii_end()) {
        return Ok(Attempt::Restarting);
    }
    // All that can be done while it runs. Seized, it cannot become another program unnoticed.
    let mut stopped = StoppedProcess::seize(pid, proc.fd())?;
    let pidfd = sys::process::pidfd(pid).map(Owned::new).map_err(gone)?;
    let mem = sys::fs::open_at(proc.fd(), c"mem", sys::abi::O_RDWR, 0).map_err(gone)?;
    let place = Place::find(proc.fd(), mem.fd())?;
    let mut arena = Arena::map()?;
    arena.warm(stopped.tids().len());
    let origin = Origin::now()?;
    let mut room = std::vec![1; XSAVE_MAX];
    glance::prepare();

    let paused = Instant::now();
    if !stopped.stop()? || !place.is_as_found(mem.fd()) {
        return Ok(Attempt::Executed);
    }
    let mut registers = Vec::new();
    for tid in stopped.tids().to_vec() {
        registers.extend(Registers::read(&mut stopped, tid, (&place, mem.fd()), &origin.components, &mut room)?);
    }
    // One may have been made while the last ones were being seized.
    let all = registers.first().is_none_or(|first| first.status.threads == registers.len() as u64);
    if stopped.has_changed() || !all {
        return Ok(Attempt::Executed);
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
    let subject = Subject { outer: pid, inner, proc, mem, pidfd, stopped, place, at };
    let mut remote = match Remote::new(subject, &first, pause, paused) {
        // It has mapped something there since the place was found.
        Err(e) if e.errno() == Some(Errno::EEXIST) => return Ok(Attempt::Executed),
        other => other?,
    };
    (remote.reset_tcp, remote.with_files) = (options.reset_tcp, options.with_files);
    let others = others.into_iter().map(|registers| one(&mut remote, registers, &[])).collect::<Result<Vec<_>>>()?;
    let waiting = count_signals(pid, &others)?;
    // The first thread last: it makes the other calls, too.
    let mut threads = All { first: one(&mut remote, first, &QUESTIONS.concat())?, others };
    let (shared, timers, posix_timers) = waiting_signals(&mut remote, &mut threads, waiting)?;
    let facts = Facts {
        origin,
        shared_pending: &shared,
        timers,
        posix_timers,
        replaced: None,
        signal: 0,
        generation: 0,
        full_frames: true,
    };
    let saved = session::save(&mut remote, &threads, &facts, arena.memory(), output);
    let saved = saved.inspect(|bytes| remote.end_copy(*bytes));
    let saved = saved.and_then(|bytes| output.finish().and_then(|()| to.arrives()).map(|()| bytes));
    let (frozen, thawed, lacking) = (remote.held, remote.thawed(), remote.lacking);
    let bytes = match saved {
        Ok(bytes) => bytes,
        // What a fork wipes, and what somebody has killed, the process itself still has.
        Err(e) if lacking.is_some() || thawed.is_some() && (e.is(WIPED) || !remote.copy_lives()) => {
            return Ok(Attempt::CopyFailed(lacking.unwrap_or("its copy could not be saved"), e));
        }
        Err(e) => return Err(e),
    };
    remote.finish(options.kill)?;
    let pause = thawed.unwrap_or_else(|| paused.elapsed());
    Ok(Attempt::Done(Report { bytes, pause, total: pause, threads: threads.count(), frozen }))
}

/// Refuses what is no program of this machine's kind, or already at its end.
fn check_kind(pid: i32, proc: &Owned) -> Result<()> {
    let mut buffer = [0; 64];
    let state = state::target::status_value(proc.fd(), c"status", b"State", &mut buffer).ok().flatten();
    if matches!(state, Some([b'Z' | b'X', ..])) {
        let mut count = [0; 16];
        let threads = state::target::status_value(proc.fd(), c"status", b"Threads", &mut count).ok().flatten();
        let (why, remedy) = match threads {
            None | Some(b"0" | b"1") => ("has ended and waits for its parent", "there is nothing left to save"),
            Some(_) => ("has ended its first thread, without which the others cannot be carried", "end main() last"),
        };
        return Err(Error::refused(format_args!("process {pid}"), why, remedy));
    }
    if pid == sys::process::pid() {
        return Err(Error::refused(format_args!("process {pid}"), "is the saver itself", "name another"));
    }
    let mut leader = [0; 32];
    let group = state::target::status_value(proc.fd(), c"status", b"Tgid", &mut leader).ok().flatten();
    if group.and_then(sys::text::decimal) != u64::try_from(pid).ok() {
        let why = "is a thread, not a process";
        return Err(Error::refused(format_args!("{pid}"), why, "name its process (Tgid in /proc/PID/status)"));
    }
    let mut path = [0; 4096];
    match sys::fs::read_link_at(proc.fd(), c"exe", &mut path) {
        Err(Errno::ENOENT) => {
            Err(Error::refused(format_args!("process {pid}"), "is the kernel's own", "name a program"))
        }
        Err(e @ (Errno::EACCES | Errno::EPERM)) => Err(stop::not_allowed(pid, pid, proc.fd(), e)),
        _ => Ok(()),
    }
}

/// The id that a process or thread has in its own, innermost pid namespace.
fn inner_id(proc: Fd, status: &core::ffi::CStr) -> Option<i32> {
    let mut buffer = [0; 256];
    let ids = state::target::status_value(proc, status, b"NSpid", &mut buffer).ok().flatten()?;
    sys::text::words(ids).last().and_then(sys::text::decimal).and_then(|n| i32::try_from(n).ok())
}

/// What every save asks the process, besides what it asks each thread.
const QUESTIONS: [&[Question]; 4] =
    [&state::itimer::QUESTIONS, &[state::process::PERMITTED], &session::CLOCKS, &[target::ADOPTS]];

/// Asks a thread for what only it can tell, and what else is to be known from it.
fn one(remote: &mut Remote, registers: Registers, more: &[Question]) -> Result<One> {
    let tid = registers.tid;
    remote.use_thread(&registers)?;
    remote.ask(&[&state::thread::QUESTIONS, more].concat())?;
    state::process::check_thread(remote, tid)?;
    let own = registers.status.own;
    if own != tid {
        remote.is_known(own, tid);
    }
    let rseq = match ptrace::rseq(tid) {
        Ok(config) => Rseq::Known(config.area, config.len, config.signature),
        Err(_) => Rseq::Near(registers.regs.fs_base),
    };
    let proc = remote.proc();
    let record = state::thread::save(remote, proc, tid, own, rseq)?;
    let regs = registers.regs;
    Ok(One { registers, record, regs, pending: Vec::new() })
}

/// How many signals wait, for the process and for each thread.
fn count_signals(pid: i32, others: &[One]) -> Result<usize> {
    let mut count = thread::pending(pid, true)?.len() + thread::pending(pid, false)?.len();
    for one in others {
        count += thread::pending(one.registers.tid, false)?.len();
    }
    Ok(count)
}

/// Signals that wait, for each thread and for the process, and the timers that make some of them: read until nothing has come
/// in between, so that what expires meanwhile is found here or there, and nowhere twice. `before`: how many waited before the
/// timers were asked for.
fn waiting_signals(remote: &mut Remote, all: &mut All, mut before: usize) -> Result<(Vec<Siginfo>, Interval, Posix)> {
    let pid = remote.outer();
    loop {
        let timers = (state::itimer::read(remote)?, state::posix_timer::read(remote)?);
        let shared = thread::pending(pid, true)?;
        let mut count = shared.len();
        for one in core::iter::once(&mut all.first).chain(&mut all.others) {
            one.pending = thread::pending(one.registers.tid, false)?;
            count += one.pending.len();
        }
        if count == before {
            let caught = all.first.registers.status.caught;
            go_on(remote, &mut all.first, &shared, caught);
            for one in &mut all.others {
                go_on(remote, one, &[], caught);
            }
            return Ok((shared, timers.0, timers.1));
        }
        before = count;
    }
}

/// Where the restarted thread goes on, now that the signals are known.
fn go_on(remote: &mut Remote, one: &mut One, shared: &[Siginfo], caught: u64) {
    let waits = |set: u64, info: &Siginfo| set | bit(info.signo.clamp(1, NSIG));
    // What only the call's own mask blocks is handled before the call is made again: to the kernel, too.
    let barred = one.registers.mask | one.registers.blocked;
    let waiting = one.pending.iter().chain(shared).fold(0, waits) & caught & !barred;
    let waiting = waiting_for(remote, waiting);
    one.regs = resume::restarted(&one.registers.regs, waiting, remote.mem());
    let leads = one.registers.tid == remote.outer();
    thread::complete(&mut one.record, &one.registers, &one.regs, leads, remote.mem());
}

/// What signals with handlers, which will be delivered first of all, do to an interrupted call.
fn waiting_for(remote: &mut Remote, signals: u64) -> Waiting {
    let mut waiting = Waiting::None;
    for signal in (1..=NSIG).filter(|n| signals & bit(*n) != 0) {
        let mut data = [0; 32];
        let [number, zero, size] = [signal as usize, 0, 8].map(state::Arg::Value);
        let asked = remote.call(Sysno::rt_sigaction, [number, zero, state::Arg::Data(0), size, zero, zero], &mut data);
        let [_, flags, ..] = data.as_chunks::<8>().0 else { continue };
        if asked.is_ok() && u64::from_le_bytes(*flags) & SA_RESTART == 0 {
            return Waiting::Interrupts;
        }
        waiting = Waiting::Restarts;
    }
    waiting
}
