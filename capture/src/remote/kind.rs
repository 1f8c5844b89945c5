//! What can be saved from outside at all: programs of this machine's kind that are not at their end.
//!
//! Must never stop anything.

use state::process::{PF_IO_WORKER, PF_USER_WORKER};
use state::{Error, ErrorKind, Result};
use sys::Errno;
use sys::fs::{Fd, Owned};
use sys::text::Text;

use super::tracer;

/// Whether a process was refused as it has ended, or will in a moment.
#[must_use]
pub fn is_over(error: &Error) -> bool {
    error.is(ErrorKind::Ended) || matches!(error.errno(), Some(Errno::ENOENT | Errno::ESRCH))
}

/// There is nothing left to save of a process; as a child it is none of a tree's obstacles.
fn over(pid: i32, why: &'static str) -> Error {
    Error::refused(format_args!("process {pid}"), why, "there is nothing left to save").kind(ErrorKind::Ended)
}

/// Refuses what is no program of this machine's kind, or already at its end.
pub fn check(pid: i32, proc: &Owned) -> Result<()> {
    let fact = |key, buffer| {
        state::target::status_value(proc.fd(), c"status", key, buffer)
            .map_err(|e| Error::failed(format_args!("process {pid}"), "cannot be read", e))
    };
    let mut buffer = [0; 64];
    let state = fact(b"State", &mut buffer)?;
    if matches!(state, Some([b'Z' | b'X', ..])) {
        let mut count = [0; 16];
        let threads = fact(b"Threads", &mut count)?;
        return Err(match threads {
            None | Some(b"0" | b"1") => over(pid, "has ended and waits for its parent"),
            Some(_) => {
                let why = "has ended its first thread, without which the others cannot be carried";
                Error::refused(format_args!("process {pid}"), why, "end main() last")
            }
        });
    }
    if pid == sys::process::pid() {
        return Err(Error::refused(format_args!("process {pid}"), "is the saver itself", "name another"));
    }
    let mut leader = [0; 32];
    let group = fact(b"Tgid", &mut leader)?;
    if group.and_then(sys::text::decimal) != u64::try_from(pid).ok() {
        let why = "is a thread, not a process";
        return Err(Error::refused(format_args!("{pid}"), why, "name its process (Tgid in /proc/PID/status)"));
    }
    match program(proc) {
        Err(Errno::ENOENT) if is_kernel_thread(proc) => {
            Err(Error::refused(format_args!("process {pid}"), "is the kernel's own", "name a program"))
        }
        Err(Errno::ENOENT) => Err(over(pid, "is at its end")),
        Err(e @ (Errno::EACCES | Errno::EPERM)) => Err(tracer::not_allowed(pid, pid, proc.fd(), e)),
        _ if is_32_bit(proc) => {
            let process = format_args!("process {pid} (32-bit code)");
            Err(Error::refused(process, "cannot be carried", "use a 64-bit build of the program"))
        }
        _ => super::frozen::check(pid),
    }
}

/// Refuses a process from which the saver descends: it would have to save itself.
pub fn is_not_above(pid: i32) -> Result<()> {
    const GENERATIONS: usize = 4096;
    let mut own = sys::process::pid();
    for _ in 0..GENERATIONS {
        let path = Text::<32>::of(format_args!("/proc/{own}"));
        let proc = sys::fs::open(path.as_c_str(), sys::abi::O_DIRECTORY, 0);
        let parent = proc.and_then(|proc| state::target::parent(proc.fd()));
        match parent {
            Ok(parent) if parent == pid as u32 => {
                return Err(Error::refused(
                    format_args!("process {pid}"),
                    "has this very command among those that descend from it, which cannot save itself",
                    "call it from another shell, or start it in a session of its own with `setsid -f`",
                ));
            }
            Ok(parent) if parent > 1 => own = parent as i32,
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Looks for the program that a process runs; `ENOENT`: it has no memory, as one of the kernel's own, or one that ends.
fn program(proc: &Owned) -> sys::Result<()> {
    let mut path = [0; 4096];
    sys::fs::read_link_at(proc.fd(), c"exe", &mut path).map(drop)
}

/// Whether the program's file has 32-bit code. One that may be executed, but not read, is judged by its registers, at the save.
fn is_32_bit(proc: &Owned) -> bool {
    /// `ELFCLASS32` behind what all such files begin with.
    const HEAD: [u8; 5] = *b"\x7fELF\x01";
    let mut head = [0; HEAD.len()];
    let read = sys::fs::open_at(proc.fd(), c"exe", sys::abi::O_RDONLY, 0)
        .and_then(|exe| sys::fs::pread_exact(exe.fd(), &mut head, 0));
    read.is_ok() && head == HEAD
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

/// Whether a thread is the program's own. The kernel makes some for requests of io_uring's: they never run code of the program's, and what they
/// are at is asked of its instances. Refuses others that it has made (vhost's).
pub fn check_thread(proc: Fd, tid: i32) -> Result<bool> {
    match state::process::kernel_flags(proc, tid) {
        flags if flags & PF_IO_WORKER != 0 => Ok(false),
        flags if flags & PF_USER_WORKER != 0 => Err(Error::refused(
            format_args!("thread {tid} (the kernel's own, for vhost)"),
            "cannot be carried",
            "start the program without it",
        )),
        // One that has ended blocks nothing.
        _ => Ok(true),
    }
}
