//! POSIX timers: the same ids, clocks and receivers, and the time that is left.
//!
//! A timer that is set to a moment comes back with the time to it. Counts of missed expiries begin anew.

use image_format::NoteType;
use image_format::record::posix_timer::{PROCESS_CPU, PosixTimer, THREAD_CPU};
use sys::abi::signal::Siginfo;
use sys::abi::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, Itimerspec, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD_ID,
};
use sys::text::{Shown, Text, cut, decimal, hex};
use sys::{Errno, Sysno};
use zerocopy::FromZeros;

use crate::target::{Arg, inner_id, status_value};
use crate::{Error, Result, Save, Target};

/// Most timers that are carried.
pub const MAX: usize = 64;

/// `si_code` of a timer's signal.
const SI_TIMER: i32 = -2;

/// The timers of a process.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    table: [PosixTimer; MAX],
    count: usize,
}

/// Reads them: all threads stand still, and the process's pending signals are not taken yet, so that an expiry is
/// found here or there (see [`save`]).
///
/// # Errors
/// A timer that cannot be carried; more than [`MAX`].
pub fn read<T: Target>(target: &mut T) -> Result<Timers> {
    let mut timers = Timers { table: [PosixTimer::new_zeroed(); MAX], count: 0 };
    let failed = |e| Error::failed(format_args!("POSIX timers"), "/proc/PID/timers cannot be read", e);
    let mut buffer = [0; 512];
    let mut lines = match sys::fs::Lines::open_at(target.proc(), c"timers", &mut buffer) {
        Ok(lines) => lines,
        // A kernel without CONFIG_CHECKPOINT_RESTORE or CONFIG_POSIX_TIMERS.
        Err(Errno::ENOENT) => return Ok(timers),
        Err(e) => return Err(failed(e)),
    };
    let mut timer = PosixTimer::new_zeroed();
    while let Some(line) = lines.next_line().map_err(failed)? {
        let Some((key, value)) = cut(line, b':') else { continue };
        let value = value.trim_ascii();
        match key {
            b"ID" => {
                timer = PosixTimer::new_zeroed();
                timer.id = (decimal(value).unwrap_or(0) as u32).into();
            }
            // `34/00007f…`: number and value.
            b"signal" => {
                let (signal, word) = cut(value, b'/').unwrap_or_default();
                timer.signal = (decimal(signal).unwrap_or(0) as u32).into();
                timer.value = hex(word).unwrap_or(0).into();
            }
            // `signal/tid.12`, `none/pid.12`.
            b"notify" => {
                let (how, whom) = cut(value, b'/').unwrap_or_default();
                let tid = whom.strip_prefix(b"tid.").and_then(decimal);
                let notify = if how == b"none" { SIGEV_NONE } else { SIGEV_SIGNAL };
                timer.notify = (if tid.is_some() { SIGEV_THREAD_ID } else { notify }).into();
                // It is told as the saver sees it, and the thread may live in a namespace.
                let status = Text::<48>::of(format_args!("task/{}/status", tid.unwrap_or(0)));
                let inner = tid.and_then(|_| inner_id(target.proc(), status.as_c_str()));
                timer.tid = inner.map_or(tid.unwrap_or(0) as u32, i32::cast_unsigned).into();
            }
            // The last line of each.
            b"ClockID" => {
                timer.clock = clock(target, value)
                    .ok_or_else(|| {
                        Error::refused(
                            format_args!("POSIX timer {} (clock {})", timer.id, Shown(value)),
                            "counts a clock that cannot be carried",
                            "delete it before the save (timer_delete)",
                        )
                    })?
                    .into();
                let slot = timers.table.get_mut(timers.count).ok_or_else(|| {
                    Error::refused(format_args!("POSIX timers"), "are more than 64", "delete some before the save")
                })?;
                *slot = timer;
                timers.count += 1;
            }
            _ => {}
        }
    }
    // The kernel lists them as it hashes them.
    let used = timers.table.get_mut(..timers.count).unwrap_or_default();
    used.sort_unstable_by_key(|timer| timer.id.get());
    for timer in used {
        read_time(target, timer)?;
    }
    Ok(timers)
}

/// The clock of this number in the kernel's list, when it can be had again. Whose processor time a thread's own clock counts the
/// kernel does not tell: there must be one thread alone.
fn clock<T: Target>(target: &T, text: &[u8]) -> Option<i32> {
    let number = match text {
        [b'-', digits @ ..] => -i32::try_from(decimal(digits)?).ok()?,
        _ => i32::try_from(decimal(text)?).ok()?,
    };
    let mut count = [0; 16];
    let mut alone = || matches!(status_value(target.proc(), c"status", b"Threads", &mut count), Ok(Some(b"1")));
    match number {
        PROCESS_CPU => Some(number),
        THREAD_CPU if alone() => Some(number),
        _ => [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME].contains(&(number as usize)).then_some(number),
    }
}

fn read_time<T: Target>(target: &mut T, timer: &mut PosixTimer) -> Result<()> {
    let mut data = [0; 32];
    let zero = Arg::Value(0);
    let id = timer.id.get();
    target
        .call(Sysno::timer_gettime, [Arg::Value(id as usize), Arg::Data(0), zero, zero, zero, zero], &mut data)
        .map_err(|e| Error::failed(format_args!("POSIX timer {id}"), "cannot be read", e))?;
    let mut words = data.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()));
    let mut nsec = || words.next().unwrap_or(0).wrapping_mul(1_000_000_000).wrapping_add(words.next().unwrap_or(0));
    timer.interval_nsec = nsec().into();
    timer.left_nsec = nsec().into();
    Ok(())
}

/// Writes the table. A single-shot timer whose signal was taken after [`read`] has expired in between: it does not
/// expire again.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, timers: &Timers, shared_pending: &[Siginfo]) -> Result<()> {
    save.notes.begin(NoteType::PosixTimer)?;
    for timer in timers.table.iter().take(timers.count) {
        let mut timer = *timer;
        // `si_tid` of a timer's signal, its id, lies where others have the pid.
        let fired = |i: &Siginfo| i.code == SI_TIMER && i.pid as u32 == timer.id.get();
        if timer.interval_nsec.get() == 0 && shared_pending.iter().any(fired) {
            timer.left_nsec = 0.into();
        }
        save.notes.push(&timer)?;
    }
    save.notes.end()?;
    Ok(())
}

/// Makes one again under its id and starts it. `tid`: the thread to tell, by its id of now.
///
/// # Errors
/// The kernel's.
pub fn restore(timer: &PosixTimer, tid: u32) -> sys::Result<()> {
    let wanted = timer.id.get();
    let value = timer.value.get();
    sys::time::create_timer(timer.clock.get(), timer.signal.get(), timer.notify.get(), value, tid, wanted)?;
    let time =
        |nsec: u64| sys::abi::Timespec { sec: (nsec / 1_000_000_000) as i64, nsec: (nsec % 1_000_000_000) as i64 };
    let spec = Itimerspec { interval: time(timer.interval_nsec.get()), value: time(timer.left_nsec.get()) };
    sys::time::start_timer(wanted, &spec)
}
