//! POSIX timers: the same ids, clocks and receivers, and the time that is left.
//!
//! A timer that is set to a moment comes back with the time to it. Counts of missed expiries begin anew. Must never change a timer
//! to learn about it: its expiry may be on its way.

use image_format::NoteType;
use image_format::record::posix_timer::{PROCESS_CPU, PosixTimer, THREAD_CPU};
use sys::abi::signal::Siginfo;
use sys::abi::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_TAI, Itimerspec, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD_ID,
};
use sys::text::{cut, decimal, hex};
use sys::{Errno, Sysno};
use zerocopy::FromZeros;
use zerocopy::little_endian::{I32, U32};

use crate::inside::{Arg, Inside, Question};
use crate::target::status_value;
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

/// Timers that count the processor time of the thread that made them, in a process of several: which one that is, the kernel does
/// not tell. But while all threads stand still, time goes on for the one alone that makes the saver's calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owners {
    /// Who only looks from outside cannot know.
    unknown: bool,
    table: [Owned; 32],
    count: usize,
}

/// Such a timer.
#[derive(Clone, Copy, Debug, Default)]
struct Owned {
    id: u32,
    /// The thread that it tells, by the saver's id; 0 when it tells the process.
    tells: u32,
    /// Whose time it counts, once that is known.
    owner: u32,
}

impl Owners {
    /// Whose they are is not asked.
    #[must_use]
    pub fn unknown() -> Self {
        Self { unknown: true, ..Self::default() }
    }

    /// Finds these timers.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn find<T: Target>(target: &T) -> Result<Self> {
        let mut owners = Self::default();
        each(target.proc(), |timer, clock| {
            if clock == THREAD_CPU
                && let Some(place) = owners.table.get_mut(owners.count)
            {
                *place = Owned { id: timer.id.get(), tells: timer.tid.get(), owner: 0 };
                owners.count += 1;
            }
            Ok(())
        })?;
        Ok(owners)
    }

    /// Finds those of the thread that makes calls now: known to the saver as `here`, to itself as `own`. One that tells a thread is
    /// that thread's, or no thread's: else each would have to be asked about all.
    ///
    /// # Errors
    /// A timer cannot be read.
    pub fn ask(&mut self, inside: &mut impl Inside, here: u32, own: u32) -> Result<()> {
        let mine = |timer: &&mut Owned| timer.owner == 0 && (timer.tells == 0 || timer.tells == here);
        for timer in self.table.iter_mut().take(self.count).filter(mine) {
            let [_, before] = time_of(inside, timer.id)?;
            let [_, after] = time_of(inside, timer.id)?;
            if before != after {
                timer.owner = own;
            }
        }
        Ok(())
    }

    /// Whose time a timer counts; 0: not known.
    fn of(&self, id: u32) -> u32 {
        self.table.iter().take(self.count).find(|timer| timer.id == id).map_or(0, |timer| timer.owner)
    }
}

/// Reads them: all threads stand still, and the process's pending signals are not taken yet, so that an expiry is
/// found here or there (see [`save`]).
///
/// # Errors
/// A timer that cannot be carried; more than [`MAX`].
pub fn read<T: Target>(target: &mut T, owners: &Owners) -> Result<Timers> {
    let mut timers = Timers { table: [PosixTimer::new_zeroed(); MAX], count: 0 };
    each(target.proc(), |timer, clock| {
        let slot = timers.table.get_mut(timers.count).ok_or_else(|| {
            Error::refused(format_args!("POSIX timers"), "are more than 64", "delete some before the save")
        })?;
        *slot = PosixTimer { clock: clock.into(), ..*timer };
        timers.count += 1;
        Ok(())
    })?;
    // The kernel lists them as it hashes them.
    let used = timers.table.get_mut(..timers.count).unwrap_or_default();
    used.sort_unstable_by_key(|timer| timer.id.get());
    for timer in used {
        (timer.clock, timer.owner) = clock(target, timer, owners)?;
        timer.tid = (target.tid_there(timer.tid.get() as i32) as u32).into();
        let [interval, left] = time_of(target, timer.id.get())?;
        (timer.interval_nsec, timer.left_nsec) = (interval.into(), left.into());
    }
    Ok(timers)
}

/// Reads the kernel's list: each timer, but for its clock and its time, and the number by which the clock is listed.
fn each(proc: sys::fs::Fd, mut take: impl FnMut(&PosixTimer, i32) -> Result<()>) -> Result<()> {
    let failed = |e| Error::failed(format_args!("POSIX timers"), "/proc/PID/timers cannot be read", e);
    let unread = || failed(Errno::EIO);
    let mut buffer = [0; 512];
    let mut lines = match sys::fs::Lines::open_at(proc, c"timers", &mut buffer) {
        Ok(lines) => lines,
        // A kernel without CONFIG_CHECKPOINT_RESTORE or CONFIG_POSIX_TIMERS.
        Err(Errno::ENOENT) => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let mut timer = PosixTimer::new_zeroed();
    while let Some(line) = lines.next_line().map_err(failed)? {
        let Some((key, value)) = cut(line, b':') else { continue };
        let value = value.trim_ascii();
        match key {
            b"ID" => {
                timer = PosixTimer::new_zeroed();
                timer.id = (decimal(value).ok_or_else(unread)? as u32).into();
            }
            // `34/00007f…`: number and value.
            b"signal" => {
                let (signal, word) = cut(value, b'/').ok_or_else(unread)?;
                timer.signal = (decimal(signal).ok_or_else(unread)? as u32).into();
                timer.value = hex(word).ok_or_else(unread)?.into();
            }
            // `signal/tid.12`, `none/pid.12`.
            b"notify" => {
                let (how, whom) = cut(value, b'/').ok_or_else(unread)?;
                let tid = whom.strip_prefix(b"tid.").and_then(decimal);
                let notify = if how == b"none" { SIGEV_NONE } else { SIGEV_SIGNAL };
                timer.notify = (if tid.is_some() { SIGEV_THREAD_ID } else { notify }).into();
                timer.tid = (tid.unwrap_or(0) as u32).into();
            }
            // The last line of each.
            b"ClockID" => {
                let number = match value {
                    [b'-', digits @ ..] => decimal(digits).map(u64::wrapping_neg),
                    _ => decimal(value),
                };
                take(&timer, number.map_or(i32::MIN, |number| number as i32))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The clock that a timer counts, and whose it is, when it can be had again.
fn clock<T: Target>(target: &mut T, timer: &PosixTimer, owners: &Owners) -> Result<(I32, U32)> {
    let number = timer.clock.get();
    let refuse = |why| {
        let object = format_args!("POSIX timer {} (clock {number})", timer.id);
        Err(Error::refused(object, why, "delete it before the save (timer_delete)"))
    };
    let plain = [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI];
    // Clocks of processor time bear the id of whose they are, upside down.
    let (whose, kind) = (!(number >> 3), number & 7);
    match number {
        PROCESS_CPU => Ok((timer.clock, 0.into())),
        THREAD_CPU => {
            let mut count = [0; 16];
            let alone = matches!(status_value(target.proc(), c"status", b"Threads", &mut count), Ok(Some(b"1")));
            let owner = owners.of(timer.id.get());
            if !alone && owner == 0 && !owners.unknown {
                return refuse(if T::IN_PROCESS {
                    "counts the processor time of one of several threads, which only a save by PID can tell"
                } else {
                    "counts the processor time of one of several threads, and does not run, or tells another one: which is not known"
                });
            }
            Ok((timer.clock, owner.into()))
        }
        1.. if plain.contains(&(number as usize)) => Ok((timer.clock, 0.into())),
        0 => Ok((timer.clock, 0.into())),
        ..0 if kind == PROCESS_CPU & 7 && whose == target.pid() => Ok((PROCESS_CPU.into(), 0.into())),
        // Of other processes' threads it tells nothing.
        ..0 if kind == THREAD_CPU & 7
            && !matches!(time(number as usize).ask::<16>(target), Err(e) if e != Errno::ENOSYS) =>
        {
            Ok((THREAD_CPU.into(), (whose as u32).into()))
        }
        _ => refuse("counts a clock that cannot be carried"),
    }
}

/// Asks for the time of a clock.
fn time(number: usize) -> Question {
    // SAFETY: fills the structure.
    unsafe { Question::new(Sysno::clock_gettime, Arg::Value(number), Arg::Data(0), 16) }
}

/// A timer's period, and the time that is left.
fn time_of(inside: &mut impl Inside, id: u32) -> Result<[u64; 2]> {
    // SAFETY: fills the structure.
    let question = unsafe { Question::new(Sysno::timer_gettime, Arg::Value(id as usize), Arg::Data(0), 32) };
    let (_, data) =
        question.ask::<32>(inside).map_err(|e| Error::failed(format_args!("POSIX timer {id}"), "cannot be read", e))?;
    let mut words = data.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let mut nsec = || words.next().unwrap_or(0).wrapping_mul(1_000_000_000).wrapping_add(words.next().unwrap_or(0));
    Ok([nsec(), nsec()])
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

/// Makes one again under its id and starts it. `now`: a thread's id of now.
///
/// # Errors
/// The kernel's.
pub fn restore(timer: &PosixTimer, now: impl Fn(u32) -> u32) -> sys::Result<()> {
    let wanted = timer.id.get();
    let value = timer.value.get();
    let [tid, owner] = [timer.tid, timer.owner].map(|tid| now(tid.get()));
    // 0 is the clock of whoever makes it.
    let clock =
        if timer.clock.get() == THREAD_CPU { (!(owner as i32) << 3) | (THREAD_CPU & 7) } else { timer.clock.get() };
    sys::time::create_timer(clock, timer.signal.get(), timer.notify.get(), value, tid, wanted)?;
    let time =
        |nsec: u64| sys::abi::Timespec { sec: (nsec / 1_000_000_000) as i64, nsec: (nsec % 1_000_000_000) as i64 };
    let spec = Itimerspec { interval: time(timer.interval_nsec.get()), value: time(timer.left_nsec.get()) };
    sys::time::start_timer(wanted, &spec)
}
