//! Clocks and interval timers.

use crate::abi::{Itimerspec, Itimerval, PR_TIMER_CREATE_RESTORE_IDS, Sigevent, Timespec};
use crate::fs::Fd;
use crate::{Errno, Result, Sysno, call};

/// clock_gettime(2) by system call: the vdso may be on the move.
#[must_use]
pub fn now(clock: usize) -> Timespec {
    let mut time = Timespec::default();
    // SAFETY: the kernel fills `time`.
    let _ = unsafe { call(Sysno::clock_gettime, [clock, (&raw mut time) as usize]) };
    time
}

impl Timespec {
    /// So many nanoseconds later, but not before the clock's beginning.
    #[must_use]
    pub fn later(self, nsec: i64) -> Self {
        const SECOND: i64 = 1_000_000_000;
        let all = self.sec.saturating_mul(SECOND).saturating_add(self.nsec).saturating_add(nsec).max(0);
        Self { sec: all / SECOND, nsec: all % SECOND }
    }
}

/// A clock's reading in nanoseconds.
#[must_use]
pub fn nanoseconds(clock: usize) -> u64 {
    let t = now(clock);
    (t.sec as u64).saturating_mul(1_000_000_000).saturating_add(t.nsec as u64)
}

/// getitimer(2).
///
/// # Errors
/// The call's.
pub fn itimer(which: u32) -> Result<Itimerval> {
    let mut value = Itimerval::default();
    // SAFETY: the kernel fills `value`.
    unsafe { call(Sysno::getitimer, [which as usize, (&raw mut value) as usize]) }?;
    Ok(value)
}

/// setitimer(2).
///
/// # Errors
/// The call's.
pub fn set_itimer(which: u32, value: &Itimerval) -> Result<()> {
    // SAFETY: the kernel only reads `value`.
    unsafe { call(Sysno::setitimer, [which as usize, (&raw const *value) as usize, 0]) }.map(drop)
}

/// Most timers that are made and deleted on the way to an id, where the kernel cannot be asked for it.
const ID_TRIES: u32 = 1 << 16;

/// timer_create(2) with a given id. Kernels before 6.15 count ids up: there, timers are made until it comes.
///
/// # Errors
/// The call's; EEXIST when the id cannot be had.
pub fn create_timer(clock: i32, signo: u32, notify: u32, value: u64, tid: u32, wanted: u32) -> Result<()> {
    let event = Sigevent { value, signo, notify, tid, ..Sigevent::default() };
    let create = |id: &mut u32| {
        let args = [clock as usize, (&raw const event) as usize, (&raw mut *id) as usize];
        // SAFETY: the kernel reads the event and writes the id.
        unsafe { call(Sysno::timer_create, args) }
    };
    // SAFETY: switches how timer_create works, for this process.
    let exact = unsafe { crate::process::prctl(PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0) }.is_ok();
    let mut id = wanted;
    for _ in 0..ID_TRIES {
        let made = create(&mut id);
        if exact {
            // SAFETY: as above.
            let _ = unsafe { crate::process::prctl(PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0) };
            return made.map(drop);
        }
        made?;
        if id == wanted {
            return Ok(());
        }
        // SAFETY: the timer just made.
        let _ = unsafe { call(Sysno::timer_delete, [id as usize]) };
        if id > wanted {
            break;
        }
    }
    Err(Errno::EEXIST)
}

/// timer_settime(2), relative.
///
/// # Errors
/// The call's.
pub fn start_timer(id: u32, spec: &Itimerspec) -> Result<()> {
    // SAFETY: the kernel only reads `spec`.
    unsafe { call(Sysno::timer_settime, [id as usize, 0, (&raw const *spec) as usize, 0]) }.map(drop)
}

/// timerfd_settime(2), with its flags.
///
/// # Errors
/// The call's.
pub fn set_timerfd(fd: Fd, flags: u32, spec: &Itimerspec) -> Result<()> {
    let spec = (&raw const *spec) as usize;
    // SAFETY: the kernel only reads `spec`.
    unsafe { call(Sysno::timerfd_settime, [fd as usize, flags as usize, spec, 0, 0, 0]) }.map(drop)
}

/// Waits for ten milliseconds, or less when a signal comes.
pub fn nap() {
    let time = Timespec { sec: 0, nsec: 10_000_000 };
    // SAFETY: the kernel only reads the time.
    let _ = unsafe { call(Sysno::nanosleep, [(&raw const time) as usize, 0]) };
}
