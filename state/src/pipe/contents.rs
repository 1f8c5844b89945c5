//! What a pipe inside the process holds: a copy of it. Must never take anything out.

use image_format::record::pipe::{NONE, PipeData};
use sys::Errno;
use sys::abi::{F_GETPIPE_SZ, F_SETPIPE_SZ, O_DIRECT, O_NONBLOCK, O_RDONLY, O_WRONLY};
use sys::fs::{Fd, Owned};
use sys::text::Text;

use super::{failed, mode};
use crate::descriptor::{OpenFile, first_of};
use crate::{Error, Object, Result, Save, Target};

/// Most bytes of one pipe that are carried.
const CONTENTS_MAX: usize = 1 << 20;

/// Writes the records of a pipe, given by its first end.
///
/// # Errors
/// Contents that cannot be read or told apart; no room.
pub(super) fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile], first: &OpenFile) -> Result<()> {
    let failed = failed(first);
    let own = save.target.borrow(first.fd as Fd).map_err(&failed)?;
    let size = sys::fs::fcntl(own.fd(), F_GETPIPE_SZ, 0).map_err(&failed)?;
    let len = sys::fs::waiting(own.fd()).map_err(&failed)?;
    if len == 0 {
        return push(save, first, size, &[], false);
    }
    let refuse = |why| {
        let object = Object::descriptor(first.fd, format_args!("pipe:[{}] inside the process", first.ino));
        Error::refused(object, why, "empty it before the save")
    };
    if len > CONTENTS_MAX {
        return Err(refuse("holds more than 1 MiB, which cannot be carried yet"));
    }
    let (end, packets_only) = reader(save.target, files, first, own)?;
    let (copy, probe) = (copy_of(&end, size, len).map_err(&failed)?, copy_of(&end, size, len).map_err(&failed)?);
    let mut rest = save.scratch.bytes(len)?;
    let mut packets = false;
    while !rest.is_empty() {
        // A read ends behind a packet; a read of one byte takes the whole of one.
        let got = sys::fs::read(copy.fd(), rest).map_err(&failed)?;
        let before = sys::fs::waiting(probe.fd()).map_err(&failed)?;
        sys::fs::read(probe.fd(), &mut [0]).map_err(&failed)?;
        let taken = before.saturating_sub(sys::fs::waiting(probe.fd()).map_err(&failed)?);
        let (bytes, after) = rest.split_at_mut_checked(got).ok_or_else(|| failed(Errno::EIO))?;
        rest = after;
        // A packet of one byte looks like any byte: then the ends for writing tell.
        let packet = taken == got && (got > 1 || packets || packets_only);
        // A packet behind a stream: a read that leaves one byte of it takes that, too. (It reads the same bytes again.)
        let mut left = 1;
        if let (false, Some(middle)) = (packet, bytes.get_mut(1..got.saturating_sub(1)).filter(|m| !m.is_empty())) {
            sys::fs::read(probe.fd(), middle).map_err(&failed)?;
            left = sys::fs::waiting(probe.fd()).map_err(&failed)?;
        }
        if !packet && (packets || !rest.is_empty() || left != 1) {
            return Err(refuse("holds packets and a stream mixed, which cannot be carried"));
        }
        packets = packet;
        push(save, first, size, bytes, packet)?;
    }
    Ok(())
}

/// An end that can be read; and whether its ends for writing write packets. `own`: the first end.
fn reader<T: Target>(target: &T, files: &[OpenFile], first: &OpenFile, own: Owned) -> Result<(Owned, bool)> {
    let (mut found, mut packets, mut next) = (None, false, first.id);
    while let Some(end) = first_of(files, next).filter(|_| next != NONE) {
        packets |= mode(end) != O_RDONLY && end.flags & O_DIRECT != 0;
        if found.is_none() && mode(end) != O_WRONLY {
            found = Some(*end);
        }
        next = end.next;
    }
    let end = match found {
        Some(end) if end.fd == first.fd => Ok(own),
        Some(end) => target.borrow(end.fd as Fd),
        // Nobody reads it, but somebody may open it by its name yet.
        None => {
            let (proc, number) = target.at(first.fd);
            sys::fs::open_at(proc, Text::<32>::of(format_args!("fd/{number}")).as_c_str(), O_RDONLY | O_NONBLOCK, 0)
        }
    };
    Ok((end.map_err(failed(first))?, packets))
}

fn push<T: Target>(save: &mut Save<'_, '_, T>, file: &OpenFile, size: usize, bytes: &[u8], packet: bool) -> Result<()> {
    let bytes = save.notes.string(bytes)?;
    save.notes.push(&PipeData {
        pipe: file.pipe.into(),
        packet: u32::from(packet).into(),
        bytes,
        size: (size as u32).into(),
        mode: (file.mode & 0o7777).into(),
        uid: file.uid.into(),
        gid: file.gid.into(),
    })?;
    Ok(())
}

/// A pipe of the saver's own that holds the same.
fn copy_of(end: &Owned, size: usize, len: usize) -> sys::Result<Owned> {
    let [read, write] = sys::fs::pipe(O_NONBLOCK)?;
    // A user of very many pipes may have small ones only; it may do.
    let sized = sys::fs::fcntl(write.fd(), F_SETPIPE_SZ, size);
    if sys::fs::tee(end.fd(), write.fd(), len)? == len { Ok(read) } else { sized.and(Err(Errno::EIO)) }
}
