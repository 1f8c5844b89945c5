//! Waiting for what a stopped thread does in a few microseconds. Where a CPU is idle this polls: to be woken takes longer.
//!
//! Must never poll for long: on a busy machine the thread may need this very CPU.

use core::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sys::ptrace::{self, Event};

/// How long to poll.
const SPIN: Duration = Duration::from_micros(100);

/// A CPU is idle.
static SPARE: AtomicBool = AtomicBool::new(false);

/// Finds out whether another CPU is idle, for the stops that come.
pub fn prepare() {
    let mut text = [0; 64];
    let load = sys::fs::read_file_at(sys::abi::AT_FDCWD, c"/proc/loadavg", &mut text).unwrap_or_default();
    // Three averages; how many threads want to run, we among them, of how many.
    let running = sys::text::words(load).nth(3).and_then(|n| sys::text::cut(n, b'/')).map(|(running, _)| running);
    let spare = running.and_then(sys::text::decimal).is_some_and(|running| running < sys::thread::cpus() as u64);
    SPARE.store(spare, Ordering::Relaxed);
}

/// Keeps a process that no process waits for away from this CPU, where its work would delay the save.
pub fn keep_off(tid: i32) {
    if !SPARE.load(Ordering::Relaxed) {
        return;
    }
    let (Ok(here), Ok(mut cpus)) = (sys::sched::cpu(), sys::sched::affinity(tid)) else { return };
    if let Some(word) = cpus.get_mut(here / 64) {
        *word &= !(1 << (here % 64));
    }
    if cpus.iter().any(|word| *word != 0) {
        let _ = sys::sched::set_affinity_of(tid, &cpus);
    }
}

/// Waits for the next stop of a thread, or its end.
///
/// # Errors
/// ECHILD: it is not ours, or gone.
pub fn wait(tid: i32) -> sys::Result<Option<Event>> {
    let start = Instant::now();
    while SPARE.load(Ordering::Relaxed) && start.elapsed() < SPIN {
        if let Some(event) = ptrace::wait(tid, false)? {
            return Ok(Some(event));
        }
        std::hint::spin_loop();
    }
    ptrace::wait(tid, true)
}

/// Ends a process that is traced, also a copy that nobody has taken over yet.
pub fn end(pid: i32) {
    let _ = sys::process::kill(pid, sys::abi::signal::SIGKILL);
    while matches!(ptrace::wait(pid, true), Ok(Some(Event::Stopped(..)))) {}
}
