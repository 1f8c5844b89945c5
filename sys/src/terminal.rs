//! Terminals: settings, size, the foreground process group.

use crate::Result;
use crate::abi::{TCGETS, TCSETS, TERMIOS_LEN, TIOCGPGRP, TIOCGSID, TIOCGWINSZ, Winsize};
use crate::fs::{Fd, ioctl};

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

/// TIOCGWINSZ.
///
/// # Errors
/// The call's.
pub fn size(fd: Fd) -> Result<Winsize> {
    let mut size = Winsize::default();
    // SAFETY: the request fills this structure.
    unsafe { ioctl(fd, TIOCGWINSZ, &mut size) }?;
    Ok(size)
}

/// Whether it is the controlling terminal of this process's session (TIOCGSID fails on any other).
#[must_use]
pub fn is_controlling(fd: Fd) -> bool {
    let mut session = 0i32;
    // SAFETY: the request fills a pid_t.
    unsafe { ioctl(fd, TIOCGSID, &mut session) }.is_ok()
}

/// TIOCGPGRP: the foreground process group.
///
/// # Errors
/// The call's.
pub fn foreground(fd: Fd) -> Result<i32> {
    let mut group = 0i32;
    // SAFETY: the request fills a pid_t.
    unsafe { ioctl(fd, TIOCGPGRP, &mut group) }?;
    Ok(group)
}
