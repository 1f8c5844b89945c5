//! Signal-driven sockets (`O_ASYNC`) in a tree of processes: who gets which signal.
//!
//! Other descriptors that are signal-driven are refused, and all of a single process, whose id is another one after a restart.

use image_format::NoteType;
use image_format::record::sigio::Sigio;
use sys::abi::{F_GETFL, F_GETSIG, F_OWNER_PID, F_SETFL, F_SETOWN, F_SETSIG, O_ASYNC};
use sys::fs::{self, Fd};

use crate::descriptor::OpenFile;
use crate::{Error, Object, Result, Save, Target};

/// Writes the table.
///
/// # Errors
/// One for a thread, a process group, or a process that is not saved; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    if !files.iter().any(|file| file.driven != 0) {
        return Ok(());
    }
    save.notes.begin(NoteType::Sigio)?;
    for file in files.iter().filter(|file| file.driven != 0 && file.id == file.fd) {
        save.notes.push(&one(save.target, file)?)?;
    }
    save.notes.end()?;
    Ok(())
}

fn one<T: Target>(target: &T, file: &OpenFile) -> Result<Sigio> {
    let object = Object::descriptor(file.fd, format_args!("signal-driven"));
    let failed = |e| Error::failed(object, "cannot be examined", e);
    let own = target.borrow(file.fd as Fd).map_err(failed)?;
    let (kind, pid) = fs::owner(own.fd()).map_err(failed)?;
    let signal = fs::fcntl(own.fd(), F_GETSIG, 0).map_err(failed)? as u32;
    let owner = match target.inner_id(pid).filter(|_| kind == F_OWNER_PID) {
        Some(inner) => inner as u32,
        None if pid == 0 => 0,
        None => {
            let why = "sends its signal to a thread, a group, or a process that is not saved";
            return Err(Error::refused(object, why, "close it before the save"));
        }
    };
    Ok(Sigio { id: file.id.into(), owner: owner.into(), signal: signal.into(), reserved: 0.into() })
}

/// Makes an open file signal-driven again.
///
/// # Errors
/// The kernel's.
pub fn restore(sigio: &Sigio, fd: Fd) -> sys::Result<()> {
    fs::fcntl(fd, F_SETSIG, sigio.signal.get() as usize)?;
    fs::fcntl(fd, F_SETOWN, sigio.owner.get() as usize)?;
    let flags = fs::fcntl(fd, F_GETFL, 0)?;
    fs::fcntl(fd, F_SETFL, flags | O_ASYNC as usize).map(drop)
}
