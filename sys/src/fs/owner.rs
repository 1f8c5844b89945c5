//! Who gets the signals of an open file, fcntl(2).

use super::{Fd, arg};
use crate::{Result, Sysno, abi, call};

/// fcntl(2) `F_GETOWN_EX`: whom the signals of an open file reach, as `F_OWNER_*` and an id; 0 for nobody.
///
/// # Errors
/// The call's.
pub fn owner(fd: Fd) -> Result<(i32, i32)> {
    let mut owner = [0i32; 2];
    // SAFETY: the kernel writes two numbers.
    unsafe { call(Sysno::fcntl, [arg(fd), abi::F_GETOWN_EX, (&raw mut owner) as usize]) }?;
    Ok(owner.into())
}

/// `F_SETOWN_EX`: `kind` as [`owner`] tells it, in its two lowest bits, and the id.
///
/// # Errors
/// The call's.
#[inline(never)] // So that it exists once.
pub fn set_owner(fd: Fd, kind: u32, id: u32) -> Result<()> {
    let owner = [kind & 3, id];
    // SAFETY: the kernel reads two numbers.
    unsafe { call(Sysno::fcntl, [arg(fd), abi::F_SETOWN_EX, owner.as_ptr() as usize]) }.map(drop)
}

/// `F_GETOWNER_UIDS`: the real and the effective user of whoever has set the owner.
///
/// # Errors
/// The call's: EINVAL on a kernel without `CONFIG_CHECKPOINT_RESTORE`.
pub fn owner_users(fd: Fd) -> Result<[u32; 2]> {
    let mut users = [0; 2];
    // SAFETY: the kernel writes two numbers.
    unsafe { call(Sysno::fcntl, [arg(fd), abi::F_GETOWNER_UIDS, users.as_mut_ptr() as usize]) }?;
    Ok(users)
}

/// `FIOASYNC`: makes an open file signal-driven (`O_ASYNC`).
///
/// # Errors
/// The call's.
pub fn set_signal_driven(fd: Fd) -> Result<()> {
    let on = 1u32;
    // SAFETY: the kernel reads a number.
    unsafe { call(Sysno::ioctl, [arg(fd), abi::FIOASYNC, (&raw const on) as usize]) }.map(drop)
}
