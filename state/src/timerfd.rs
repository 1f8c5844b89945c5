//! Timers that are read like files: the same clock and period, and the time that is left.
//!
//! One that is set to a moment of the wall clock keeps that moment; one that is set to a moment of another clock,
//! which may begin anew before the restart, comes back with the time to it.

use image_format::record::timerfd::Timerfd;
use sys::abi::{
    CLOCK_REALTIME, CLOCK_REALTIME_ALARM, Itimerspec, TFD_IOC_SET_TICKS, TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET,
    Timespec,
};
use sys::fs::{Fd, Owned};
use sys::text::{cut, decimal, octal};
use sys::{Errno, Sysno};
use zerocopy::FromZeros;
use zerocopy::little_endian::U64;

use crate::descriptor::{Kind, OpenFile, each_fact};
use crate::inside::Arg;
use crate::{Error, Object, Result, Save, Target};

const SECOND: u64 = 1_000_000_000;

const ZERO: [U64; 2] = [U64::ZERO; 2];

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
            // SAFETY: fills the structure.
            unsafe { target.call(Sysno::timerfd_gettime, [fd, Arg::Data(0), zero, zero, zero, zero], &mut data) }
                .map_err(|e| {
                    Error::failed(Object::descriptor(file.fd, format_args!("timerfd")), "cannot be read", e)
                })?;
            let ran = data.get(16..).is_some_and(|value| value.iter().any(|byte| *byte != 0));
            timer = read(target, file)?;
            let expired_meanwhile = timer.value == ZERO && (timer.interval != ZERO || (ran && timer.ticks.get() == 0));
            if !expired_meanwhile {
                break;
            }
        }
        if timer.value == ZERO {
            // A period too short to be caught running.
            timer.value = timer.interval;
        }
        let wall = [CLOCK_REALTIME, CLOCK_REALTIME_ALARM].contains(&(timer.clock.get() as usize));
        let absolute = wall && timer.settime.get() & TFD_TIMER_ABSTIME != 0 && timer.value != ZERO;
        if absolute {
            let now = sys::time::now(CLOCK_REALTIME);
            let [sec, nsec] = timer.value.map(U64::get);
            let nsec = nsec.saturating_add(now.nsec as u64);
            let sec = sec.saturating_add(now.sec as u64).saturating_add(nsec / SECOND);
            timer.value = [sec.into(), (nsec % SECOND).into()];
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
    let time = |value: &[u8]| {
        let (sec, nsec) = cut(value.strip_prefix(b"(")?.strip_suffix(b")")?, b',')?;
        Some([decimal(sec)?.into(), decimal(nsec.trim_ascii())?.into()])
    };
    let fd = file.fd;
    let unread = || Error::failed(Object::descriptor(fd, format_args!("timerfd")), "cannot be read", Errno::EIO);
    each_fact(target.at(file.fd), |key, value| {
        match key {
            b"clockid" => timer.clock = (decimal(value).ok_or_else(unread)? as u32).into(),
            b"ticks" => timer.ticks = decimal(value).ok_or_else(unread)?.into(),
            b"settime flags" => timer.settime = (octal(value).ok_or_else(unread)? as u32).into(),
            b"it_value" => timer.value = time(value).ok_or_else(unread)?,
            b"it_interval" => timer.interval = time(value).ok_or_else(unread)?,
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
    sys::fs::timerfd(timer.clock.get()).map(Owned::release)
}

/// Starts it, with the expiries that were not read.
///
/// # Errors
/// The kernel's.
pub fn start(timer: &Timerfd, fd: Fd) -> sys::Result<()> {
    let [sec, nsec] = timer.interval.map(|n| n.get() as i64);
    let interval = Timespec { sec, nsec };
    let [sec, nsec] = timer.value.map(|n| n.get() as i64);
    let mut spec = Itimerspec { interval, value: Timespec { sec, nsec } };
    let mut ticks = timer.ticks.get();
    loop {
        match sys::time::set_timerfd(fd, timer.settime.get(), &spec) {
            // The wall clock was set since the timer was made: it runs all the same.
            Err(e) if e != Errno::ECANCELED => return Err(e),
            _ => {}
        }
        // SAFETY: the request reads a number of this size.
        if ticks == 0 || unsafe { sys::fs::ioctl(fd, TFD_IOC_SET_TICKS, &mut ticks) }.is_ok() {
            return Ok(());
        }
        // A kernel without CONFIG_CHECKPOINT_RESTORE: it expires at once.
        spec.value = Timespec { sec: 0, nsec: 1 };
        ticks = 0;
    }
}
