//! System V semaphore sets that the process was the last to use. They belong to the system: one that is still there is looked at and
//! never set; one that is gone is made again, under its key and id, with its values.
//!
//! Must never end, set or go on with a set that is somebody else's, nor make the process ask for them: the saver asks itself.

use image_format::record::header::Features;
use image_format::record::semaphore::{self, Semaphore};
use image_format::{Checked, ExitCode, NoteType};
use sys::Errno;
use sys::sysv::{NEW, PID, RMID, SET, SET_FACTS, STAT, VALUE};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use crate::process::Stat;
use crate::sysv::{OBJECTS_MAX, choose_next, reach};
use crate::{Error, Result, Save, Target, restart};

/// Writes the table: the sets of this process's IPC namespace of which a process that is saved was the last user of a semaphore. Others
/// are none of its own, as far as the kernel tells. One of another namespace than the saver's is not asked for: its sets are in no
/// image. One that this user may not read is not either: it may be anybody's, and `ckpt save` names it.
///
/// # Errors
/// Too large a set; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>) -> Result<Features> {
    let failed = |e| Error::failed(format_args!("System V semaphores"), "their users cannot be told", e);
    // A kernel without them has none.
    let none = |e| if e == Errno::ENOSYS { Ok((0, 0)) } else { Err(failed(e)) };
    let (top, count) = sys::sysv::sets().or_else(none)?;
    let mut features = Features::empty();
    if count == 0 || !T::IN_PROCESS && !is_here(save.target) {
        return Ok(features);
    }
    // As whoever asks sees it.
    let own =
        if T::IN_PROCESS { save.target.pid() } else { Stat::read(save.target.proc()).map_err(failed)?.pid as i32 };
    save.notes.begin(NoteType::Semaphore)?;
    for place in 0..=top {
        let mut facts = [0; size_of::<Semaphore>()];
        let Some(told) = facts.first_chunk_mut::<SET_FACTS>() else { break };
        let Ok(id) = sys::sysv::set_at(place, told) else { continue };
        let Ok(mut one) = Semaphore::read_from_bytes(&facts) else { break };
        one.id = (id as u32).into();
        // Whoever is asked for in vain is gone.
        let user = |target: &T, number| match sys::sysv::semaphore(id, number, PID) {
            Ok(last) if last == own => Ok(Some(target.pid())),
            Ok(last) if last > 0 => Ok(target.inner_id(last)),
            Ok(_) | Err(Errno::EINVAL | Errno::EIDRM) => Ok(None),
            Err(e) => Err(e),
        };
        let mut numbers = 0..one.count.get() as usize;
        if !numbers.any(|number| user(save.target, number).is_ok_and(|user| user.is_some())) {
            continue;
        }
        if one.count.get() > Semaphore::COUNT_MAX {
            let what = format_args!("System V semaphores {} (key {:#x})", one.id, one.key);
            save.target.blocked(Error::refused(what, "are too many", "use smaller sets"))?;
            continue;
        }
        let values = save.scratch.take::<u16>(one.count.get() as usize)?;
        let users = save.scratch.take::<U32>(values.len())?;
        let mut is_there = sys::sysv::values(id, values).is_ok();
        for (number, last) in users.iter_mut().enumerate() {
            let user = user(save.target, number);
            is_there &= user.is_ok();
            *last = (user.ok().flatten().unwrap_or(0) as u32).into();
        }
        // Somebody may have removed it just now.
        if is_there {
            one.values = save.notes.string(values.as_bytes())?;
            one.users = save.notes.string(users.as_bytes())?;
            save.notes.push(&one)?;
            // A reader that knows segments alone refuses it by that.
            features = Features::SEMAPHORES.union(Features::SYSV);
        }
    }
    save.notes.end()?;
    Ok(features)
}

/// Whether the process lives in the saver's IPC namespace.
fn is_here<T: Target>(target: &T) -> bool {
    let of = |proc| sys::fs::stat_at(proc, c"ns/ipc", 0).map(|stat| (stat.dev, stat.ino)).ok();
    let own = sys::fs::stat(c"/proc/self/ns/ipc").map(|stat| (stat.dev, stat.ino)).ok();
    own.is_some() && own == of(target.proc())
}

/// Looks at each set, makes again what is gone, and makes this process the last user of what those of the image have used last, so
/// that the next save knows. With `ignore` other values are taken as they are.
///
/// # Errors
/// A set with other values, or another set under the id; one that cannot be made.
pub fn restore(image: &Checked<'_>, ignore: bool) -> restart::Result<()> {
    for one in image.each::<Semaphore>() {
        let values = image.contents(one.values);
        match facts(one.id.get() as i32) {
            Ok(now) => {
                let is_value = |(number, value): (usize, &U16)| {
                    sys::sysv::semaphore(one.id.get() as i32, number, VALUE) == Ok(i32::from(value.get()))
                };
                if !now.is(one) {
                    return Err(others(one));
                }
                if !ignore && !semaphore::values(values).iter().enumerate().all(is_value) {
                    return Err(changed(one));
                }
                take(image, one, |pid| pid != 0);
            }
            Err(Errno::EACCES) => return Err(others(one)),
            // Then it is the last user of all of them.
            Err(_) => make(one, values)?,
        }
    }
    Ok(())
}

/// Makes the process `pid` the last user again of what it has used last.
pub fn finish(image: &Checked<'_>, pid: u32) {
    for one in image.each::<Semaphore>() {
        take(image, one, |user| user == pid);
    }
}

/// Where it may not alter what it used, it did no more than wait for zero: then its id is kept no longer.
fn take(image: &Checked<'_>, one: &Semaphore, is_user: impl Fn(u32) -> bool) {
    for (number, _) in (0..).zip(semaphore::users(image.contents(one.users))).filter(|(_, user)| is_user(user.get())) {
        let _ = sys::sysv::use_semaphore(one.id.get() as i32, number);
    }
}

/// What the kernel says of a set.
fn facts(id: i32) -> sys::Result<Semaphore> {
    let mut bytes = [0; size_of::<Semaphore>()];
    let facts = bytes.first_chunk_mut().ok_or(Errno::EINVAL)?;
    sys::sysv::set_control(id, STAT, facts)?;
    Semaphore::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)
}

fn make(one: &Semaphore, values: &[u8]) -> restart::Result<()> {
    let (key, count, wanted) = (one.key.get(), one.count.get(), one.id.get() as i32);
    // A chosen id that is not used would be the next one's, whoever that is.
    if key != 0 && sys::sysv::get_set(key, 0, 0) != Err(Errno::ENOENT) {
        return Err(missing(one, Errno::EEXIST));
    }
    let make = || sys::sysv::get_set(key, count, one.mode.get() | 0o600 | NEW);
    let remove = |id| {
        let _ = sys::sysv::set_control(id, RMID, &mut [0; SET_FACTS]);
    };
    // Large sets take longer.
    let most = OBJECTS_MAX / (1 + (count / 64).cast_signed());
    let made = choose_next(c"/proc/sys/kernel/sem_next_id", wanted, || reach(wanted, most, make, remove));
    let id = made.map_err(|e| missing(one, e))?;
    let Some(mut facts) = one.as_bytes().first_chunk::<SET_FACTS>().copied() else { return Ok(()) };
    sys::sysv::set_values(id, values).and_then(|()| sys::sysv::set_control(id, SET, &mut facts)).map_err(|e| {
        let _ = sys::sysv::set_control(id, RMID, &mut facts);
        missing(one, e)
    })
}

fn missing(one: &Semaphore, e: Errno) -> restart::Error {
    let what = "System V semaphores #: cannot be made again under their key and id (!): free these, or restart as root";
    restart::Error::about(ExitCode::FileMissing, what, one.id.get(), b"", e)
}

/// They hold other values than they held.
fn changed(one: &Semaphore) -> restart::Error {
    let what =
        "System V semaphores #: were changed after the save: ipcrm -s #, if nobody needs them, or --files ignore";
    restart::Error::about(ExitCode::FileChanged, what, one.id.get(), b"", None)
}

/// Somebody else may need them.
fn others(one: &Semaphore) -> restart::Error {
    let what = "System V semaphores #: are others, or have another owner or mode, since the save: free that id";
    restart::Error::about(ExitCode::FileChanged, what, one.id.get(), b"", None)
}
