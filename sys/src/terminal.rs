//! Terminals: their settings.

use crate::Result;
use crate::abi::{TCGETS, TCSETS, TERMIOS_LEN};
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
