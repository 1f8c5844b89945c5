//! Descriptors, and which open file descriptions they share.
//!
//! One walk over `/proc/PID/fd` finds each descriptor's name, type, flags and offset; the object files then write
//! one record per description, and this one the table of numbers.

mod kind;
mod open_file;
mod same;

use core::convert::Infallible;

use image_format::record::descriptor::Descriptor;
use image_format::record::header::Features;
use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::{Checked, NoteType, writer::Full};
use sys::Errno;
use sys::abi::{O_ASYNC, O_CLOEXEC, O_PATH};
use sys::fs::{Fd, Owned};
use sys::text::{Text, cut, decimal, octal};
use zerocopy::FromZeros;

pub use self::open_file::{Kind, OpenFile};
use crate::socket::{self, Queues};
use crate::{Error, Object, Result, Save, Target, pipe, pty, regular};

/// Finds all descriptors of the process, and what waits in its Unix sockets; refuses what cannot be carried.
///
/// # Errors
/// A descriptor that cannot be carried, by number, kind and name.
pub fn collect<'b, T: Target>(save: &mut Save<'_, 'b, T>) -> Result<(&'b [OpenFile], Queues<'b>)> {
    let mut count = 0;
    for place in 0..save.target.processes() {
        count += self::count(directory(save.target, place)?.fd())?;
    }
    let table = save.scratch.take::<OpenFile>(count)?;
    let mut used = 0;
    for place in 0..save.target.processes() {
        let dir = directory(save.target, place)?;
        sys::fs::for_each_name(dir.fd(), |name| {
            let Some(fd) = decimal(name).and_then(|n| Fd::try_from(n).ok()) else { return Ok(()) };
            if T::IN_PROCESS && fd == dir.fd() || save.target.is_ours(fd) {
                return Ok(());
            }
            if fd as u32 > FD_MASK {
                let error = Error::refused(Object::bare(fd as u32), "has too great a number", "use lesser ones");
                return save.target.blocked(error);
            }
            match look(save.target, (place << FD_BITS) as Fd | fd) {
                Ok(file) => *table.get_mut(used).ok_or(Full)? = file,
                Err(error) => return save.target.blocked(error),
            }
            used += 1;
            Ok::<_, Error>(())
        })
        .map_err(unreadable)??;
    }
    let table = table.get_mut(..used).unwrap_or_default();
    table.sort_unstable_by_key(|file| file.fd);
    same::group(save, table)?;
    let table = tell_kinds(save, table)?;
    let own = own_directory(save.target, 0)?;
    let (table, queues) = socket::collect(save, table, own.as_bytes())?;
    for file in &mut *table {
        pty::closes_on_exec(save.target, file)?;
    }
    pipe::pair(save, table)?;
    pty::pair(save, table)?;
    socket::check(save, table)?;
    for file in table.iter().filter(|file| file.in_transit != 0) {
        // The restart's own takes the place of such a one, by its number.
        if [Kind::Terminal as u32, Kind::Pipe as u32].contains(&file.kind) && file.named == 0 {
            let why = "is in transit alone, and leads to another process, which cannot be carried";
            let error = Error::refused(Object::bare(file.number()), why, "let the program receive it");
            save.target.blocked(error)?;
        }
    }
    Ok((table, queues))
}

/// Finds the name and the kind of each description. Returns the descriptors of those that can be carried.
fn tell_kinds<'b, T: Target>(save: &mut Save<'_, 'b, T>, table: &'b mut [OpenFile]) -> Result<&'b mut [OpenFile]> {
    let (mut own, mut place, mut kept) = (Text::<64>::new(), None, 0);
    for index in 0..table.len() {
        let (known, rest) = table.split_at_mut(index);
        let Some(file) = rest.first_mut() else { break };
        if place != Some(file.place()) {
            place = Some(file.place());
            own = own_directory(save.target, file.place() as usize)?;
        }
        if file.id == file.fd {
            if let Err(error) = kind::tell(save, file, own.as_bytes()) {
                save.target.blocked(error)?;
                continue;
            }
        } else {
            let Some(first) = first_of(known.get(..kept).unwrap_or_default(), file.id) else { continue };
            // Each process opens its own ones again.
            if ![0, file.place()].contains(&first.place()) && regular::is_own(save.notes.kept(first.path)) {
                let object = Object::bare(file.fd);
                let why = "leads to a file of /proc of another process, which it shares";
                save.target.blocked(Error::refused(object, why, "close it before the save"))?;
                continue;
            }
            (file.kind, file.path, file.named, file.nlink) = (first.kind, first.path, first.named, first.nlink);
        }
        table.swap(kept, index);
        kept += 1;
    }
    Ok(table.get_mut(..kept).unwrap_or_default())
}

/// The directory in `/proc` of the process at a place, by its name.
fn own_directory<T: Target>(target: &T, place: usize) -> Result<Text<64>> {
    let (mut room, link) = ([0; 64], Text::<32>::of(format_args!("/proc/self/fd/{}", target.proc_of(place))));
    let mut own = Text::new();
    let name = sys::fs::read_link_at(sys::abi::AT_FDCWD, link.as_c_str(), &mut room);
    own.push(name.map_err(|e| Error::failed(format_args!("directory of /proc"), "its name cannot be read", e))?);
    Ok(own)
}

/// The first descriptors of all descriptions, in the kernel's order; none when it does not tell.
///
/// # Errors
/// No room.
pub fn sorted<'b, T: Target>(save: &mut Save<'_, 'b, T>, files: &[OpenFile]) -> Result<&'b [u32]> {
    same::sorted(save, files)
}

/// The first descriptor of the description with this id; `files` ascend by number.
#[must_use]
pub fn first_of(files: &[OpenFile], id: u32) -> Option<&OpenFile> {
    files.binary_search_by_key(&id, |file| file.fd).ok().and_then(|at| files.get(at))
}

/// The directory with the descriptors of the process at a place.
fn directory<T: Target>(target: &T, place: usize) -> Result<Owned> {
    sys::fs::open_at(target.proc_of(place), c"fd", sys::abi::O_DIRECTORY, 0).map_err(unreadable)
}

fn unreadable(errno: Errno) -> Error {
    Error::failed(format_args!("descriptors"), "/proc/PID/fd cannot be read", errno)
}

/// How many descriptors there are, at most.
fn count(dir: Fd) -> Result<usize> {
    // Linux 6.2 and newer tell; in its own process the directory is one of them.
    let mut count = sys::fs::fstat(dir).map_or(0, |stat| stat.size as usize);
    if count == 0 {
        sys::fs::for_each_name(dir, |_| {
            count += 1;
            Ok::<_, Infallible>(())
        })
        .map_err(unreadable)?
        .unwrap_or_else(|never| match never {});
    }
    Ok(count)
}

/// In [`OpenFile::locked`].
const LOCKED: u32 = 1;
const LEASED: u32 = 2;

/// Features that an image with these needs.
#[must_use]
pub fn features(files: &[OpenFile]) -> Features {
    const EVENTS: [u32; 4] = [Kind::Eventfd as u32, Kind::Timerfd as u32, Kind::Signalfd as u32, Kind::Epoll as u32];
    let needs = [
        (Features::IN_TRANSIT, files.iter().any(|f| f.in_transit != 0)),
        (Features::LOCKS, files.iter().any(|f| f.locked != 0)),
        (Features::OTHERS_PIDFDS, files.iter().any(|f| f.other != 0)),
        (Features::LEASES, files.iter().any(|f| f.locked & LEASED != 0)),
        (Features::PIPES_AGAIN, files.iter().any(pipe::is_again)),
        (Features::INNER_PIPES, files.iter().any(|f| f.kind == Kind::InnerPipe as u32)),
        (Features::CONTENTS, files.iter().any(|f| f.kind == Kind::Content as u32)),
        (Features::NOTICES, files.iter().any(|f| f.kind == Kind::Inotify as u32 || f.kind == Kind::Pidfd as u32)),
        (Features::RINGS, files.iter().any(|f| f.kind == Kind::IoUring as u32)),
        (Features::PTYS, files.iter().any(|f| f.kind == Kind::Pty as u32)),
        (Features::SOCKETS, files.iter().any(|f| f.kind == Kind::Socket as u32)),
        (Features::EVENTS, files.iter().any(|f| EVENTS.contains(&f.kind))),
    ];
    needs.into_iter().filter(|(_, needed)| *needed).map(|(feature, _)| feature).collect()
}

/// Examines a descriptor that is no other's twin; `own`: the process's directory in `/proc`.
pub(crate) fn find<T: Target>(save: &mut Save<'_, '_, T>, fd: Fd, own: &[u8]) -> Result<OpenFile> {
    let mut file = look(save.target, fd)?;
    kind::tell(save, &mut file, own)?;
    Ok(file)
}

/// What stat(2) and the kernel's list tell of a descriptor.
fn look<T: Target>(target: &T, fd: Fd) -> Result<OpenFile> {
    let failed = |e| Error::failed(Object::bare(fd as u32), "cannot be examined", e);
    let (proc, number) = target.at(fd as u32);
    let stat = sys::fs::stat_at(proc, Text::<32>::of(format_args!("fd/{number}")).as_c_str(), 0).map_err(failed)?;
    let mut file = OpenFile {
        fd: fd as u32,
        id: fd as u32,
        dev: stat.dev,
        ino: stat.ino,
        rdev: stat.rdev,
        size: stat.size as u64,
        mtime_sec: stat.mtime.sec,
        mtime_nsec: stat.mtime.nsec,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        nlink: stat.nlink,
        ..OpenFile::new_zeroed()
    };
    read_fdinfo((proc, number), &mut file)?;
    Ok(file)
}

/// Each line `key: value` of what the kernel tells about a descriptor, see [`Target::at`].
///
/// # Errors
/// It cannot be read, or what `each` returns.
pub fn each_fact((proc, fd): (Fd, u32), mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    let failed = |e| Error::failed(Object::bare(fd), "/proc/PID/fdinfo cannot be read", e);
    let path = Text::<32>::of(format_args!("fdinfo/{fd}"));
    let mut buffer = [0; 512];
    let mut lines = sys::fs::Lines::open_at(proc, path.as_c_str(), &mut buffer).map_err(failed)?.whole();
    while let Some(line) = lines.next_line().map_err(failed)? {
        if let Some((key, value)) = cut(line, b':') {
            each(key, value.trim_ascii())?;
        }
    }
    Ok(())
}

fn read_fdinfo(at: (Fd, u32), file: &mut OpenFile) -> Result<()> {
    let fd = file.fd;
    let unreadable = || Error::failed(Object::bare(fd), "/proc/PID/fdinfo cannot be understood", Errno::EIO);
    each_fact(at, |key, value| {
        match key {
            // Of some files of `/proc` it is an address, which may be negative.
            b"pos" => {
                let (digits, is_negative) = value.strip_prefix(b"-").map_or((value, false), |digits| (digits, true));
                let offset = decimal(digits).ok_or_else(unreadable)?;
                file.offset = if is_negative { offset.wrapping_neg() } else { offset };
            }
            b"flags" => {
                let flags = octal(value).ok_or_else(unreadable)? as u32;
                file.cloexec = u32::from(flags & O_CLOEXEC != 0);
                file.driven = u32::from(flags & O_ASYNC != 0 && flags & O_PATH == 0);
                file.flags = flags & !(O_CLOEXEC | O_ASYNC);
            }
            // Of a terminal's master, which has no offset: those of two terminals look alike else.
            b"tty-index" => file.offset = decimal(value).ok_or_else(unreadable)?,
            // Nor has an eventfd an offset, and these have nothing else to tell them apart by.
            b"eventfd-id" => file.offset = decimal(value).ok_or_else(unreadable)?,
            b"lock" if sys::text::words(value).any(|word| word == b"LEASE") => {
                file.locked |= LEASED;
                // It is a part of having a lease, by which it comes back.
                file.driven = 0;
            }
            b"lock" => file.locked |= LOCKED,
            _ => {}
        }
        Ok(())
    })
}

/// Writes the table of numbers.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.notes.begin(NoteType::Descriptor)?;
    for file in files {
        let (fd, id, cloexec) = (file.fd.into(), file.id.into(), file.cloexec.into());
        save.notes.push(&Descriptor { fd, file: id, cloexec, reserved: 0.into() })?;
    }
    save.notes.end()?;
    Ok(())
}

/// Where a description is open now; `open`: for each of the program's descriptors the number now, or -1.
#[must_use]
#[inline(never)]
pub fn now(image: &Checked<'_>, open: &[Fd], id: u32) -> Option<Fd> {
    first(image, id).and_then(|index| open.get(index)).copied().filter(|open| *open >= 0)
}

/// The place of a description's first descriptor in their table.
#[must_use]
pub fn first(image: &Checked<'_>, id: u32) -> Option<usize> {
    image.each::<Descriptor>().place(id)
}

/// Puts an open file under one of the program's numbers.
///
/// # Errors
/// The kernel's.
pub fn restore(descriptor: &Descriptor, open: Fd) -> sys::Result<()> {
    // SAFETY: the number is the program's from now on.
    unsafe { sys::fs::dup_to(open, (descriptor.fd.get() & FD_MASK) as Fd, descriptor.cloexec.get() != 0) }
}
