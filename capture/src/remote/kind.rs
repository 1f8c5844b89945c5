//! What can be saved from outside at all: programs of this machine's kind that are not at their end.
//!
//! Must never stop anything.

use state::{Error, Result};
use sys::Errno;
use sys::fs::{Fd, Owned};
use sys::text::Text;

use super::stop;

/// Refuses what is no program of this machine's kind, or already at its end.
pub fn check(pid: i32, proc: &Owned) -> Result<()> {
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
    match program(proc) {
        Err(Errno::ENOENT) if is_kernel_thread(proc) => {
            Err(Error::refused(format_args!("process {pid}"), "is the kernel's own", "name a program"))
        }
        Err(Errno::ENOENT) => {
            Err(Error::refused(format_args!("process {pid}"), "is at its end", "there is nothing left to save"))
        }
        Err(e @ (Errno::EACCES | Errno::EPERM)) => Err(stop::not_allowed(pid, pid, proc.fd(), e)),
        _ => Ok(()),
    }
}

/// Looks for the program that a process runs; `ENOENT`: it has no memory, as one of the kernel's own, or one that ends.
fn program(proc: &Owned) -> sys::Result<()> {
    let mut path = [0; 4096];
    sys::fs::read_link_at(proc.fd(), c"exe", &mut path).map(drop)
}

/// Whether a process has given its memory back: it is at its end.
pub fn has_no_program(proc: &Owned) -> bool {
    program(proc) == Err(Errno::ENOENT)
}

/// Whether the kernel made it for itself: all such descend from `kthreadd`, process 2 of the first namespace, which has no parent.
fn is_kernel_thread(proc: &Owned) -> bool {
    let mut buffer = [0; 32];
    let parent = state::target::status_value(proc.fd(), c"status", b"PPid", &mut buffer).ok().flatten();
    matches!(parent, Some(b"0" | b"2"))
}

/// Refuses a thread that the kernel has made for a process (io_uring's, vhost's): it never runs code of the program's, so that a call
/// inside would be waited for in vain.
pub fn check_thread(proc: Fd, tid: i32) -> Result<()> {
    /// The kernel's flags for a thread (proc_pid_stat(5)).
    const FLAGS: usize = 9;
    /// `PF_IO_WORKER`, `PF_USER_WORKER` (include/linux/sched.h).
    const WORKER: i64 = 0x10 | 0x4000;
    let path = Text::<48>::of(format_args!("task/{tid}/stat"));
    match state::process::Stat::read_at(proc, path.as_c_str()) {
        Ok(stat) if stat.field(FLAGS) & WORKER != 0 => Err(Error::refused(
            format_args!("thread {tid} (the kernel's own, for io_uring or vhost)"),
            "cannot be carried",
            "start the program without them",
        )),
        // One that has ended blocks nothing.
        _ => Ok(()),
    }
}

/// Whether the restart stub is still at work in a process.
pub fn is_restarting(proc: Fd) -> bool {
    let mut name = [0; 32];
    let name = sys::fs::read_file_at(proc, c"comm", &mut name).unwrap_or_default();
    restarts_as(name.trim_ascii_end(), proc)
}

/// The same of a process of this name. Executed as `/proc/self/fd/N`, the stub is called N until its first instruction.
pub fn restarts_as(name: &[u8], proc: Fd) -> bool {
    if name.is_empty() || !name.iter().all(u8::is_ascii_digit) {
        return state::process::is_restarting(name);
    }
    let mut exe = [0; 64];
    sys::fs::read_link_at(proc, c"exe", &mut exe).is_ok_and(|exe| exe.starts_with(b"/memfd:restart-stub"))
}
