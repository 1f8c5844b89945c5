//! Namespaces in which a program has its old ids and its clocks go on: user (unless this command may do without), pid,
//! time, and a mount namespace whose only difference is `/proc`.
//!
//! This process itself enters the user namespace alone, so that it stays the program's parent and sees it by pids of
//! outside. PID 1 inside is a process of ours that takes in orphans and ends with the program, which ends all others.
//! Must never hide a file of the program's: the mounts are the same, and follow those outside.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use image_format::ExitCode;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, PidfdFlags, Signal, getegid, geteuid, pidfd_open, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, configure_capability_in_ambient_set, set_capabilities, unshare_unsafe,
};
use sys::abi::signal::{SIG_IGN, SIGCHLD, Sigaction};

use super::birth::pipe;
use super::clocks::Clocks;
use crate::failure::{Failure, errno, reason};

/// Namespaces that the next children are born into.
#[derive(Debug)]
pub struct Namespace {
    /// Closed when the program is there: then PID 1 may look for it.
    start: Option<OwnedFd>,
    /// PID 1, unless the program is.
    init: Option<Pid>,
    /// Whether it is a user namespace too, where rights end with an exec.
    user: bool,
}

impl Namespace {
    /// Makes the namespaces for a program that has this id inside. `dies_with_us`: all inside is killed with this command.
    pub fn make(id: i32, clocks: Clocks, dies_with_us: bool) -> Result<Self, Failure> {
        let user = enter(UnshareFlags::NEWPID | UnshareFlags::NEWTIME)?;
        clocks.set()?;
        let (go, start) = pipe()?;
        let mut namespace = Self { start: None, init: None, user };
        if id != 1 {
            // SAFETY: this command has one thread; the child makes system calls only.
            let init =
                unsafe { sys::child::fork(None) }.map_err(|e| errno("PID 1 of a namespace: cannot be made", e))?;
            if init == 0 {
                drop(start);
                init_main(id, go, dies_with_us);
            }
            namespace.init = Pid::from_raw(init);
            namespace.start = Some(start);
        }
        Ok(namespace)
    }

    /// In the program's process, before its exec: an own `/proc`, and the right to choose its threads' ids.
    pub fn furnish(&self) -> Result<(), Failure> {
        // SAFETY: no descriptor table is unshared.
        if unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.is_ok() {
            let _ = mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC);
            // Where parts of /proc are covered (a container) another one is not allowed: that of outside stays, in which
            // /proc/self is right all the same.
            let _ = mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None);
        }
        if self.user && !geteuid().is_root() {
            keep_right().map_err(|e| errno("capability CHECKPOINT_RESTORE: cannot be kept", e))?;
        }
        Ok(())
    }

    /// The program is there: PID 1 lives as long as it does.
    pub fn program_started(&mut self) {
        self.start = None;
    }

    /// PID 1, when it is a process of ours.
    pub fn init(&self) -> Option<Pid> {
        self.init
    }
}

/// Makes these namespaces, in a user namespace where this process may not do without; tells whether that was so. Ids stay what they are.
pub fn enter(wanted: UnshareFlags) -> Result<bool, Failure> {
    become_alone();
    // SAFETY: no descriptor table is unshared, and this command has one thread.
    if unsafe { unshare_unsafe(wanted) }.is_ok() {
        return Ok(false);
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    // SAFETY: as above.
    unsafe { unshare_unsafe(wanted | UnshareFlags::NEWUSER) }.map_err(|e| refused(&reason(&e.into())))?;
    set("/proc/self/setgroups", "deny")?;
    set("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
    set("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
    Ok(true)
}

/// Waits until threads that were joined are gone for the kernel, too, which makes a user namespace for a single thread alone.
fn become_alone() {
    const LONGEST: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let threads = || fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    while threads() > 1 && start.elapsed() < LONGEST {
        std::thread::yield_now();
    }
}

/// Rights of a user namespace end with the exec of a user who is not root there, but for ambient ones.
fn keep_right() -> rustix::io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.inheritable |= CapabilitySet::CHECKPOINT_RESTORE;
    set_capabilities(None, sets)?;
    configure_capability_in_ambient_set(CapabilitySet::CHECKPOINT_RESTORE, true)
}

fn refused(why: &str) -> Failure {
    let remedy = "allow them (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                  kernel.apparmor_restrict_unprivileged_userns), or restart with --pid new";
    Failure::new(ExitCode::Kernel, format_args!("user, pid and time namespaces: cannot be made: {why}: {remedy}"))
}

/// Writes a value into a file of `/proc/self` that describes a namespace.
pub fn set(path: &str, value: &str) -> Result<(), Failure> {
    fs::write(path, value).map_err(|e| refused(&format!("{path}: {}", reason(&e))))
}

/// PID 1 of the namespace: ends when the program of this id does, or when there will be none.
fn init_main(id: i32, go: OwnedFd, dies_with_us: bool) -> ! {
    if dies_with_us {
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
    // What the terminal or a group's signals do is not its affair.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    sys::thread::set_name(b"ckpt-init\0\0\0\0\0\0\0");
    let ignore = Sigaction { handler: SIG_IGN, ..Sigaction::default() };
    // SAFETY: to ignore is no code; orphans that end vanish so without being waited for.
    let _ = unsafe { sys::signal::set_action(SIGCHLD, &ignore) };
    let go = keep_only(go);
    let mut byte = [0];
    // Ends when the program is there, or when this command has ended without starting one.
    let _ = File::from(go).read(&mut byte);
    if let Some(program) = Pid::from_raw(id).and_then(|id| pidfd_open(id, PidfdFlags::empty()).ok()) {
        let mut ended = [PollFd::new(&program, PollFlags::IN)];
        while !matches!(poll(&mut ended, None), Ok(1..)) {}
    }
    sys::process::exit(0)
}

/// Closes all descriptors but one: pipes and terminals are the program's.
fn keep_only(fd: OwnedFd) -> OwnedFd {
    use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
    let number = fd.as_raw_fd();
    let _ = sys::fs::dup_to(number, 0, true);
    if number != 0 {
        let _ = fd.into_raw_fd();
    }
    let _ = sys::fs::close_range(1, u32::MAX);
    // SAFETY: just made, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// A line for `-v`.
pub fn describe(namespace: &Namespace) -> &'static str {
    if namespace.user { "user, pid, time and mount namespaces" } else { "pid, time and mount namespaces" }
}
