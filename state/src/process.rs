//! Processes: what ties those of a tree together, and what none may have that is saved: seccomp filters, shadow stacks, AMX.
//!
//! Checked first, before anything is touched.

mod relation;
pub mod restarting;
mod stat;

use sys::abi::{ARCH_GET_XCOMP_PERM, XTILEDATA};
use sys::fs::Fd;
use sys::signal::bit;
use sys::text::Text;
use sys::{Errno, Sysno};

use crate::inside::{Arg, Question};
use crate::target::status_value;
use crate::{Error, Result, Target};

pub(crate) use relation::terminal;
pub use relation::{Relation, save};
pub use stat::Stat;

/// Asks which extended states the process may use.
// SAFETY: fills a number.
pub const PERMITTED: Question =
    unsafe { Question::new(Sysno::arch_prctl, Arg::Value(ARCH_GET_XCOMP_PERM), Arg::Data(0), 8) };

/// Asks for the beginning of the process's own table of segments.
pub const SEGMENTS: Question = {
    let none = Arg::Value(0);
    // SAFETY: function 0 reads the table, 16 bytes of it.
    unsafe { Question::of(Sysno::modify_ldt, [none, Arg::Data(0), Arg::Value(16), none, none, none], 16) }
};

/// Refuses a process that has what cannot be carried yet.
///
/// # Errors
/// The first such thing.
pub fn check<T: Target>(target: &mut T) -> Result<()> {
    let proc = target.proc();
    let read = |e| Error::failed(format_args!("/proc/PID/status"), "cannot be read", e);
    let mut buffer = [0; 2048];
    let mut lines = sys::fs::Lines::open_at(proc, c"status", &mut buffer).map_err(read)?.pass_long().whole();
    while let Some(line) = lines.next_line().map_err(read)? {
        let Some((key, value)) = sys::text::cut(line, b':') else { continue };
        if key == b"Seccomp" && value.trim_ascii() != b"0" && !target.reads_filters() {
            target.blocked(crate::seccomp::refused())?;
        } else if key == b"x86_Thread_features" && value.windows(5).any(|w| w == b"shstk") {
            target.blocked(Error::refused(
                format_args!("user shadow stack"),
                "cannot be carried",
                "start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
            ))?;
        }
    }
    let failed = |e| Error::failed(format_args!("process"), "cannot be asked what it may use", e);
    // A kernel without such segments, or who may make no calls inside, has no answer.
    let segments = match SEGMENTS.ask::<16>(target) {
        Err(Errno::ENOSYS) => 0,
        asked => asked.map_err(failed)?.0,
    };
    if segments != 0 {
        target.blocked(Error::refused(
            format_args!("segments of its own (modify_ldt)"),
            "cannot be carried",
            "start the program so that it runs no 16-bit or 32-bit code",
        ))?;
    }
    // A kernel that knows no such call has no AMX either.
    let permitted = match PERMITTED.ask(target) {
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EOPNOTSUPP) => 0,
        asked => u64::from_le_bytes(asked.map_err(failed)?.1),
    };
    if permitted & XTILEDATA != 0 {
        return Err(Error::refused(
            format_args!("AMX tiles (the process asked for them)"),
            "cannot be carried yet",
            "start the program so that it does not use AMX",
        ));
    }
    Ok(())
}

/// Refuses a thread that has children which are not saved with it, or has exited while others go on.
///
/// # Errors
/// The first such thing.
pub fn check_thread<T: Target>(target: &mut T, tid: i32) -> Result<()> {
    if target.takes_children() {
        return Ok(());
    }
    let proc = target.proc();
    let mut buffer = [0; 256];
    let path = Text::<48>::of(format_args!("task/{tid}/children"));
    match sys::fs::read_file_at(proc, path.as_c_str(), &mut buffer) {
        Ok(text) => {
            for child in sys::text::words(text) {
                let comm = Text::<48>::of(format_args!("/proc/{}/comm", sys::text::Shown(child)));
                let mut name = [0; 32];
                let name = sys::fs::read_file_at(sys::abi::AT_FDCWD, comm.as_c_str(), &mut name).unwrap_or_default();
                target.blocked(Error::refused(
                    format_args!("child process {} ({})", sys::text::Shown(child), sys::text::Shown(name.trim_ascii())),
                    "is not saved by a process that saves itself",
                    "save when it has ended, or by the process id: `ckpt save PID`",
                ))?;
            }
        }
        // Without CONFIG_PROC_CHILDREN nobody can tell from here; ESRCH: the thread is gone.
        Err(Errno::ENOENT | Errno::ESRCH) => {}
        Err(e) => return Err(Error::failed(format_args!("children of thread {tid}"), "cannot be read", e)),
    }
    Ok(())
}

/// Whether a thread has ended but is not gone, as a first thread does that called pthread_exit.
#[must_use]
pub fn is_dead<T: Target>(target: &T, tid: i32) -> bool {
    let path = Text::<48>::of(format_args!("task/{tid}/status"));
    let mut buffer = [0; 64];
    matches!(status_value(target.proc(), path.as_c_str(), b"State", &mut buffer), Ok(Some([b'Z' | b'X', ..])))
}

/// Whether a thread is one of those that the kernel makes for requests of io_uring's: it runs no code of the program's, and is made again
/// when there are requests again.
#[must_use]
pub fn is_worker(proc: Fd, tid: i32) -> bool {
    kernel_flags(proc, tid) & PF_IO_WORKER != 0
}

/// How many threads a process has, without those that the kernel has made for requests of io_uring's.
///
/// # Errors
/// They cannot be listed.
pub fn threads(proc: Fd) -> sys::Result<usize> {
    let dir = sys::fs::open_at(proc, c"task", sys::abi::O_DIRECTORY, 0)?;
    let mut count = 0;
    sys::fs::for_each_name(dir.fd(), |name| {
        let tid = sys::text::decimal(name).unwrap_or(0) as i32;
        count += usize::from(!is_worker(proc, tid));
        Ok::<_, Errno>(())
    })??;
    Ok(count)
}

/// The kernel's flags of a thread (proc_pid_stat(5)); 0 when it is gone.
#[must_use]
pub fn kernel_flags(proc: Fd, tid: i32) -> i64 {
    const FLAGS: usize = 9;
    let path = Text::<48>::of(format_args!("task/{tid}/stat"));
    Stat::read_at(proc, path.as_c_str()).map_or(0, |stat| stat.field(FLAGS))
}

/// `PF_IO_WORKER` and `PF_USER_WORKER` (include/linux/sched.h): of threads that the kernel has made for a process.
pub const PF_IO_WORKER: i64 = 0x10;
#[allow(missing_docs, reason = "as above")]
pub const PF_USER_WORKER: i64 = 0x4000;

/// Whether a thread blocks a signal, so that it cannot be asked to stop with it.
#[must_use]
pub fn blocks<T: Target>(target: &T, tid: i32, signal: i32) -> bool {
    let path = Text::<48>::of(format_args!("task/{tid}/status"));
    let mut buffer = [0; 64];
    let mask = status_value(target.proc(), path.as_c_str(), b"SigBlk", &mut buffer);
    mask.ok().flatten().and_then(sys::text::hex).is_some_and(|m| m & bit(signal) != 0)
}
