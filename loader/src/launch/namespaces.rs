//! Namespaces in which a program has its old ids and its clocks go on: user (unless this process may do without), pid, time, and a mount
//! namespace whose only difference is `/proc`.
//!
//! This process itself enters the user namespace alone, so that it sees the program by the pids of outside. PID 1 inside is a process of ours
//! that takes in orphans and ends with the program, which ends all others. Must never hide a file of the program's: the mounts are the same, and
//! follow those outside.

use core::ffi::CStr;

use image_format::ExitCode;
use loader::supervise::Place;
use state::restart::{Error, Result};
use sys::abi::O_WRONLY;
use sys::abi::signal::{SIGCHLD, SIGKILL};
use sys::child::Birth;
use sys::fs::Fd;
use sys::namespace::Kinds;
use sys::{Errno, child, credentials, namespace};

use super::clocks;

/// Namespaces that the next children are born into.
#[derive(Debug)]
pub struct Namespaces {
    /// The end of a pipe; closed when the program is there: then PID 1 may look for it.
    start: Fd,
    /// PID 1, unless the program is.
    init: i32,
}

impl Namespaces {
    /// Makes PID 1 of a new pid namespace, unless the program has this id itself: as a child of this process, or of its parent for a `sibling`. Nothing
    /// is opened below `base`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make(id: u32, place: Place, sibling: bool, base: Fd) -> Result<Self> {
        let mut made = Self { start: -1, init: 0 };
        if id != 1 {
            let failed = |e| kernel("PID 1 of a namespace", "cannot be made", e);
            let [go, start] = super::pipe_above(base)?;
            // SAFETY: one thread; the child makes system calls only.
            let init = unsafe { child::fork_as(&Birth { sibling, ..Birth::default() }) }.map_err(failed)?;
            if init == 0 {
                // SAFETY: this process's own, of no use any more.
                unsafe { sys::fs::close(start) };
                be_init(id, go, place != Place::OwnSession);
            }
            // SAFETY: this process's own, of no use any more.
            unsafe { sys::fs::close(go) };
            (made.init, made.start) = (init, start);
        }
        Ok(made)
    }

    /// In the program's process: an own `/proc`.
    pub fn furnish(&self) {
        // SAFETY: this process's own, of no use any more.
        unsafe { sys::fs::close(self.start) };
        if namespace::unshare(Kinds::MOUNT).is_ok() && namespace::follow_mounts().is_ok() {
            // Where parts of /proc are covered (a container) another one is not allowed: that of outside stays, in which
            // /proc/self is right all the same.
            let _ = namespace::mount_proc();
        }
    }

    /// The program is there: PID 1 lives as long as it does.
    pub fn program_started(&mut self) {
        // SAFETY: this process's own, of no use any more.
        unsafe { sys::fs::close(core::mem::replace(&mut self.start, -1)) };
    }

    /// After the program's end, or without one: PID 1 is gone when this returns.
    pub fn end(&mut self) {
        self.program_started();
        if self.init != 0 {
            let _ = sys::process::kill(self.init, SIGKILL);
            child::reap(self.init.cast_unsigned());
            self.init = 0;
        }
    }
}

/// Makes these namespaces, in a user namespace where this process may not do without; tells whether that was so. Ids stay what they are.
///
/// # Errors
/// They cannot be made.
pub fn enter(wanted: Kinds) -> Result<bool> {
    if namespace::unshare(wanted).is_ok() {
        return Ok(false);
    }
    let own = (sys::process::effective_uid(), sys::process::effective_gid());
    unshare_alone(wanted | Kinds::USER).map_err(|e| {
        let remedy = "allow them (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                      kernel.apparmor_restrict_unprivileged_userns), or restart with --pid new";
        let what = "user, pid and time namespaces";
        Error::with_reason(ExitCode::Kernel, what, 0, b"", e, ["cannot be made", remedy])
    })?;
    namespace::map_own(own).map_err(|e| kernel("user namespace", "this user's id cannot be kept in it", e))?;
    // Its files are the program's to open, with no more rights than it has.
    credentials::set_capabilities(
        credentials::capabilities().map_err(no_rights)?.map(|set| set & !credentials::OVER_FILES),
    )
    .map_err(no_rights)?;
    Ok(true)
}

fn no_rights(e: Errno) -> Error {
    kernel("rights over files", "cannot be given up", e)
}

/// A user namespace is for a process with one thread alone: one that has just ended may not be gone for the kernel (EINVAL).
fn unshare_alone(kinds: Kinds) -> sys::Result<()> {
    const TRIES: usize = 1000;
    for _ in 0..TRIES {
        match namespace::unshare(kinds) {
            Err(Errno::EINVAL) => sys::time::nap(),
            other => return other,
        }
    }
    Err(Errno::EINVAL)
}

/// Writes a value into a file of `/proc/self` that describes a namespace.
///
/// # Errors
/// The kernel's word.
pub fn write(path: &CStr, value: &[u8]) -> Result<()> {
    let written = sys::fs::open(path, O_WRONLY, 0).and_then(|file| sys::fs::write_all(file.fd(), value));
    written.map_err(|e| clocks::failed(path, e))
}

/// An error with the kernel's word.
pub fn kernel(object: &'static str, why: &'static str, e: Errno) -> Error {
    Error::with_reason(ExitCode::Kernel, object, 0, b"", e, [why, ""])
}

/// PID 1 of the namespace: ends when the program of this id does, or when there will be none.
fn be_init(id: u32, go: Fd, dies_with_parent: bool) -> ! {
    if dies_with_parent {
        let _ = sys::process::set_death_signal(SIGKILL);
    }
    // What the terminal or a group's signals do is not its affair.
    let _ = child::new_session();
    let _ = sys::fs::chdir(b"/");
    sys::thread::set_name(b"ckpt-init\0\0\0\0\0\0\0");
    // Orphans that end vanish so without being waited for.
    let _ = sys::signal::ignore(SIGCHLD);
    // Pipes and terminals are the program's.
    if go > 0 {
        // SAFETY: this process's own, of no use any more.
        let _ = unsafe { sys::fs::close_range(0, go as u32 - 1) };
    }
    // SAFETY: this process's own, of no use any more.
    let _ = unsafe { sys::fs::close_range(go as u32 + 1, u32::MAX) };
    // Ends when the program is there, or when the restart has ended without one.
    while sys::fs::read(go, &mut [0]) == Err(Errno::EINTR) {}
    if let Ok(program) = sys::process::pidfd(id.cast_signed(), 0) {
        while !sys::fs::wait_for_any([program.fd()], None).is_ok_and(|[ended]| ended) {}
    }
    sys::process::exit(0)
}
