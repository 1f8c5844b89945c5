//! Processes of a tree that were stopped: each is stopped again before any other goes on, and its parent hears of that what it had heard.
//!
//! One at a time, as its parent asks for it: so the one signal that the kernel sends for it can be waited for and taken away.

use core::sync::atomic::Ordering;

use image_format::record::process::STOPPED;
use sys::abi::signal::{SIGCHLD, SIGKILL, Sigaction};
use sys::signal::{bit, queue, set_action, take_pending};
use sys::{Errno, child};

use super::{LOOK, Meeting, Tree, page};

/// In [`Meeting::stopped`]: it is to stop.
pub const STOP: u32 = 1 << 16;

/// Has the children that were stopped stop, and hears of it as this process had. Its own signals wait by now.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn await_all(tree: &Tree) {
    if tree.meeting == 0 {
        return;
    }
    let Meeting { pids, parents, stopped, .. } = page(tree.meeting);
    let (own, chld) = (sys::process::pid(), bit(SIGCHLD));
    let is_own = |place: &usize| {
        let of = |all: &[core::sync::atomic::AtomicU32]| all.get(*place).map_or(0, |one| one.load(Ordering::Relaxed));
        of(parents) == own as u32 && of(stopped) != 0
    };
    let mut all = (0..pids.len()).filter(is_own).peekable();
    if all.peek().is_none() {
        return;
    }
    // What has waited since the save would take others in.
    let waits = take_pending(chld);
    let action = sys::signal::action(SIGCHLD);
    // SAFETY: no code is run: the signal is blocked, and this is its default.
    let _ = unsafe { set_action(SIGCHLD, &Sigaction::default()) };
    for place in all {
        let (Some(pid), Some(stopped)) = (pids.get(place), stopped.get(place)) else { continue };
        let told = stopped.swap(STOP, Ordering::AcqRel) == STOPPED;
        sys::thread::wake(stopped);
        // The kernel sends its signal when the stop can be seen already.
        if child::await_stop(pid.load(Ordering::Relaxed), told) {
            while sys::signal::await_pending(chld) == Err(Errno::EINTR) {}
        }
    }
    if let Ok(action) = action {
        // SAFETY: the program's own, for when it runs.
        let _ = unsafe { set_action(SIGCHLD, &action) };
    }
    if let Ok(info) = waits {
        let _ = queue(own, SIGCHLD, &info);
    }
}

/// Waits until the parent of this process, which was stopped, asks for that: all it has left to do is to stop.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn await_own(tree: &Tree) {
    if tree.place == 0 {
        return;
    }
    let Meeting { failed, stopped, .. } = page(tree.meeting);
    let Some(own) = stopped.get(tree.place as usize) else { return };
    loop {
        let known = own.load(Ordering::Acquire);
        if known == STOP {
            return;
        }
        let in_vain = sys::thread::wait(own, known, Some(LOOK)) == Err(Errno::ETIMEDOUT);
        let failed = failed.load(Ordering::Acquire);
        if failed != 0 || in_vain && child::parent() as u32 != tree.parent {
            sys::process::exit(failed as i32);
        }
    }
}

/// This process does not come: those of its children that stand already will not hear of that.
pub(super) fn end_all(all: &Meeting) {
    let own = sys::process::pid() as u32;
    let places = all.pids.iter().zip(&all.parents).zip(&all.stopped);
    for ((pid, parent), stopped) in places {
        if parent.load(Ordering::Relaxed) == own && stopped.load(Ordering::Relaxed) == STOP {
            let _ = sys::process::kill(pid.load(Ordering::Relaxed) as i32, SIGKILL);
        }
    }
}
