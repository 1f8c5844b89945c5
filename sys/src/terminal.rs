//! Terminals: their settings.

use crate::abi::{self, Ask, Control, POLLIN, POLLOUT, TCGETS, TCSETS, TCXONC, TERMIOS_LEN, TIOCGPTPEER, TIOCSPGRP};
use crate::fs::{Fd, Owned, ioctl, read, ready_within, write_all};
use crate::{Errno, Result, Sysno, call};

/// The kernel's `struct termios`, as bytes.
pub type Termios = [u8; TERMIOS_LEN];

/// TCGETS: the settings; ENOTTY when it is no terminal.
///
/// # Errors
/// The call's.
pub fn settings(fd: Fd) -> Result<Termios> {
    ask(fd, TCGETS)
}

/// TCSETS: the settings, at once.
///
/// # Errors
/// The call's.
pub fn set_settings(fd: Fd, termios: Termios) -> Result<()> {
    control(fd, TCSETS, &termios)
}

/// No argument, or zero.
pub const ZERO: Termios = [0; TERMIOS_LEN];

/// A request that only reads its argument, or the beginning of it.
///
/// ```compile_fail
/// #![forbid(unsafe_code)]
/// // TCGETS writes to its argument.
/// let _ = sys::terminal::control(0, 0x5401, &[0; 36]);
/// ```
///
/// # Errors
/// The call's.
pub fn control(fd: Fd, request: Control, argument: &Termios) -> Result<()> {
    // SAFETY: these requests read no more than that, and write nothing.
    unsafe { call(Sysno::ioctl, [fd as usize, request.number() as usize, argument.as_ptr() as usize]) }.map(drop)
}

/// A request that fills at most [`TERMIOS_LEN`] bytes: the settings, the size, or a number.
///
/// # Errors
/// The call's.
pub fn ask(fd: Fd, request: Ask) -> Result<Termios> {
    let mut value = [0; TERMIOS_LEN];
    // SAFETY: these requests fill no more than that.
    unsafe { ioctl(fd, request.number(), &mut value) }?;
    Ok(value)
}

/// A request that fills a number.
///
/// # Errors
/// The call's.
pub fn number(fd: Fd, request: Ask) -> Result<u32> {
    ask(fd, request).map(|[a, b, c, d, ..]| u32::from_le_bytes([a, b, c, d]))
}

/// Opens the slave of a master, whatever its name is here; with `O_PATH` it does not become open, and its lock does not matter.
/// Not closed on exec: the kernel would keep that among the description's flags, and tell of it for all of its descriptors.
///
/// # Errors
/// The call's.
pub fn peer(master: Fd, flags: u32) -> Result<Owned> {
    // SAFETY: makes a descriptor; no memory is touched.
    unsafe { call(Sysno::ioctl, [master as usize, TIOCGPTPEER, flags as usize]) }.map(|fd| Owned::own(fd as Fd))
}

/// tcgetpgrp(3): the process group that a terminal's keys reach.
///
/// # Errors
/// ENOTTY: it is not this process's controlling terminal.
pub fn foreground(fd: Fd) -> Result<i32> {
    number(fd, abi::TIOCGPGRP).map(|group| group as i32)
}

/// tcsetpgrp(3).
///
/// # Errors
/// ENOTTY; EPERM: no group of this session.
pub fn set_foreground(fd: Fd, group: i32) -> Result<()> {
    let mut argument = ZERO;
    let [a, b, c, d, ..] = &mut argument;
    [*a, *b, *c, *d] = group.to_le_bytes();
    control(fd, TIOCSPGRP, &argument)
}

/// A session of this process's own, if it may have one: who leads a process group stays in its own.
pub fn new_session() {
    // SAFETY: no memory is touched.
    let _ = unsafe { call(Sysno::setsid, []) };
}

/// Writes some hundred bytes to a terminal that does not wait, then takes as many as `echo` out of its master, and drops them.
///
/// # Errors
/// The call's; EAGAIN: there is no room; ETIME: the echo does not come.
pub fn write(end: Fd, bytes: &[u8], master: Fd, mut echo: usize) -> Result<()> {
    // The kernel moves on what was written before, and wakes nobody; poll(2) looks once more at its end.
    let mut tries = 0..100;
    while ready_within(end, POLLOUT, 2)? & POLLOUT == 0 && tries.next().is_some() {}
    write_all(end, bytes)?;
    while echo != 0 {
        if ready_within(master, POLLIN, 500)? & POLLIN == 0 {
            return Err(Errno::ETIME);
        }
        echo -= read(master, &mut [0; 1])?;
    }
    Ok(())
}

/// As [`write`] without an echo, sooner: a queue that is full but for what its last buffer takes is not said to be ready.
///
/// # Errors
/// The call's; EAGAIN: there is no room.
pub fn push(end: Fd, mut bytes: &[u8]) -> Result<()> {
    let mut tries = 0..100;
    while !bytes.is_empty() {
        // SAFETY: the kernel only reads the bytes.
        match unsafe { call(Sysno::write, [end as usize, bytes.as_ptr() as usize, bytes.len()]) } {
            Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
            Err(e) if tries.next().is_none() => return Err(e),
            Err(_) => drop(ready_within(end, 0, 2)?),
        }
    }
    Ok(())
}

/// tcflow(3): output goes on, or stops.
pub fn flow(fd: Fd, on: bool) {
    // SAFETY: no memory is touched.
    let _ = unsafe { call(Sysno::ioctl, [fd as usize, TCXONC, usize::from(on)]) };
}
