//! System V shared memory segments: attached again, under their keys and ids. One that is still there is looked at and never
//! written; one that is gone is made again from its bytes, which are a `content`.
//!
//! Must never end, change or go on with a segment that is somebody else's.

use core::ffi::CStr;

use image_format::record::content::ContentKind;
use image_format::record::header::Features;
use image_format::record::memory::{Vma, VmaFlags};
use image_format::record::sysv::Sysv;
use image_format::{Checked, ExitCode, PAGE, align_up};
use sys::abi::O_WRONLY;
use sys::sysv::{FACTS, LOCK, NEW, RDONLY, RMID, SET, STAT};
use sys::text::Line;
use sys::{Errno, Sysno};
use zerocopy::{FromBytes, IntoBytes};

use crate::content::{Contents, Object};
use crate::inside::Arg;
use crate::{Error, Result, Save, Target, restart};

/// What the process's IPC namespace says of a segment; nothing, when that is not the one that it has attached.
fn facts<T: Target>(target: &mut T, object: &Object) -> sys::Result<Option<Sysv>> {
    let (mut data, zero) = ([0; size_of::<Sysv>()], Arg::Value(0));
    let args = [Arg::Value(object.ino as usize), Arg::Value(STAT.number()), Arg::Data(0), zero, zero, zero];
    // SAFETY: `IPC_STAT` fills the structure.
    match unsafe { target.call(Sysno::shmctl, args, &mut data) } {
        Ok(_) => {}
        Err(Errno::EINVAL | Errno::EIDRM) => return Ok(None),
        Err(e) => return Err(e),
    }
    let Ok(mut one) = Sysv::read_from_bytes(&data) else { return Ok(None) };
    one.id = (object.ino as u32).into();
    one.flags = if object.written == 0 { RDONLY } else { 0 }.into();
    let marked = one.mode.get() & Sysv::DEST != 0;
    Ok(Some(one).filter(|one| marked || one.key.get() == object.key))
}

/// Whether no part of its attachments was unmapped.
fn is_whole(object: &Object, one: &Sysv) -> bool {
    object.attached == length(one)
}

/// Refuses a segment that cannot be attached again as it is.
pub(crate) fn check<T: Target>(target: &mut T, object: &Object) -> Result<()> {
    let asked = facts(target, object);
    let name = format_args!("System V shared memory {} (key {:#x})", object.ino, object.key);
    let error = match asked {
        // Who only looks makes no such call.
        Ok(None) | Err(Errno::ENOSYS) => return Ok(()),
        Err(e) => Error::failed(name, "cannot be asked for", e),
        Ok(Some(one)) if one.mode.get() & Sysv::DEST != 0 => {
            if one.nattch.get() <= object.mappings {
                return Ok(());
            }
            let why = "is attached by another process, too";
            Error::refused(name, why, "save it when only this process has it")
        }
        Ok(Some(one)) if is_whole(object, &one) => return Ok(()),
        Ok(_) => Error::refused(name, "is attached in part", "unmap all of it before the save"),
    };
    target.blocked(error)
}

/// Writes the table.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, contents: &Contents<'_>) -> Result<Features> {
    let mut features = Features::empty();
    save.notes.begin(image_format::NoteType::Sysv)?;
    for (index, object) in contents.objects().iter().enumerate().filter(|(_, o)| o.kind == ContentKind::SysV as u32) {
        // In part, and marked for removal: its memory is carried, without the attachment.
        if let Ok(Some(mut one)) = facts(save.target, object)
            && is_whole(object, &one)
        {
            one.content = (index as u32).into();
            save.notes.push(&one)?;
            if one.mode.get() & Sysv::DEST == 0 {
                features = Features::SYSV;
            }
        }
    }
    save.notes.end()?;
    Ok(features)
}

/// A segment at the restart: its id, where it is attached meanwhile, and whether it was made again and is empty.
#[derive(Clone, Copy, Debug)]
pub struct Attached {
    /// Its id.
    pub id: i32,
    /// The address.
    pub at: usize,
    /// It was made again.
    pub is_new: bool,
}

/// Finds the segment, or makes it again. One that was marked for removal is always made again, under another id where this user
/// has no choice: nobody else can have it.
///
/// # Errors
/// Its id or key is another one's, or it cannot be made.
pub fn open(one: &Sysv) -> restart::Result<Attached> {
    let (mode, mut id) = (one.mode.get(), one.id.get() as i32);
    let mut now = [0; FACTS];
    let is_new = mode & Sysv::DEST != 0 || sys::sysv::control(id, STAT, &mut now).is_err();
    if is_new {
        let make = || sys::sysv::get(one.key.get(), one.size.get(), mode & 0o777 | 0o600 | NEW);
        let remove = |id| {
            let _ = sys::sysv::control(id, RMID, &mut [0; FACTS]);
        };
        let most = if mode & Sysv::DEST == 0 { OBJECTS_MAX } else { 1 };
        let made = choose_next(c"/proc/sys/kernel/shm_next_id", id, || reach(id, most, make, remove));
        id = match made {
            // Nobody can know it by its id.
            Err(Errno::EPERM) if mode & Sysv::DEST != 0 => make(),
            other => other,
        }
        .map_err(|e| missing(one, e))?;
    } else if now.get(..Sysv::IDENTITY) != one.as_bytes().get(..Sysv::IDENTITY) {
        return Err(others(one));
    }
    let flags = if is_new { 0 } else { one.flags.get() };
    let at = sys::sysv::attach(id, 0, flags).map_err(|e| missing(one, e))?;
    Ok(Attached { id, at, is_new })
}

/// Most objects that are made to reach an id: some two seconds.
pub(crate) const OBJECTS_MAX: i64 = 250_000;

/// Makes an object with this id: `/proc/sys/kernel/*_next_id` names the next one, where this user may write that.
pub(crate) fn choose_next(path: &CStr, id: i32, make: impl FnOnce() -> sys::Result<i32>) -> sys::Result<i32> {
    let line = Line::filled("#", id as u64, b"", 0);
    let _ = sys::fs::open(path, O_WRONLY, 0).and_then(|file| sys::fs::write_all(file.fd(), line.as_bytes()));
    make()
}

/// Makes an object with this id after at most so many that are removed again: the kernel deals ids in turn, and after a reboot it begins
/// anew (ipc/util.c).
///
/// # Errors
/// EPERM: it is not within reach; those of `make`.
pub(crate) fn reach(id: i32, most: i64, make: impl Fn() -> sys::Result<i32>, remove: impl Fn(i32)) -> sys::Result<i32> {
    /// Places in its table that the kernel uses in turn before it counts on, as long as few objects are there.
    const PLACES: i64 = 64;
    /// Bits of an id that tell the place; how many numbers are above them.
    const PLACE_BITS: u32 = 15;
    const NUMBERS: i64 = 65_535;
    // How many ids come before one, from the first of all.
    let turn = |id: i32| i64::from(id >> PLACE_BITS) * PLACES + i64::from(id & ((1 << PLACE_BITS) - 1));
    for made in 0..most {
        let now = make()?;
        if now == id {
            return Ok(now);
        }
        remove(now);
        if (turn(id) - turn(now)).rem_euclid(NUMBERS * PLACES) > most - made {
            break;
        }
    }
    Err(Errno::EPERM)
}

fn missing(one: &Sysv, e: Errno) -> restart::Error {
    let what = "System V memory #: cannot be made again under its key and id (!): free these, or restart as root";
    restart::Error::about(ExitCode::FileMissing, what, one.id.get(), b"", e)
}

/// Somebody else may need it.
fn others(one: &Sysv) -> restart::Error {
    let what = "System V memory #: is another one, or has another owner, mode or size, since the save: free that id";
    restart::Error::about(ExitCode::FileChanged, what, one.id.get(), b"", None)
}

/// It holds other bytes than it held.
#[must_use]
pub fn changed(one: &Sysv) -> restart::Error {
    let what = "System V memory #: was written after the save: ipcrm -m #, if nobody needs it, or --files ignore";
    restart::Error::about(ExitCode::FileChanged, what, one.id.get(), b"", None)
}

/// What stands for a segment where descriptors do: less than -1.
#[must_use]
pub const fn slot(id: i32) -> i32 {
    id | i32::MIN
}

/// Attaches a segment for a mapping, whose first part stands for all of it.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// The range is the program's.
pub unsafe fn restore(vma: &Vma, slot: i32) -> sys::Result<()> {
    let (start, len) = (vma.start.get() as usize, (vma.end.get() - vma.start.get()) as usize);
    if vma.offset.get() == 0 {
        let reads = vma.flags.get() & VmaFlags::MAY_WRITE.bits() == 0;
        sys::sysv::attach(slot & i32::MAX, start, if reads { RDONLY } else { 0 })?;
    }
    // SAFETY: the caller vouches for the range.
    unsafe { sys::memory::protect(start, len, vma.prot.get()) }?;
    crate::memory::advise(vma);
    Ok(())
}

/// Gives segments their owners and modes, and marks those that were marked for removal, when all are attached. What was there is
/// as it was.
pub fn finish(image: &Checked<'_>, slots: &[i32]) {
    for one in image.each::<Sysv>() {
        let Some(slot) = slots.get(one.content.get() as usize) else { continue };
        let Some(mut facts) = one.as_bytes().first_chunk().copied() else { continue };
        let wanted =
            [(SET, true), (LOCK, one.mode.get() & Sysv::LOCKED != 0), (RMID, one.mode.get() & Sysv::DEST != 0)];
        for (command, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
            let _ = sys::sysv::control(slot & i32::MAX, command, &mut facts);
        }
    }
}

/// Bytes of the memory of a segment.
#[must_use]
pub fn length(one: &Sysv) -> u64 {
    align_up(one.size.get(), PAGE)
}
