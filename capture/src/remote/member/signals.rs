//! Signals that wait while a process stands still, the timers that make some of them, and what they do to the calls in which threads stand.
//!
//! Must never take a signal away but the one that is withheld.

use std::vec::Vec;

use state::itimer::Timers as Interval;
use state::posix_timer::{Owners, Timers as Posix};
use state::{Inside, Result};
use sys::Sysno;
use sys::abi::signal::{NSIG, SA_RESTART, Siginfo};
use sys::signal::bit;

use super::{All, One};
use crate::remote::resume::{self, Waiting};
use crate::remote::target::Remote;
use crate::remote::thread::{self, Registers};

/// How many signals wait, for the process and for each thread.
pub(super) fn count_signals(pid: i32, first: &Registers, others: &[One]) -> Result<usize> {
    if core::iter::once(first).chain(others.iter().map(|one| &one.registers)).all(|one| one.status.waiting == 0) {
        return Ok(0);
    }
    let mut count = thread::pending(pid, true)?.len() + thread::pending(pid, false)?.len();
    for one in others {
        count += thread::pending(one.registers.tid, false)?.len();
    }
    Ok(count)
}

/// Signals that wait, for each thread and for the process, and the timers that make some of them: read until nothing has come
/// in between, so that what expires meanwhile is found here or there, and nowhere twice. `before`: how many waited before the
/// timers were asked for.
pub(super) fn waiting_signals(
    remote: &mut Remote,
    all: &mut All,
    owners: &Owners,
    mut before: usize,
) -> Result<(Vec<Siginfo>, Interval, Posix)> {
    let pid = remote.outer();
    loop {
        let timers = (state::itimer::read(remote)?, state::posix_timer::read(remote, owners)?);
        let mut shared = thread::pending(pid, true)?;
        let mut count = shared.len();
        for one in core::iter::once(&mut all.first).chain(&mut all.others) {
            one.pending = thread::pending(one.registers.tid, false)?;
            count += one.pending.len();
        }
        if count == before {
            remote.withhold(&mut shared);
            for one in core::iter::once(&mut all.first).chain(&mut all.others) {
                remote.withhold(&mut one.pending);
            }
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
        let args = [number, zero, state::Arg::Data(0), size, zero, zero];
        // SAFETY: without a new action it fills the structure.
        let asked = unsafe { remote.call(Sysno::rt_sigaction, args, &mut data) };
        let [_, flags, ..] = data.as_chunks::<8>().0 else { continue };
        if asked.is_ok() && u64::from_le_bytes(*flags) & SA_RESTART == 0 {
            return Waiting::Interrupts;
        }
        waiting = Waiting::Restarts;
    }
    waiting
}
