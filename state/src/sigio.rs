//! Owners of descriptors (`F_SETOWN`), and signal-driven ones (`O_ASYNC`): who gets which signal when there is news.
//!
//! Must never name an owner that is not saved together with the descriptor: its id may be anybody's at the restart.

use core::ffi::CStr;

use image_format::NoteType;
use image_format::record::header::Features;
use image_format::record::sigio::{DRIVEN, ROOT_GROUP, Sigio};
use sys::Errno;
use sys::abi::{F_GETSIG, F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, F_SETSIG, O_PATH};
use sys::fs::{self, Fd};
use sys::text::{Text, decimal, words};

use crate::descriptor::{Kind, OpenFile};
use crate::process::Stat;
use crate::target::status_value;
use crate::{Error, Object, Result, Save, Target};

/// What can have news. Of all else an owner has no effect, but that of a lease (`lock`).
const KINDS: [Kind; 6] = [Kind::Socket, Kind::Pipe, Kind::InnerPipe, Kind::Terminal, Kind::Pty, Kind::Inotify];

/// The place of a process group in [`Process`](image_format::record::process::Process), for `Stat::field`.
const GROUP: usize = 5;

/// Writes the table.
///
/// # Errors
/// An owner that is not saved, or that another user's process has set; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<Features> {
    let mut features = Features::empty();
    save.notes.begin(NoteType::Sigio)?;
    for file in files.iter().filter(|file| KINDS.iter().any(|kind| file.is_first(*kind))) {
        match one(save.target, file) {
            Ok(None) => {}
            Ok(Some(one)) => {
                save.notes.push(&one)?;
                features = Features::SIGNAL_DRIVEN;
            }
            Err(error) => save.target.blocked(error)?,
        }
    }
    save.notes.end()?;
    Ok(features)
}

/// What a description has of it; `None`: nothing.
fn one<T: Target>(target: &T, file: &OpenFile) -> Result<Option<Sigio>> {
    if file.flags & O_PATH != 0 {
        return Ok(None);
    }
    let object = Object::descriptor(file.fd, format_args!("F_SETOWN"));
    let failed = |e| Error::failed(object, "cannot be examined", e);
    let own = target.borrow(file.fd as Fd).map_err(failed)?;
    let (kind, id) = fs::owner(own.fd()).map_err(failed)?;
    let signal = fs::fcntl(own.fd(), F_GETSIG, 0).map_err(failed)? as u32;
    let driven = if file.driven != 0 { DRIVEN } else { 0 };
    if (id, signal, driven) == (0, 0, 0) {
        return Ok(None);
    }
    let refuse = |why, remedy| Err(Error::refused(object, why, remedy));
    let mut owner = (0, 0);
    if id != 0 {
        let found = owner_of(target, kind, id).map_err(failed)?;
        let outside = [Kind::Pipe, Kind::Terminal].iter().any(|kind| file.kind == *kind as u32);
        owner = match found {
            Some(owner) => owner,
            // The restart has another one there, whose owner is as little the program's as this one's.
            None if outside && driven == 0 => return Ok(None),
            None => return refuse("sends its signal to whom is not saved", "save that, too, or set the owner to 0"),
        };
        // The kernel sends in the name of whoever has set the owner.
        if fs::owner_users(own.fd()).map_err(failed)? != users(target.proc_of(file.place() as usize)).map_err(failed)? {
            return refuse("has an owner that another user has set", "set it again before the save");
        }
    }
    if file.in_transit != 0 {
        return refuse("is in transit and sends signals, which cannot be carried", "let the program receive it");
    }
    let (owner, root) = owner;
    let how = kind as u32 | driven | root;
    Ok(Some(Sigio { id: file.id.into(), owner: owner.into(), signal: signal.into(), how: how.into() }))
}

/// The owner's own id, and [`ROOT_GROUP`] if it is that; `None`: it is not saved.
fn owner_of<T: Target>(target: &T, kind: i32, id: i32) -> sys::Result<Option<(u32, u32)>> {
    for place in 0..target.processes() {
        let proc = target.proc_of(place);
        let thread = Text::<32>::of(format_args!("task/{id}/status"));
        let (is_it, status, key) = match kind {
            F_OWNER_TID => {
                let is_it = fs::stat_at(proc, thread.as_c_str(), 0).is_ok();
                (is_it, thread.as_c_str(), &b"NSpid"[..])
            }
            F_OWNER_PID => (Stat::read(proc)?.pid == i64::from(id), c"status", &b"NSpid"[..]),
            F_OWNER_PGRP => (Stat::read(proc)?.field(GROUP) == i64::from(id), c"status", &b"NSpgid"[..]),
            _ => return Err(Errno::EINVAL),
        };
        if is_it && kind == F_OWNER_PGRP && place == 0 {
            return Ok(Some((0, ROOT_GROUP)));
        }
        if is_it {
            return own_id(proc, status, key).map(|own| Some((own, 0)));
        }
    }
    Ok(None)
}

/// The last number of a line of a status: by which id a process or thread, or its group, is known to itself.
fn own_id(proc: Fd, status: &CStr, key: &[u8]) -> sys::Result<u32> {
    let mut buffer = [0; 256];
    let ids = status_value(proc, status, key, &mut buffer)?;
    let id = ids.and_then(|ids| words(ids).last()).and_then(decimal).and_then(|id| u32::try_from(id).ok());
    id.ok_or(Errno::EIO)
}

/// A process's real and effective user.
fn users(proc: Fd) -> sys::Result<[u32; 2]> {
    let mut buffer = [0; 64];
    let mut ids = status_value(proc, c"status", b"Uid", &mut buffer)?.map(words).ok_or(Errno::EIO)?;
    let mut next = || ids.next().and_then(decimal).and_then(|id| u32::try_from(id).ok()).ok_or(Errno::EIO);
    Ok([next()?, next()?])
}

/// Gives an open file its owner, the id of now, and its signal; makes it signal-driven again.
///
/// # Errors
/// The kernel's.
pub fn restore(sigio: &Sigio, fd: Fd, owner: u32) -> sys::Result<()> {
    let how = sigio.how.get();
    fs::fcntl(fd, F_SETSIG, sigio.signal.get() as usize)?;
    fs::set_owner(fd, how, owner)?;
    if how & DRIVEN == 0 {
        return Ok(());
    }
    fs::set_signal_driven(fd)?;
    // A terminal gives itself one where it has none.
    fs::set_owner(fd, how, owner)
}
