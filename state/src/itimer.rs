//! Interval timers of setitimer(2).

use image_format::NoteType;
use image_format::record::itimer::Itimer;
use sys::Sysno;
use sys::abi::{Itimerval, Timeval};

use crate::target::Arg;
use crate::{Error, Result, Save, Target};

/// Saves those that run, with the time that is left.
///
/// # Errors
/// They cannot be read.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>) -> Result<()> {
    save.notes.begin(NoteType::Itimer)?;
    for which in 0..3u32 {
        let mut data = [0; 32];
        let zero = Arg::Value(0);
        save.target
            .call(Sysno::getitimer, [Arg::Value(which as usize), Arg::Data(0), zero, zero, zero, zero], &mut data)
            .map_err(|e| Error::failed(format_args!("interval timer {which}"), "cannot be read", e))?;
        let mut words = data.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()));
        let mut usec = || words.next().unwrap_or(0).wrapping_mul(1_000_000).wrapping_add(words.next().unwrap_or(0));
        let (interval, value) = (usec(), usec());
        if value != 0 {
            let record = Itimer {
                which: which.into(),
                reserved: 0.into(),
                value_usec: value.into(),
                interval_usec: interval.into(),
            };
            save.notes.push(&record)?;
        }
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
