//! Interval timers of setitimer(2).

use image_format::NoteType;
use image_format::record::itimer::Itimer;
use sys::Sysno;
use sys::abi::{Itimerval, Timeval};

use crate::inside::{Arg, Inside, Question};
use crate::{Error, Result, Save, Target};

/// The three timers: time to the next expiry and period, microseconds.
pub type Timers = [(u64, u64); 3];

/// The calls that read them.
pub const QUESTIONS: [Question; 3] = [of(0), of(1), of(2)];

const fn of(which: usize) -> Question {
    // SAFETY: fills the structure.
    unsafe { Question::new(Sysno::getitimer, Arg::Value(which), Arg::Data(0), size_of::<Itimerval>()) }
}

/// Reads them.
///
/// # Errors
/// They cannot be read.
pub fn read(inside: &mut impl Inside) -> Result<Timers> {
    let mut timers = [(0, 0); 3];
    for (which, (timer, question)) in timers.iter_mut().zip(QUESTIONS).enumerate() {
        let (_, data) = question
            .ask::<{ size_of::<Itimerval>() }>(inside)
            .map_err(|e| Error::failed(format_args!("interval timer {which}"), "cannot be read", e))?;
        let mut words = data.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()));
        let mut usec = || words.next().unwrap_or(0).wrapping_mul(1_000_000).wrapping_add(words.next().unwrap_or(0));
        let (interval, value) = (usec(), usec());
        // A periodic real timer that has expired stands still until its signal is taken (kernel/time/itimer.c).
        *timer = (if interval != 0 { value.max(1) } else { value }, interval);
    }
    Ok(timers)
}

/// Saves those that run.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, timers: &Timers) -> Result<()> {
    save.notes.begin(NoteType::Itimer)?;
    for (which, (value, interval)) in (0u32..).zip(timers).filter(|(_, t)| t.0 != 0) {
        let (value_usec, interval_usec) = ((*value).into(), (*interval).into());
        save.notes.push(&Itimer { which: which.into(), reserved: 0.into(), value_usec, interval_usec })?;
    }
    save.notes.end()?;
    Ok(())
}

/// Starts them again. The last thing before the program goes on: their time counts from here.
///
/// # Errors
/// The kernel's.
pub fn restore(timer: &Itimer) -> sys::Result<()> {
    let time = |usec: u64| Timeval { sec: (usec / 1_000_000) as i64, usec: (usec % 1_000_000) as i64 };
    let value = Itimerval { interval: time(timer.interval_usec.get()), value: time(timer.value_usec.get()) };
    sys::time::set_itimer(timer.which.get(), &value)
}
