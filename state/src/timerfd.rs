//! Timers that are read like files: the same clock and period, and the time that is left.
//!
//! One that is set to a moment of the wall clock keeps that moment; one that is set to a moment of another clock,
//! which may begin anew before the restart, comes back with the time to it.

use image_format::record::timerfd::Timerfd;
use sys::Sysno;
use sys::abi::{
    CLOCK_REALTIME, CLOCK_REALTIME_ALARM, Itimerspec, TFD_IOC_SET_TICKS, TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET,
    Timespec,
};
use sys::fs::Fd;
use sys::text::{cut, decimal, octal};
use zerocopy::FromZeros;

use crate::descriptor::{Kind, OpenFile, each_fact};
use crate::target::Arg;
use crate::{Error, Result, Save, Target};

/// Readings that are taken until one was not disturbed by an expiry.
const READINGS: u32 = 8;

/// Writes the table.
///
/// # Errors
/// A timer that cannot be read; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Timerfd, |target, file| {
        let mut timer = Timerfd::new_zeroed();
        for _ in 0..READINGS {
            // A periodic timer that has expired stands still until it is read or, as here, asked for.
            let mut data = [0; 32];
            let fd = Arg::Value(file.fd as usize);
            let zero = Arg::Value(0);
            target
                .call(Sysno::timerfd_gettime, [fd, Arg::Data(0), zero, zero, zero, zero], &mut data)
                .map_err(|e| Error::failed(format_args!("descriptor {} (timerfd)", file.fd), "cannot be read", e))?;
            let ran = data.get(16..).is_some_and(|value| value.iter().any(|byte| *byte != 0));
            timer = read(target, file)?;
            let stands = timer.value_nsec.get() == 0;
            let expired_meanwhile = stands && (timer.interval_nsec.get() != 0 || (ran && timer.ticks.get() == 0));
            if !expired_meanwhile {
                break;
            }
        }
        if timer.value_nsec.get() == 0 {
            // A period too short to be caught running.
            timer.value_nsec = timer.interval_nsec;
        }
        let clock = timer.clock.get() as usize;
        let wall = [CLOCK_REALTIME, CLOCK_REALTIME_ALARM].contains(&clock);
        let absolute = wall && timer.settime.get() & TFD_TIMER_ABSTIME != 0 && timer.value_nsec.get() != 0;
        if absolute {
            let moment = sys::time::nanoseconds(CLOCK_REALTIME).saturating_add(timer.value_nsec.get());
            timer.value_nsec = moment.min(i64::MAX as u64).into();
        }
        let kept = if absolute { TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET } else { 0 };
        timer.settime = (timer.settime.get() & kept).into();
        Ok(timer)
    })
}

fn read<T: Target>(target: &mut T, file: &OpenFile) -> Result<Timerfd> {
    let mut timer = Timerfd::new_zeroed();
    (timer.id, timer.flags) = (file.id.into(), file.flags.into());
    // `(1, 500)`: seconds and nanoseconds.
    let nsec = |value: &[u8]| {
        let (sec, nsec) = cut(value.strip_prefix(b"(")?.strip_suffix(b")")?, b',')?;
        decimal(sec)?.checked_mul(1_000_000_000)?.checked_add(decimal(nsec.trim_ascii())?)
    };
    let time = |value: &[u8]| nsec(value).unwrap_or(u64::MAX).min(i64::MAX as u64).into();
    each_fact(target.proc(), file.fd, |key, value| {
        match key {
            b"clockid" => timer.clock = (decimal(value).unwrap_or(0) as u32).into(),
            b"ticks" => timer.ticks = decimal(value).unwrap_or(0).into(),
            b"settime flags" => timer.settime = (octal(value).unwrap_or(0) as u32).into(),
            b"it_value" => timer.value_nsec = time(value),
            b"it_interval" => timer.interval_nsec = time(value),
            _ => {}
        }
        Ok(())
    })?;
    Ok(timer)
}

/// Makes one that does not run yet.
///
/// # Errors
/// The kernel's: an alarm clock needs `CAP_WAKE_ALARM`.
pub fn restore(timer: &Timerfd) -> sys::Result<Fd> {
    sys::fs::make(Sysno::timerfd_create, [timer.clock.get() as usize, 0, 0, 0])
}

/// Starts it, with the expiries that were not read.
///
/// # Errors
/// The kernel's.
pub fn start(timer: &Timerfd, fd: Fd) -> sys::Result<()> {
    let time = |nsec: u64| Timespec { sec: (nsec / 1_000_000_000) as i64, nsec: (nsec % 1_000_000_000) as i64 };
    let mut spec = Itimerspec { interval: time(timer.interval_nsec.get()), value: time(timer.value_nsec.get()) };
    let set = |spec: &Itimerspec| sys::time::set_timerfd(fd, timer.settime.get(), spec);
    // ECANCELED: the wall clock was set since it was made; it is set all the same, and a second try is told so.
    set(&spec).or_else(|_| set(&spec))?;
    let mut ticks = timer.ticks.get();
    // SAFETY: the request reads a number of this size.
    if ticks != 0 && unsafe { sys::fs::ioctl(fd, TFD_IOC_SET_TICKS, &mut ticks) }.is_err() {
        // A kernel without CONFIG_CHECKPOINT_RESTORE: it expires at once.
        spec.value = time(1);
        return set(&spec);
    }
    Ok(())
}
