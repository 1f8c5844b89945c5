//! Pending signals: taken off their queues, copied, put back.
//!
//! Inside a process the kernel shows no queue; a signal's details can only be had by taking it. Whoever takes
//! must give back, in the same order: [`take_own`] and [`take_shared`] are undone by [`give_own`] and
//! [`give_shared`].

use image_format::NoteType;
use image_format::record::pending::Pending;
use sys::Errno;
use sys::abi::signal::{SI_QUEUE, SI_TKILL, SI_USER, SIGKILL, SIGSTOP, Siginfo};
use sys::fs::Fd;
use sys::signal::bit;
use sys::text::Text;

use crate::target::status_value;
use crate::{Result, Save, Target};

/// Signals that cannot be taken.
const FIXED: u64 = bit(SIGKILL) | bit(SIGSTOP);

fn mask(proc: Fd, tid: i32, key: &[u8]) -> sys::Result<u64> {
    let file = Text::<48>::of(format_args!("task/{tid}/status"));
    let mut buffer = [0; 32];
    let value = status_value(proc, file.as_c_str(), key, &mut buffer)?;
    value.and_then(sys::text::hex).map(|m| m & !FIXED).ok_or(Errno::ENOENT)
}

fn take(proc: Fd, tid: i32, key: &[u8], into: &mut [Siginfo]) -> sys::Result<usize> {
    let mut count = 0;
    loop {
        let set = mask(proc, tid, key)?;
        if set == 0 {
            return Ok(count);
        }
        let slot = into.get_mut(count).ok_or(Errno::EOVERFLOW)?;
        // One signal at a time: the kernel serves the thread's own queue first, so that as long as its mask
        // shows this signal, it is the thread's own that comes.
        *slot = sys::signal::take_pending(1 << set.trailing_zeros())?;
        count += 1;
    }
}

/// Takes the signals that wait for this very thread alone, all of which it blocks; returns how many.
///
/// # Errors
/// EOVERFLOW: more than `into` holds; then those that were taken are in it.
pub fn take_own(proc: Fd, tid: i32, into: &mut [Siginfo]) -> sys::Result<usize> {
    take(proc, tid, b"SigPnd", into)
}

/// Takes the signals that wait for the process. This thread has none of its own, see [`take_own`].
///
/// # Errors
/// As for [`take_own`].
pub fn take_shared(proc: Fd, tid: i32, into: &mut [Siginfo]) -> sys::Result<usize> {
    take(proc, tid, b"ShdPnd", into)
}

/// Puts signals back on this thread's own queue.
pub fn give_own(pid: i32, tid: i32, signals: &[Siginfo]) {
    for info in signals.iter().filter(|i| i.signo != 0) {
        // The only way to fail is a full queue, and these came off it.
        let _ = sys::signal::queue_thread(pid, tid, info.signo, info);
    }
}

/// Puts signals back on the process's queue. Only the first thread may do this (`si_code` is kept).
pub fn give_shared(pid: i32, signals: &[Siginfo]) {
    for info in signals.iter().filter(|i| i.signo != 0) {
        let _ = sys::signal::queue(pid, info.signo, info);
    }
}

/// Writes the table. `queues` yields a thread's id (0 for the process) and its signals.
///
/// # Errors
/// No room.
pub fn save<'i, T: Target>(
    save: &mut Save<'_, '_, T>,
    queues: impl Iterator<Item = (i32, &'i [Siginfo])>,
) -> Result<()> {
    save.notes.begin(NoteType::Pending)?;
    for (tid, signals) in queues {
        for info in signals.iter().filter(|i| i.signo != 0) {
            save.notes.push(&Pending { tid: (tid as u32).into(), reserved: 0.into(), siginfo: bytes(info) })?;
        }
    }
    save.notes.end()?;
    Ok(())
}

fn bytes(info: &Siginfo) -> [u8; 128] {
    // SAFETY: the structure is 128 bytes of plain numbers without padding (its size is pinned).
    unsafe { core::mem::transmute(*info) }
}

/// Queues one signal again, on the thread that runs this; with `tid` 0 in the record it must be the first thread.
/// `old_pid` is the process's id of before.
///
/// # Errors
/// The kernel's; EAGAIN when the limit of queued signals is reached.
pub fn restore(pending: &Pending, old_pid: u32) -> sys::Result<()> {
    // SAFETY: any 128 bytes are a valid siginfo of plain numbers.
    let mut info: Siginfo = unsafe { core::mem::transmute(pending.siginfo) };
    let pid = sys::process::pid();
    // What the process sent to itself still comes from itself: libcs ignore their own signals from elsewhere.
    if matches!(info.code, SI_USER | SI_QUEUE | SI_TKILL) && info.pid as u32 == old_pid {
        info.pid = pid;
    }
    if pending.tid.get() == 0 {
        sys::signal::queue(pid, info.signo, &info)
    } else {
        sys::signal::queue_thread(pid, sys::thread::tid(), info.signo, &info)
    }
}
