//! Terminals: their settings.

use crate::Result;
use crate::abi::{TCGETS, TCSETS, TERMIOS_LEN, TIOCGPTN, TIOCGPTPEER};
use crate::fs::{Fd, ioctl};
use crate::{Sysno, call};

/// The kernel's `struct termios`, as bytes.
pub type Termios = [u8; TERMIOS_LEN];

/// TCGETS: the settings; ENOTTY when it is no terminal.
///
/// # Errors
/// The call's.
pub fn settings(fd: Fd) -> Result<Termios> {
    let mut termios = [0; TERMIOS_LEN];
    // SAFETY: the request fills the kernel's struct termios, 36 bytes.
    unsafe { ioctl(fd, TCGETS, &mut termios) }?;
    Ok(termios)
}

/// TCSETS: the settings, at once.
///
/// # Errors
/// The call's.
pub fn set_settings(fd: Fd, mut termios: Termios) -> Result<()> {
    // SAFETY: the request reads the kernel's struct termios, 36 bytes.
    unsafe { ioctl(fd, TCSETS, &mut termios) }.map(drop)
}

/// A request that reads at most eight bytes: `TIOCSWINSZ`, `TIOCPKT`, `TIOCSPTLCK`.
///
/// # Errors
/// The call's.
pub fn control(fd: Fd, request: usize, mut value: [u8; 8]) -> Result<()> {
    // SAFETY: those requests only read, and no more than that.
    unsafe { ioctl(fd, request, &mut value) }.map(drop)
}

/// The number of a master's terminal.
///
/// # Errors
/// The call's.
pub fn number(master: Fd) -> Result<u32> {
    let mut number = 0u32;
    // SAFETY: the request fills a number.
    unsafe { ioctl(master, TIOCGPTN, &mut number) }?;
    Ok(number)
}

/// Opens the slave of a master, whatever its name is here.
///
/// # Errors
/// The call's.
pub fn peer(master: Fd, flags: u32) -> Result<Fd> {
    // SAFETY: makes a descriptor; no memory is touched.
    unsafe { call(Sysno::ioctl, [master as usize, TIOCGPTPEER, flags as usize]) }.map(|fd| fd as Fd)
}
