//! Descriptors that stand for the process itself, or for another one of its tree: they stand for the restarted one. Those of
//! processes that are not saved are refused.

use image_format::NoteType;
use image_format::record::pidfd::{Pidfd, PidfdOf};
use sys::abi::{O_EXCL, O_NONBLOCK};
use sys::fs::{Fd, Owned};
use sys::text::{Shown, Text, decimal};

use crate::descriptor::{Kind, OpenFile, each_fact};
use crate::target::status_value;
use crate::{Error, Object, Result, Save, Target};

/// Whether it stands for another process of the tree; of several the root is entered.
///
/// # Errors
/// It stands for a process that is not saved.
pub fn check<T: Target>(target: &T, file: &OpenFile) -> Result<bool> {
    let whose = whose(target, file)?;
    if let Some(pid) = stands_for(target, whose.as_bytes())? {
        return Ok(pid != target.pid() as u32);
    }
    let object = Object::descriptor(file.fd, format_args!("pidfd of process {}", Shown(whose.as_bytes())));
    Err(Error::refused(object, "stands for a process that is not saved, too", "close it before the save"))
}

/// The id that the kernel tells us of it.
fn whose<T: Target>(target: &T, file: &OpenFile) -> Result<Text<24>> {
    let mut whose = Text::new();
    each_fact(target.at(file.fd), |key, value| {
        if key == b"Pid" {
            whose.push(value);
        }
        Ok(())
    })?;
    Ok(whose)
}

/// The id by which the process knows itself that we know by this one; `None`: it is not saved.
fn stands_for<T: Target>(target: &T, whose: &[u8]) -> Result<Option<u32>> {
    let mut own = [0; 24];
    let failed = |e| Error::failed(format_args!("pidfd"), "cannot be examined", e);
    if status_value(target.proc(), c"status", b"Pid", &mut own).map_err(failed)? == Some(whose) {
        return Ok(Some(target.pid() as u32));
    }
    let other = decimal(whose).and_then(|pid| target.inner_id(pid as i32));
    Ok(other.map(|pid| pid as u32))
}

/// Writes the table; of several processes the root is entered.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Pidfd, |_, file| Ok(Pidfd { id: file.id.into(), flags: file.flags.into() }))?;
    if save.target.processes() == 1 {
        return Ok(());
    }
    save.notes.begin(NoteType::PidfdOf)?;
    for file in files.iter().filter(|file| file.is_first(Kind::Pidfd)) {
        let whose = stands_for(save.target, whose(save.target, file)?.as_bytes())?;
        if let Some(pid) = whose.filter(|_| file.other != 0) {
            save.notes.push(&PidfdOf { id: file.id.into(), pid: pid.into() })?;
        }
    }
    save.notes.end()?;
    Ok(())
}

/// Makes it.
///
/// # Errors
/// The kernel's: before Linux 6.9 none stands for a thread.
pub fn restore(pidfd: &Pidfd) -> sys::Result<Fd> {
    open(pidfd, sys::process::pid() as u32)
}

/// Opens it for the process of this id.
///
/// # Errors
/// As [`restore`].
#[inline(always)]
pub fn open(pidfd: &Pidfd, pid: u32) -> sys::Result<Fd> {
    sys::process::pidfd(pid as i32, pidfd.flags.get() & (O_NONBLOCK | O_EXCL)).map(Owned::release)
}
