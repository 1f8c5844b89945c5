//! Pipes and FIFOs. Those that lead outside: at restart the program gets what the restart itself has under that number.
//! Those inside the process are made again, with what they hold.
//!
//! A pipe lies inside when both of its ends are open here, or when nobody has the other one. Whether another process
//! holds the same ends too is not asked: after a restart it has the old pipe, and this process a new one.

use image_format::record::pipe::{CLOSED, Pipe, PipeData};
use image_format::{Checked, ExitCode, NoteType};
use sys::abi::{
    F_GETPIPE_SZ, F_SETPIPE_SZ, O_ACCMODE, O_DIRECT, O_LARGEFILE, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, S_IFIFO,
    S_IFMT,
};
use sys::fs::{Fd, Owned};
use sys::packed;

use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Result, Save, Target};

/// Most bytes of one pipe that are carried.
const CONTENTS_MAX: usize = 1 << 20;

fn mode(file: &OpenFile) -> u32 {
    file.flags & O_ACCMODE
}

/// Finds the pipes that lie inside.
///
/// # Errors
/// Such a pipe that is open for reading and writing at once, and not otherwise; a pipe that cannot be looked at.
pub fn pair<T: Target>(save: &mut Save<'_, '_, T>, files: &mut [OpenFile]) -> Result<()> {
    for index in 0..files.len() {
        let Some(file) = files.get(index).copied() else { break };
        if !file.is_first(Kind::Pipe) || file.mode & S_IFMT != S_IFIFO {
            continue;
        }
        let same = |f: &&OpenFile| f.id == f.fd && (f.dev, f.ino) == (file.dev, file.ino);
        let opened = |wanted: u32| files.iter().filter(same).filter(|f| mode(f) == wanted).count();
        let (readers, writers, both) = (opened(O_RDONLY), opened(O_WRONLY), opened(O_RDWR));
        let inside = both != 0 || (readers != 0 && writers != 0);
        if file.named != 0 {
            // Each end is opened again by the name; what it holds is lost with the last one.
            let twins = files.iter_mut().filter(|f| inside && (f.dev, f.ino) == (file.dev, file.ino));
            twins.for_each(|twin| twin.kind = Kind::InnerPipe as u32);
            continue;
        }
        if inside && (readers, writers) == (0, 0) {
            save.target.blocked(Error::refused(
                format_args!("descriptor {} (pipe:[{}])", file.fd, file.ino),
                "is a pipe that was opened again for reading and writing, and whose own ends are closed, which cannot be carried",
                "keep one of them open, or use a FIFO",
            ))?;
        }
        // The root's standard input, output and error are the restart's own, also when their other end is gone by now: but not what
        // a writer that has ended has left in one, which nobody else will ever read.
        let standard =
            files.iter().any(|f| (f.dev, f.ino) == (file.dev, file.ino) && f.place() == 0 && f.number() <= 2);
        if !inside && (!is_alone(save.target, &file)? || standard && !is_left(save.target, &file)?) {
            continue;
        }
        for twin in files.iter_mut().filter(|f| f.id == file.id) {
            twin.kind = Kind::InnerPipe as u32;
        }
    }
    Ok(())
}

fn failed(file: &OpenFile) -> impl Fn(sys::Errno) -> Error {
    let (fd, ino) = (file.fd, file.ino);
    move |e| Error::failed(format_args!("descriptor {fd} (pipe:[{ino}])"), "cannot be looked into", e)
}

/// Whether nobody has the other end.
fn is_alone<T: Target>(target: &T, file: &OpenFile) -> Result<bool> {
    let end = target.borrow(file.fd as Fd).map_err(failed(file))?;
    sys::fs::hung_up(end.fd()).map_err(failed(file))
}

/// Whether something waits to be read from it.
fn is_left<T: Target>(target: &T, file: &OpenFile) -> Result<bool> {
    if mode(file) != O_RDONLY {
        return Ok(false);
    }
    let end = target.borrow(file.fd as Fd).map_err(failed(file))?;
    Ok(sys::fs::waiting(end.fd()).map_err(failed(file))? != 0)
}

/// Whether it is an end of a pipe without a name that lies inside.
fn is_end(file: &OpenFile) -> bool {
    file.is_first(Kind::InnerPipe) && file.named == 0
}

/// Whether it is an end that was opened by way of another one (`/dev/fd/N`), as shells do: not the one that pipe(2) has made, which
/// alone bears no `O_LARGEFILE`, or another one in its place.
pub(crate) fn is_again(files: &[OpenFile], file: &OpenFile) -> bool {
    let is_same = |f: &&OpenFile| is_end(f) && (f.dev, f.ino, mode(f)) == (file.dev, file.ino, mode(file));
    let made = || files.iter().filter(is_same).min_by_key(|f| f.flags & O_LARGEFILE);
    is_end(file) && (mode(file) == O_RDWR || made().is_some_and(|made| made.id != file.id))
}

/// Writes both tables.
///
/// # Errors
/// Contents that cannot be read or told apart; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.notes.begin(NoteType::Pipe)?;
    for file in files.iter().filter(|f| f.is_first(Kind::Pipe) || f.is_first(Kind::InnerPipe)) {
        let (id, flags) = (file.id.into(), file.flags.into());
        let named = u32::from(file.named != 0).into();
        let again = u32::from(is_again(files, file)).into();
        save.notes.push(&Pipe { id, flags, ino: file.ino.into(), path: file.path, named, again })?;
    }
    save.notes.end()?;
    save.notes.begin(NoteType::PipeData)?;
    let is_end = |f: &OpenFile| is_end(f) && !is_again(files, f);
    let ends = |wanted: u32| files.iter().filter(move |f| is_end(f) && mode(f) == wanted);
    let fifo = |f: &&OpenFile| f.is_first(Kind::InnerPipe) && f.named != 0 && mode(f) != O_WRONLY;
    let once = |f: &&OpenFile| files.iter().filter(fifo).find(|other| (other.dev, other.ino) == (f.dev, f.ino));
    for read in
        files.iter().filter(|f| is_end(f) && mode(f) == O_RDONLY || fifo(f) && once(f).is_some_and(|o| o.id == f.id))
    {
        let write = ends(O_WRONLY).filter(|_| read.named == 0).find(|w| (w.dev, w.ino) == (read.dev, read.ino));
        save_contents(save, read, write)?;
    }
    for write in ends(O_WRONLY).filter(|w| !ends(O_RDONLY).any(|r| (w.dev, w.ino) == (r.dev, r.ino))) {
        // Nobody will ever read what it holds.
        let end = save.target.borrow(write.fd as Fd).map_err(failed(write))?;
        let size = sys::fs::fcntl(end.fd(), F_GETPIPE_SZ, 0).map_err(failed(write))? as u32;
        push(save, (CLOSED, write.id), size, &[], false)?;
    }
    save.notes.end()?;
    Ok(())
}

fn push<T: Target>(save: &mut Save<'_, '_, T>, ends: (u32, u32), size: u32, bytes: &[u8], packet: bool) -> Result<()> {
    let bytes = save.notes.string(bytes)?;
    save.notes.push(&PipeData {
        read: ends.0.into(),
        write: ends.1.into(),
        bytes,
        size: size.into(),
        packet: u32::from(packet).into(),
    })?;
    Ok(())
}

/// Reads a copy of what a pipe holds: nothing is taken out of it.
fn save_contents<T: Target>(save: &mut Save<'_, '_, T>, read: &OpenFile, write: Option<&OpenFile>) -> Result<()> {
    let failed = failed(read);
    let ids = (read.id, write.map_or(CLOSED, |w| w.id));
    let end = save.target.borrow(read.fd as Fd).map_err(&failed)?;
    let size = sys::fs::fcntl(end.fd(), F_GETPIPE_SZ, 0).map_err(&failed)?;
    let len = sys::fs::waiting(end.fd()).map_err(&failed)?;
    if len == 0 {
        return push(save, ids, size as u32, &[], false);
    }
    let refuse = |why| {
        let object = format_args!("descriptor {} (pipe:[{}] inside the process)", read.fd, read.ino);
        Error::refused(object, why, "empty it before the save")
    };
    if len > CONTENTS_MAX {
        return Err(refuse("holds more than 1 MiB, which cannot be carried yet"));
    }
    let (copy, probe) = (copy_of(&end, size, len).map_err(&failed)?, copy_of(&end, size, len).map_err(&failed)?);
    let mut rest = save.scratch.bytes(len)?;
    let mut packets = false;
    while !rest.is_empty() {
        // A read ends behind a packet; a read of one byte takes the whole of one.
        let got = sys::fs::read(copy.fd(), rest).map_err(&failed)?;
        let before = sys::fs::waiting(probe.fd()).map_err(&failed)?;
        sys::fs::read(probe.fd(), &mut [0]).map_err(&failed)?;
        let taken = before.saturating_sub(sys::fs::waiting(probe.fd()).map_err(&failed)?);
        let (bytes, after) = rest.split_at_mut_checked(got).ok_or_else(|| failed(sys::Errno::EIO))?;
        rest = after;
        // A packet of one byte looks like any byte: then the end for writing tells.
        let packet = taken == got && (got > 1 || packets || write.is_some_and(|w| w.flags & O_DIRECT != 0));
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
        push(save, ids, size as u32, bytes, packet)?;
    }
    Ok(())
}

/// A pipe of the saver's own that holds the same.
fn copy_of(end: &Owned, size: usize, len: usize) -> sys::Result<Owned> {
    let [read, write] = sys::fs::pipe(O_NONBLOCK)?.map(Owned::new);
    sys::fs::fcntl(write.fd(), F_SETPIPE_SZ, size)?;
    if sys::fs::tee(end.fd(), write.fd(), len)? == len { Ok(read) } else { Err(sys::Errno::EIO) }
}

/// Opens a FIFO again by its name, without waiting for the other end; its flags are set when it is in place. (A pipe
/// without a name is inherited, see the restart.)
///
/// # Errors
/// Missing, no FIFO, or opened for writing while nobody reads.
pub fn restore(image: &Checked<'_>, pipe: &Pipe, fd: u32) -> Result<Owned> {
    let path = image.string(pipe.path);
    let failed = |why, e| {
        Error::descriptor(fd, packed!("FIFO"), path, why, Some(e))
            .code(ExitCode::FileMissing)
            .hint(packed!("create it and start its other end, or --fd N=PATH"))
    };
    let opened = sys::fs::open_path(path, pipe.flags.get() | O_NONBLOCK, 0)
        .map_err(|e| failed(packed!("cannot be opened"), e))?;
    let stat = sys::fs::fstat(opened.fd()).map_err(|e| failed(packed!("cannot be examined"), e))?;
    if stat.mode & S_IFMT != S_IFIFO {
        return Err(failed(packed!("is no FIFO any more"), sys::Errno::ENXIO).code(ExitCode::FileChanged));
    }
    Ok(opened)
}

/// Fills a FIFO whose both ends are inside, unless somebody else has kept it open with what it holds: a descriptor that keeps it
/// until its ends are opened. `None`: the contents are those of a pipe without a name, or not the first of theirs.
///
/// # Errors
/// As [`restore`]; contents that do not fit.
pub fn restore_fifo(image: &Checked<'_>, data: &PipeData) -> Result<Option<Owned>> {
    let Some(pipe) = image.open_file(data.read.get()).and_then(|file| file.of::<Pipe>()) else { return Ok(None) };
    let first = image.each::<PipeData>().find(|other| other.read == data.read);
    if pipe.named.get() == 0 || first.is_none_or(|first| !core::ptr::eq(first, data)) {
        return Ok(None);
    }
    let mode = if data.packet.get() != 0 { O_DIRECT } else { 0 };
    let fifo = restore(image, &Pipe { flags: (O_RDWR | mode).into(), ..*pipe }, data.read.get())?;
    if sys::fs::waiting(fifo.fd()) == Ok(0) {
        let failed =
            |e| Error::about(packed!("FIFO: cannot hold what it held (!)"), 0u32, b"", e).code(ExitCode::Descriptor);
        fill(image, data, fifo.fd()).map_err(failed)?;
    }
    Ok(Some(fifo))
}

/// Puts contents into a pipe.
fn fill(image: &Checked<'_>, data: &PipeData, write: Fd) -> sys::Result<()> {
    sys::fs::fcntl(write, F_SETPIPE_SZ, data.size.get() as usize)?;
    for part in image.each::<PipeData>() {
        if (part.read, part.write) == (data.read, data.write) {
            sys::fs::write_all(write, image.contents(part.bytes))?;
        }
    }
    Ok(())
}

/// Opens an end that was opened again; `open`: what all descriptors of the program are by now.
///
/// # Errors
/// The kernel's.
#[cfg(feature = "tree")]
pub fn restore_again(image: &Checked<'_>, again: &Pipe, open: &[Fd]) -> sys::Result<Fd> {
    // The image's rules promise one that was made with what it holds.
    let mut ends = image.each::<Pipe>().filter(|pipe| pipe.ino == again.ino && pipe.again.get() == 0);
    let end = ends.find_map(|pipe| crate::descriptor::now(image, open, pipe.id.get())).ok_or(sys::Errno::EBADF)?;
    let flags = again.flags.get();
    let made = crate::content::open_again(end, flags & O_ACCMODE | O_NONBLOCK)?;
    sys::fs::fcntl(made.fd(), sys::abi::F_SETFL, flags as usize)?;
    Ok(made.release())
}

/// Makes a pipe that lay inside, with what it held: both ends.
///
/// # Errors
/// The kernel's: a buffer above the limit of this user, or contents that do not fit it.
pub fn restore_inner(image: &Checked<'_>, data: &PipeData) -> sys::Result<[Fd; 2]> {
    let mode = if data.packet.get() != 0 { O_DIRECT } else { 0 };
    let ends = sys::fs::pipe(O_NONBLOCK | mode)?;
    let [_, write] = ends;
    fill(image, data, write)?;
    Ok(ends)
}
