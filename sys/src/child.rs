//! Child processes: made by clone(2), or by clone3(2) under a chosen id, waited for, asked about by signals.
//!
//! For programs with one thread that supervise others, and for the restart of trees. Must never be used by a process that has other threads: what
//! they hold at that moment stays held in the child for ever.

use crate::abi::CloneArgs;
use crate::abi::signal::{NSIG, SIG_IGN, SIGCHLD, SignalfdInfo};
use crate::fs::Owned;
use crate::{Errno, Result, Sysno, abi, call};

/// What happened to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended with this status.
    Exited(u8),
    /// It was ended by this signal.
    Killed(i32),
    /// It was stopped by this signal.
    Stopped(i32),
    /// It goes on after a stop.
    Continued,
}

/// How a child is made.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// The process id that it is to have, in its own pid namespace.
    pub id: Option<u32>,
    /// What its parent gets at its end; 0 for nothing.
    pub exit_signal: u32,
    /// Its parent is this process's parent (`CLONE_PARENT`), and gets this process's own exit signal.
    pub sibling: bool,
}

impl Default for Birth {
    fn default() -> Self {
        Self { id: None, exit_signal: SIGCHLD as u32, sibling: false }
    }
}

/// A copy of this process; 0 in the child. `id` asks for a process id, the child's in its own pid namespace.
///
/// # Errors
/// As for [`fork_as`].
///
/// # Safety
/// As for [`fork_as`].
pub unsafe fn fork(id: Option<i32>) -> Result<i32> {
    // SAFETY: the caller vouches.
    unsafe { fork_as(&Birth { id: id.map(|id| id as u32), ..Birth::default() }) }
}

/// A copy of this process; 0 in the child.
///
/// # Errors
/// EPERM: an id may not be asked for; EEXIST: it is taken; EINVAL: it is too large, or there is no PID 1; ENOSYS and E2BIG before Linux 5.5;
/// and those of clone(2).
///
/// # Safety
/// This process has one thread, or the child makes system calls alone; and the child relies on nothing that the C library keeps about its own id.
pub unsafe fn fork_as(birth: &Birth) -> Result<i32> {
    /// `CLONE_PARENT`.
    const PARENT: usize = 0x8000;
    let flags = if birth.sibling { PARENT } else { 0 };
    let exit_signal = if birth.sibling { 0 } else { birth.exit_signal };
    let made = match &birth.id {
        // Containers' filters forbid the newer call.
        // SAFETY: no new stack, so that the child has a copy of this one, and of all memory.
        None => unsafe { call(Sysno::clone, [flags | exit_signal as usize, 0, 0, 0, 0, 0]) }?,
        Some(id) => {
            let mut args = CloneArgs { exit_signal: exit_signal.into(), flags: flags as u64, ..CloneArgs::default() };
            (args.set_tid, args.set_tid_size) = ((&raw const *id) as u64, 1);
            // SAFETY: the kernel reads `args` and the id; the child has a copy of all memory, this stack too.
            unsafe { call(Sysno::clone3, [(&raw const args) as usize, size_of::<CloneArgs>(), 0, 0, 0, 0]) }?
        }
    };
    i32::try_from(made).map_err(|_| Errno::EINVAL)
}

/// waitid(2) for a child by its id: whether it has changed in one of these ways, at once or once it has.
fn changed(pid: u32, options: usize) -> bool {
    // `siginfo_t` begins with the number of the signal.
    let mut info = [0u32; 32];
    let (to, options) = ((&raw mut info) as usize, options | abi::WALL);
    // SAFETY: the kernel writes the details.
    let done = unsafe { call(Sysno::waitid, [abi::P_PID, pid as usize, to, options, 0, 0]) };
    done.is_ok() && info.first() != Some(&0)
}

/// Whether a child has ended: waits for that with `block`, and leaves it to be waited for.
#[must_use]
pub fn has_ended(pid: u32, block: bool) -> bool {
    changed(pid, abi::WEXITED | abi::WNOWAIT | if block { 0 } else { abi::WNOHANG })
}

/// Waits until a signal has stopped a child; false: it has ended. `told`: a later wait tells nothing of the stop.
#[must_use]
pub fn await_stop(pid: u32, told: bool) -> bool {
    let _ = changed(pid, abi::WSTOPPED | abi::WEXITED | abi::WNOWAIT);
    changed(pid, abi::WSTOPPED | abi::WNOHANG | if told { 0 } else { abi::WNOWAIT })
}

/// Takes a child that has ended away.
pub fn reap(pid: u32) {
    // SAFETY: no address is given.
    let _ = unsafe { call(Sysno::wait4, [pid as usize, 0, 0x4000_0000, 0, 0, 0]) };
}

/// setsid(2).
///
/// # Errors
/// EPERM: it leads a process group.
pub fn new_session() -> Result<()> {
    // SAFETY: no address is given.
    unsafe { call(Sysno::setsid, []) }.map(drop)
}

/// setpgid(2) of this process; 0 for a group of its own.
///
/// # Errors
/// The call's.
pub fn join_group(group: u32) -> Result<()> {
    set_group(0, group)
}

/// setpgid(2) of a child, also of one that has ended.
///
/// # Errors
/// The call's.
pub fn set_group(child: u32, group: u32) -> Result<()> {
    // SAFETY: no address is given.
    unsafe { call(Sysno::setpgid, [child as usize, group as usize]) }.map(drop)
}

/// getppid(2).
#[must_use]
pub fn parent() -> i32 {
    // SAFETY: no address is given.
    unsafe { call(Sysno::getppid, []) }.map_or(0, |pid| pid as i32)
}

/// A child that shares this process's descriptors and waits for its end: then it calls `last` and ends, too. No signal reaches
/// it but SIGKILL, by which it is to be dismissed; its end makes none.
///
/// ```compile_fail
/// #![forbid(unsafe_code)]
/// let _ = sys::child::guard(|| println!("a lock that another thread held stays held"));
/// ```
///
/// # Errors
/// clone(2)'s.
///
/// # Safety
/// `last` makes system calls alone: it runs in a copy of this memory, in which what other threads were in the middle of stays so for ever.
pub unsafe fn guard(last: impl FnOnce()) -> Result<i32> {
    /// `PR_SET_PDEATHSIG`.
    const PARENTS_END: usize = 1;
    let parent = crate::process::pid();
    // All is blocked before there is a child that a signal could end.
    let mask = crate::signal::set_mask(crate::signal::ALL)?;
    // SAFETY: a copy of this stack and of all memory, and the caller vouches for what the child does last.
    let made = unsafe { call(Sysno::clone, [crate::abi::CLONE_FILES, 0, 0, 0, 0, 0]) };
    if made == Ok(0) {
        // SAFETY: asks for a signal.
        let asked = unsafe { call(Sysno::prctl, [PARENTS_END, SIGCHLD as usize, 0, 0, 0, 0]) }.is_ok();
        let set = crate::signal::bit(SIGCHLD);
        // The signal also comes at the end of the thread that has made this child.
        while asked && self::parent() == parent {
            // SAFETY: the kernel reads the set, and waits until the signal comes.
            let _ = unsafe { call(Sysno::rt_sigtimedwait, [(&raw const set) as usize, 0, 0, 8, 0, 0]) };
        }
        last();
        crate::process::exit(0);
    }
    crate::signal::set_mask(mask)?;
    made.map(|pid| pid as i32)
}

/// The next change of any child (of any kind: `__WALL`), if there is one; waits for one with `block`.
///
/// # Errors
/// ECHILD: there is no child; EINTR.
pub fn wait(pid: i32, block: bool) -> Result<Option<(i32, Change)>> {
    /// `WUNTRACED | WCONTINUED | __WALL`.
    const OPTIONS: usize = 2 | 8 | 0x4000_0000;
    let mut status = 0u32;
    let options = OPTIONS | usize::from(!block);
    // SAFETY: the kernel writes the status.
    let pid = unsafe { call(Sysno::wait4, [pid as usize, (&raw mut status) as usize, options, 0, 0, 0]) }?;
    let change = match (status & 0x7f, status >> 8 & 0xff) {
        (0, code) => Change::Exited(code as u8),
        (0x7f, _) if status == 0xffff => Change::Continued,
        (0x7f, signal) => Change::Stopped(signal as i32),
        (signal, _) => Change::Killed(signal as i32),
    };
    Ok(i32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| (pid, change)))
}

/// signalfd(2), close-on-exec, never blocking: [`next_signal`] takes signals of `mask` out of it.
///
/// # Errors
/// The call's.
pub fn signal_descriptor(mask: u64) -> Result<Owned> {
    /// `SFD_CLOEXEC | SFD_NONBLOCK`.
    const FLAGS: usize = 0o2_000_000 | 0o4000;
    let args = [-1isize as usize, (&raw const mask) as usize, size_of::<u64>(), FLAGS, 0, 0];
    // SAFETY: the kernel reads the mask.
    let fd = unsafe { call(Sysno::signalfd4, args) }?;
    Ok(Owned::own(i32::try_from(fd).map_err(|_| Errno::EIO)?))
}

/// The signals that this process ignores: a mask.
#[must_use]
pub fn ignored() -> u64 {
    let is_ignored = |signal: &i32| crate::signal::action(*signal).is_ok_and(|action| action.handler == SIG_IGN);
    (1..=NSIG).filter(is_ignored).fold(0, |mask, signal| mask | crate::signal::bit(signal))
}

/// Takes the next signal out of a descriptor of [`signal_descriptor`].
#[must_use]
pub fn next_signal(from: &Owned) -> Option<SignalfdInfo> {
    let mut info = SignalfdInfo::default();
    let to = (&raw mut info) as usize;
    // SAFETY: the kernel writes whole records of this size only.
    let got = unsafe { call(Sysno::read, [from.fd() as usize, to, size_of::<SignalfdInfo>(), 0, 0, 0]) };
    (got == Ok(size_of::<SignalfdInfo>())).then_some(info)
}
