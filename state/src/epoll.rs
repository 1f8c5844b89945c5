//! epoll sets: made again, with everything that they watch, when all descriptors are in place.
//!
//! The kernel knows what is watched by open file *and* by the number under which it was added, and the program may
//! since have closed that number or used it for something else. So each is added under its number before the program's own
//! descriptors take theirs.

use core::cmp::Ordering;

use image_format::Checked;
use image_format::NoteType;
use image_format::record::epoll::{Epoll, Watch};
use image_format::record::pidfd::PidfdOf;
use image_format::record::process::FD_MASK;
use image_format::writer::Full;
use sys::abi::{EPIOCGPARAMS, EPOLL_CTL_ADD, S_IFMT, S_IFSOCK};
use sys::fs::{Fd, Owned};
use sys::text::{decimal, hex, words};
use sys::{Errno, Sysno};
use zerocopy::FromZeros;

use crate::descriptor::{self, Kind, OpenFile, each_fact, first_of, now};
use crate::index::Index;
use crate::inside::Arg;
use crate::{Error, Object, Result, Save, Target};

/// Refuses a set that polls network devices busily: that cannot be read on all kernels, nor set by all users.
///
/// # Errors
/// Such a set.
fn check<T: Target>(target: &mut T, fd: u32) -> Result<()> {
    let mut data = [0; 8];
    let (zero, fd_arg) = (Arg::Value(0), Arg::Value(fd as usize));
    let args = [fd_arg, Arg::Value(EPIOCGPARAMS), Arg::Data(0), zero, zero, zero];
    // SAFETY: fills the structure, eight bytes.
    let asked = unsafe { target.call(Sysno::ioctl, args, &mut data) };
    if asked.is_ok() && data != [0; 8] {
        let object = Object::descriptor(fd, format_args!("epoll"));
        return Err(Error::refused(
            object,
            "has parameters for busy polling, which cannot be carried yet",
            "reset them",
        ));
    }
    Ok(())
}

/// One line of what a set watches, as the kernel tells it (fs/eventpoll.c):
/// `tfd:        4 events: 40000019 data: 123456789abcdef0  pos:0 ino:414 sdev:10`.
fn parse(value: &[u8]) -> Option<(Watch, u64)> {
    let mut fields = words(value);
    let mut watch = Watch::new_zeroed();
    watch.fd = u32::try_from(decimal(fields.next()?)?).ok()?.into();
    watch.events = u32::try_from(hex(fields.nth(1)?)?).ok()?.into();
    watch.data = hex(fields.nth(1)?)?.into();
    let ino = fields.find_map(|field| field.strip_prefix(b"ino:"))?;
    Some((watch, hex(ino)?))
}

/// Each line of a set.
fn each_watch<T: Target>(target: &T, epoll: u32, mut each: impl FnMut(Watch, u64) -> Result<()>) -> Result<()> {
    each_fact(target.at(epoll), |key, value| {
        if key != b"tfd" {
            return Ok(());
        }
        let unknown = || {
            Error::refused(
                Object::descriptor(epoll, format_args!("epoll")),
                "has an unreadable entry",
                "close it before the save",
            )
        };
        let (watch, ino) = parse(value).ok_or_else(unknown)?;
        each(watch, ino)
    })
}

/// Writes both tables.
///
/// # Errors
/// A set that watches a file of which this process has no descriptor any more; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Epoll, |target, file| {
        check(target, file.fd)?;
        Ok(Epoll { id: file.id.into(), flags: file.flags.into() })
    })?;
    save.notes.begin(NoteType::Watch)?;
    let mut found = Found::default();
    for epoll in files.iter().filter(|f| f.is_first(Kind::Epoll)) {
        let mut count = 0;
        each_watch(save.target, epoll.fd, |_, _| {
            count += 1;
            Ok(())
        })?;
        let table = save.scratch.take::<Watch>(count)?;
        let inodes = save.scratch.take::<u64>(count)?;
        let mut rest = table.iter_mut().zip(&mut *inodes);
        each_watch(save.target, epoll.fd, |watch, ino| {
            let (place, inode) = rest.next().ok_or(Full)?;
            (*place, *inode) = (watch, ino);
            Ok(())
        })?;
        let mut numbers = Index::new(&mut save.scratch, count)?;
        for (index, ino) in inodes.iter().enumerate() {
            let Some(watch) = table.get(index).copied() else { break };
            let number = watch.fd.get();
            // How many of the same number the kernel lists before it.
            let before = numbers.under(number.into()).filter_map(|at| table.get(at));
            let nth = before.filter(|other| other.fd == watch.fd).count() as u32;
            numbers.put(number.into(), index)?;
            let file = find(save, files, &mut found, Slot { epoll: epoll.fd, number, nth }, *ino)?;
            if let Some(watch) = table.get_mut(index) {
                (watch.epoll, watch.file) = (epoll.id.into(), file.into());
            }
        }
        table.sort_unstable_by_key(|w| (w.fd.get(), w.file.get()));
        for watch in table {
            save.notes.push(watch)?;
        }
    }
    save.notes.end()?;
    Ok(())
}

/// An entry of a set, as the kernel is asked about it.
#[derive(Clone, Copy)]
struct Slot {
    epoll: u32,
    number: u32,
    nth: u32,
}

/// Descriptions in the kernel's order, for what is watched under numbers that are closed by now: sorted when it is needed first.
#[derive(Default)]
struct Found<'b> {
    sorted: Option<&'b [u32]>,
}

/// The id of what a set watches under a number.
fn find<'b, T: Target>(
    save: &mut Save<'_, 'b, T>,
    files: &[OpenFile],
    found: &mut Found<'b>,
    slot: Slot,
    ino: u64,
) -> Result<u32> {
    let Slot { epoll, number, nth } = slot;
    // The number was one of the same process's, most likely.
    let there = first_of(files, epoll & !FD_MASK | number).filter(|file| file.ino == ino);
    let order = |target: &T, file: &OpenFile| target.order_of_watched(epoll as Fd, number, nth, file.fd as Fd);
    // A socket's inode has one description alone; others may look alike.
    if let Some(file) = there
        && (file.mode & S_IFMT == S_IFSOCK || matches!(order(save.target, file), Some(Ordering::Equal) | None))
    {
        return Ok(file.id);
    }
    // Closed since, or used again: another descriptor keeps the file open.
    let sorted = match found.sorted {
        Some(sorted) => sorted,
        None => *found.sorted.insert(descriptor::sorted(save, files)?),
    };
    let (mut low, mut high) = (0, sorted.len());
    while low < high {
        let middle = low.midpoint(high);
        let Some(file) = sorted.get(middle).and_then(|fd| first_of(files, *fd)) else { break };
        match order(save.target, file) {
            Some(Ordering::Equal) => return Ok(file.id),
            Some(Ordering::Less) => low = middle + 1,
            Some(Ordering::Greater) => high = middle,
            None => break,
        }
    }
    Err(Error::refused(
        Object::descriptor(epoll, format_args!("epoll")),
        "watches a file that was added as a descriptor which is closed here, and which another process keeps open",
        "remove it from the set before closing it",
    ))
}

/// Makes an empty set.
///
/// # Errors
/// The kernel's.
pub fn restore() -> sys::Result<Fd> {
    sys::fs::epoll().map(Owned::release)
}

/// Adds to all sets what they watch (`EPOLL_CTL_ADD`), or takes it out again, under the numbers where it is now; without
/// an operation adds it under the numbers that the program used, whatever was there. `open`: as in [`now`].
///
/// # Errors
/// The kernel's, with the number that the program used.
#[inline(never)]
pub fn control(image: &Checked<'_>, operation: usize, open: &[Fd]) -> core::result::Result<(), (Fd, Errno)> {
    for watch in image.each::<Watch>() {
        let [Some(epoll), Some(file)] = [watch.epoll, watch.file].map(|id| now(image, open, id.get())) else {
            // An io_uring instance is made later, by the process whose it is.
            continue;
        };
        let number = watch.fd.get() as Fd;
        // Not there yet, see `control_one`.
        if operation == 0 && image.each::<PidfdOf>().any(|other| other.id == watch.file) {
            continue;
        }
        let done = if operation == 0 {
            // SAFETY: a number of the program's, which it does not use yet.
            unsafe { sys::fs::dup_to(file, number, true) }.and_then(|()| {
                sys::fs::epoll_control(epoll, EPOLL_CTL_ADD, number, watch.events.get(), watch.data.get())
            })
        } else {
            sys::fs::epoll_control(epoll, operation, file, watch.events.get(), watch.data.get())
        };
        match done {
            // One file that is watched under two numbers is at one of them now.
            Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => {}
            Err(e) => return Err((number, e)),
        }
    }
    Ok(())
}

/// Adds what stands for another process of the tree, or could be made by its own one alone, to the sets that watch it, now that this process has it as `file`.
///
/// # Errors
/// The kernel's.
pub fn control_one(image: &Checked<'_>, open: &[Fd], id: u32, file: Fd) -> sys::Result<()> {
    for watch in image.each::<Watch>().filter(|watch| watch.file.get() == id) {
        let (epoll, number) = (now(image, open, watch.epoll.get()).unwrap_or(-1), watch.fd.get() as Fd);
        // SAFETY: a number of the program's, which it does not use yet.
        unsafe { sys::fs::dup_to(file, number, true) }?;
        sys::fs::epoll_control(epoll, EPOLL_CTL_ADD, number, watch.events.get(), watch.data.get())?;
    }
    Ok(())
}
