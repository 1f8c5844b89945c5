//! What is registered with an instance: read back, or refused.

use image_format::record::StrRef;
use image_format::record::process::FD_BITS;
use sys::abi::uring as abi;
use sys::fs::Owned;
use sys::text::{Shown, cut, decimal, hex};
use sys::{Errno, Sysno, uring};
use zerocopy::IntoBytes;

use super::told::{self, Told, failed, refuse};
use crate::Arg;
use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Object, Result, Save, Target};

/// Groups of provided buffers that are asked for where each question takes a call inside the process.
const GROUPS_INSIDE: u16 = 256;

/// Refuses what nobody can tell of more than that it is there; `inside`: only its own thread is answered.
pub(super) fn check<T: Target>(target: &mut T, file: &OpenFile, own: &Owned, inside: bool) -> Result<()> {
    let numbers = if target.stands_still() { abi::REGISTERED_RINGS } else { 0 };
    for number in 0..numbers {
        // By a number of its own the first thread may know an instance; others cannot be asked.
        let number = number | (file.place() as usize) << FD_BITS;
        let enter = [number, 0, 0, abi::ENTER_REGISTERED_RING, 0, 0].map(Arg::Value);
        // SAFETY: nothing is submitted, and nothing waited for.
        if unsafe { target.call(Sysno::io_uring_enter, enter, &mut []) }.is_ok() {
            let why = "or another one is known to a thread by a registered number, too, which cannot be carried";
            return Err(refuse(file, why, "unregister that (io_uring_unregister_ring_fd)"));
        }
    }
    if inside && !target.stands_still() {
        return Ok(());
    }
    let mut ask = |operation: usize, first: u32| {
        let mut data = [0; 40];
        if let Some(word) = data.first_chunk_mut() {
            *word = first.to_le_bytes();
        }
        let zero = Arg::Value(0);
        let args = [Arg::Value(file.fd as usize), Arg::Value(operation), Arg::Data(0), Arg::Value(1), zero, zero];
        // SAFETY: what is asked is written into the call's data.
        unsafe { target.call(Sysno::io_uring_register, args, &mut data) }
    };
    let has_eventfd = match inside {
        false => uring::has_eventfd(own.fd()),
        true => match ask(abi::REGISTER_EVENTFD, u32::MAX) {
            Err(Errno::EBUSY) => Ok(true),
            Err(Errno::EBADF) => Ok(false),
            Err(e) => Err(e),
            Ok(_) => Err(Errno::EIO),
        },
    };
    if has_eventfd.map_err(failed(file))? {
        let why = "tells an eventfd of completions, and nobody tells which";
        return Err(refuse(file, why, "unregister it"));
    }
    let mut group = 0;
    loop {
        let has_buffers = match inside {
            false => uring::has_buffers(own.fd(), group),
            true => match ask(abi::REGISTER_PBUF_STATUS, group.into()) {
                Ok(_) => Ok(true),
                Err(Errno::ENOENT | Errno::EINVAL) => Ok(false),
                Err(e) => Err(e),
            },
        };
        if has_buffers.map_err(failed(file))? {
            return Err(refuse(file, "has provided buffers, which cannot be carried", "take them back"));
        }
        let last = if inside { GROUPS_INSIDE } else { u16::MAX };
        if group == last {
            return Ok(());
        }
        group += 1;
    }
}

/// Registered buffers: `0x7f58d2a08064/5000`, or `<none>`.
pub(super) fn buffers<T: Target>(save: &mut Save<'_, '_, T>, file: &OpenFile, told: &Told) -> Result<StrRef> {
    let array = save.scratch.take::<[u64; 2]>(told.buffers as usize)?;
    let mut unread = false;
    told::read(save.target, file.fd, |section, index, value| {
        if section != b"UserBufs" || value == b"<none>" {
            return;
        }
        let found = cut(value, b'/').and_then(|(at, len)| Some([hex(at.strip_prefix(b"0x")?)?, decimal(len)?]));
        match (array.get_mut(index as usize), found) {
            (Some(place), Some(found)) => *place = found,
            _ => unread = true,
        }
    })
    .map_err(failed(file))?;
    if unread {
        return Err(failed(file)(Errno::EIO));
    }
    Ok(save.notes.string(array.as_bytes())?)
}

/// Registered files: a socket is known by its name, `socket:[92852]`; of others several may have the same.
pub(super) fn files<T: Target>(
    save: &mut Save<'_, '_, T>,
    files: &[OpenFile],
    file: &OpenFile,
    told: &Told,
) -> Result<StrRef> {
    let array = save.scratch.take::<i32>(told.files as usize)?;
    array.fill(-1);
    let mut unknown = None;
    told::read(save.target, file.fd, |section, index, value| {
        if section != b"UserFiles" || value == b"<none>" {
            return;
        }
        let inode = value.strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]")).and_then(decimal);
        let its = |other: &&OpenFile| {
            other.kind == Kind::Socket as u32 && other.place() == file.place() && Some(other.ino) == inode
        };
        match (array.get_mut(index as usize), files.iter().find(its)) {
            (Some(place), Some(other)) => *place = other.number() as i32,
            _ => {
                let object =
                    Object::descriptor(file.fd, format_args!("io_uring, registered file {index}: {}", Shown(value)));
                unknown = Some(Error::refused(object, "cannot be told from others of its name", "unregister it"));
            }
        }
    })
    .map_err(failed(file))?;
    unknown.map_or_else(|| Ok(save.notes.string(array.as_bytes())?), Err)
}
