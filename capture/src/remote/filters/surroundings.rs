//! Filters of a program's surroundings, as those of a container engine: the saver has them, too. Nobody in there can read them, and nobody has to: the
//! program goes on in surroundings that have their own.
//!
//! Must never take a filter of the program's for one of these: the program would lose it, or be ended by it.
//!
//! The kernel says how many filters a thread has, not which. But none is ever taken away: a new one stands in front of those before it
//! (kernel/seccomp.c, `seccomp_attach_filter`), exec(2) changes none, a new thread or process has its maker's (kernel/fork.c, `copy_seccomp`), and
//! `SECCOMP_FILTER_FLAG_TSYNC` gives a thread the caller's only where those begin with its own (`is_ancestor`). So whoever descends from a thread has what
//! that one had by then, and perhaps more. With as many they are the same, where that one had as many by then already.

use std::sync::{Arc, Mutex, PoisonError};

use state::{Error, Result};
use sys::fs::Fd;
use sys::{Errno, process};

use super::probe::{Probe, Verdict};
use crate::remote::procfs;
use crate::remote::status::Status;

/// The first process of a pid namespace.
const INIT: i32 = 1;

/// Numbers of parents that are asked.
const GENERATIONS: usize = 4096;

/// Filters that the saver and the program share.
#[derive(Debug)]
pub struct Shared {
    count: u64,
    probe: Mutex<Option<Probe>>,
}

/// What is known of the filters of a process, as far as they cannot be read.
#[derive(Clone, Debug, Default)]
pub enum Surroundings {
    /// Nothing: the saver has none.
    #[default]
    Unknown,
    /// So many are the saver's, too.
    Same(Arc<Shared>),
    /// It may have others than the saver, although they are as many.
    Unproven(u64),
}

impl Surroundings {
    /// What process `pid` has of the saver's. `is_started`: whoever has started it has the saver's filters, and neither of the two has ever
    /// installed one.
    ///
    /// # Errors
    /// It, or one from which it descends, cannot be asked.
    pub fn of(pid: i32, is_started: bool) -> Result<Self> {
        let own = Status::read(process::pid()).map_err(failed(process::pid()))?;
        let Some(count) = own.filters.filter(|count| *count != 0) else { return Ok(Self::Unknown) };
        if is_started || same_line(pid, count)? && same_line(process::pid(), count)? {
            return Ok(Self::Same(Arc::new(Shared { count, probe: Mutex::new(None) })));
        }
        Ok(Self::Unproven(count))
    }

    /// Has everything ready to ask them.
    ///
    /// # Errors
    /// They cannot be asked.
    pub fn prepare(&self) -> Result<()> {
        if let Self::Same(shared) = self { shared.prepare() } else { Ok(()) }
    }

    /// What a child of such a process has of them. An orphan that somebody has brought into its pid namespace (setns(2)) may be the child of the
    /// first process there, and has never descended from it; but it cannot have got into its session.
    ///
    /// # Errors
    /// They cannot be asked.
    pub fn of_child(&self, child: (i32, Fd), parent: (i32, Fd)) -> Result<Self> {
        let descends = parent.0 != INIT || in_one_session(child, parent)?;
        Ok(match self {
            Self::Same(shared) if !descends => Self::Unproven(shared.count),
            known => known.clone(),
        })
    }

    /// The filters of a thread that has some, if they are the saver's. `None`: the saver has none.
    ///
    /// # Errors
    /// It has others, or it cannot be told.
    pub fn shared_by(&self, tid: i32, status: &Status) -> Result<Option<Arc<Shared>>> {
        let own = (
            "is not only what its surroundings have, and can be read by root alone, from outside of containers",
            "start the program without a filter of its own, or use `ckpt save PID` as root from outside",
        );
        let unproven = (
            "may be another than that of its surroundings: what has the same for sure is what `ckpt run` has started",
            "start it with `ckpt run`, and send that the signal to save it; or use `ckpt save PID` as root from outside of containers",
        );
        let (why, remedy) = match self {
            Self::Unknown => return Ok(None),
            Self::Same(shared) if !status.strict && status.filters == Some(shared.count) => {
                return Ok(Some(shared.clone()));
            }
            Self::Unproven(count) if status.filters == Some(*count) => unproven,
            Self::Same(_) | Self::Unproven(_) => own,
        };
        Err(refused(tid, why, remedy))
    }
}

impl Shared {
    fn prepare(&self) -> Result<()> {
        let mut probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        if probe.is_none() {
            *probe = Some(Probe::start().map_err(|e| {
                let failed =
                    Error::failed(format_args!("seccomp filter of a container"), "cannot be asked about calls", e);
                failed.remedy("use `ckpt save PID` as root from outside")
            })?);
        }
        Ok(())
    }

    /// What they say of a call.
    pub fn ask(&self, number: usize, args: [usize; 6]) -> Verdict {
        if self.prepare().is_err() {
            return Verdict::Harms;
        }
        let mut probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = probe.as_mut().map_or(Verdict::Harms, |probe| probe.ask(number, args));
        if verdict == Verdict::Harms {
            *probe = None;
        }
        verdict
    }
}

/// A filter of a thread that cannot be carried.
pub fn refused(tid: i32, why: &'static str, remedy: &'static str) -> Error {
    Error::refused(format_args!("seccomp filter of thread {tid}"), why, remedy)
}

fn failed(pid: i32) -> impl Fn(Errno) -> Error {
    move |e| Error::failed(format_args!("process {pid}"), "cannot be asked from whom it has its seccomp filters", e)
}

/// Whether a process has the very filters of the first process of the saver's pid namespace: as many, as all in between, and neither can have installed any
/// of them for itself. For that it takes `no_new_privs`, which is never taken off and passed on to children, or CAP_SYS_ADMIN (kernel/seccomp.c,
/// `seccomp_prepare_filter`), of which nothing is left to any of them. (What is not seen is a first process that had this right, made the others, installed
/// as many as each of these did, and then all gave it up: those would be engines.)
fn same_line(pid: i32, count: u64) -> Result<bool> {
    let (own, mut pid) = (procfs::directory(process::pid())?, pid);
    for _ in 0..GENERATIONS {
        let proc = procfs::directory(pid)?;
        for link in [c"ns/user", c"ns/pid"] {
            if procfs::namespace(proc.fd(), link).map_err(failed(pid))?
                != procfs::namespace(own.fd(), link).map_err(failed(pid))?
            {
                return Ok(false);
            }
        }
        if !all_threads(proc.fd(), pid, |status| status.filters == Some(count) && !can_install(status))? {
            return Ok(false);
        }
        if pid == INIT {
            return Ok(true);
        }
        let parent = state::target::parent(proc.fd()).map_err(failed(pid))?.cast_signed();
        if parent == INIT {
            let init = procfs::directory(parent)?;
            if !in_one_session((pid, proc.fd()), (parent, init.fd()))? {
                return Ok(false);
            }
        } else if parent == 0 {
            // Somebody outside of the pid namespace has made it.
            return Ok(false);
        }
        pid = parent;
    }
    Ok(false)
}

fn can_install(status: &Status) -> bool {
    const SYS_ADMIN: u32 = 21;
    status.no_new_privs || status.capabilities >> SYS_ADMIN & 1 != 0
}

fn all_threads(proc: Fd, pid: i32, holds: impl Fn(&Status) -> bool) -> Result<bool> {
    let dir = sys::fs::open_at(proc, c"task", sys::abi::O_DIRECTORY, 0).map_err(failed(pid))?;
    let mut all = true;
    sys::fs::for_each_name(dir.fd(), |name| {
        let tid = sys::text::decimal(name).and_then(|n| i32::try_from(n).ok());
        match tid.map(Status::read) {
            None | Some(Err(Errno::ENOENT | Errno::ESRCH)) => {}
            Some(Ok(status)) => all &= holds(&status),
            Some(Err(e)) => return Err(e),
        }
        Ok(())
    })
    .and_then(|read| read)
    .map_err(failed(pid))?;
    Ok(all)
}

/// Whether two processes are of one session, which nobody gets into but by birth (setsid(2) makes another one), and which this pid namespace knows.
fn in_one_session(a: (i32, Fd), b: (i32, Fd)) -> Result<bool> {
    const SESSION: usize = 6;
    let session =
        |(pid, proc): (i32, Fd)| state::process::Stat::read(proc).map(|stat| stat.field(SESSION)).map_err(failed(pid));
    let own = session(a)?;
    Ok(own != 0 && own == session(b)?)
}
