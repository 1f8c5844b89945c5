//! Descriptors that stand for the process itself: they stand for the restarted one. Those of others are refused.

use image_format::record::pidfd::Pidfd;
use sys::Sysno;
use sys::abi::{O_EXCL, O_NONBLOCK};
use sys::fs::Fd;
use sys::text::{Shown, Text};

use crate::descriptor::{Kind, OpenFile, each_fact};
use crate::target::status_value;
use crate::{Error, Result, Save, Target};

/// Refuses one of another process.
///
/// # Errors
/// Such a descriptor.
pub fn check<T: Target>(target: &T, file: &OpenFile) -> Result<()> {
    let mut whose = Text::<24>::new();
    each_fact(target.at(file.fd), |key, value| {
        if key == b"Pid" {
            whose.push(value);
        }
        Ok(())
    })?;
    let mut own = [0; 24];
    let failed = |e| Error::failed(format_args!("descriptor {} (pidfd)", file.fd), "cannot be examined", e);
    if status_value(target.proc(), c"status", b"Pid", &mut own).map_err(failed)? == Some(whose.as_bytes()) {
        return Ok(());
    }
    let object = format_args!("descriptor {} (pidfd of process {})", file.fd, Shown(whose.as_bytes()));
    Err(Error::refused(object, "stands for another process, which cannot be carried", "close it before the save"))
}

/// Writes the table.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Pidfd, |_, file| Ok(Pidfd { id: file.id.into(), flags: file.flags.into() }))
}

/// Makes it.
///
/// # Errors
/// The kernel's: before Linux 6.9 none stands for a thread.
pub fn restore(pidfd: &Pidfd) -> sys::Result<Fd> {
    let flags = (pidfd.flags.get() & (O_NONBLOCK | O_EXCL)) as usize;
    sys::fs::make(Sysno::pidfd_open, [sys::process::pid() as usize, flags, 0, 0])
}
