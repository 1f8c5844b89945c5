//! System V segments and semaphores that are gone, for users who may not choose their ids: the kernel gives ids in turn, and after a
//! reboot it begins anew. Objects are made and removed until one has the id; that one gets its bytes, or its values.
//!
//! Must never touch an object that it did not make, nor go on for more than a few seconds.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use image_format::record::content::Content;
use image_format::record::semaphore::Semaphore;
use image_format::record::sysv::Sysv;
use image_format::{Fault, Image};
use sys::Errno;
use sys::sysv::{
    FACTS, NEW, RMID, SET, SET_FACTS, STAT, attach, control, detach, get, get_set, set_control, set_values,
};
use zerocopy::IntoBytes;

/// Places in its table that the kernel uses in turn before it counts on, as long as few objects are there.
const PLACES: i64 = 64;
/// Bits of an id that tell the place; how many numbers are above them.
const PLACE_BITS: u32 = 15;
const NUMBERS: i64 = 65_535;
/// Most objects that are made: some two seconds.
const MOST: i64 = 250_000;

/// How many ids come before this one, from the first of all.
fn turn(id: i32) -> i64 {
    i64::from(id >> PLACE_BITS) * PLACES + i64::from(id & ((1 << PLACE_BITS) - 1))
}

fn asked(id: i32, command: usize) -> sys::Result<()> {
    control(id, command, &mut [0; FACTS])
}

/// Whether ids of this kind may be chosen.
fn may_choose(kind: &str) -> bool {
    OpenOptions::new().write(true).open(format!("/proc/sys/kernel/{kind}_next_id")).is_ok()
}

/// Makes those again whose ids come soon. The others are refused by the stub, which also looks at what was made here.
pub fn make_again(image: &Image<'_>, file: &File) -> Result<(), Fault> {
    for one in image.table::<Sysv>()?.iter().filter(|one| one.mode.get() & Sysv::DEST == 0) {
        let id = one.id.get().cast_signed();
        let is_gone = matches!(asked(id, STAT), Err(Errno::EINVAL | Errno::EIDRM));
        let make = || get(one.key.get(), one.size.get(), 0o600 | NEW);
        let remove = |id| {
            let _ = asked(id, RMID);
        };
        if is_gone
            && !may_choose("shm")
            && reach(id, MOST, make, remove)
            && !fill(image, file, one, id).unwrap_or(false)
        {
            remove(id);
        }
    }
    for one in image.table::<Semaphore>()? {
        let (id, count) = (one.id.get().cast_signed(), one.count.get());
        let is_gone = matches!(set_control(id, STAT, &mut [0; SET_FACTS]), Err(Errno::EINVAL | Errno::EIDRM));
        let make = || get_set(one.key.get(), count, 0o600 | NEW);
        let remove = |id| {
            let _ = set_control(id, RMID, &mut [0; SET_FACTS]);
        };
        let most = MOST / (1 + (count / 64).cast_signed());
        if is_gone && !may_choose("sem") && reach(id, most, make, remove) && !set(image, one, id) {
            remove(id);
        }
    }
    Ok(())
}

/// Whether an object has its id again, empty, after at most so many that were made and removed.
fn reach(id: i32, most: i64, make: impl Fn() -> sys::Result<i32>, remove: impl Fn(i32)) -> bool {
    for made in 0..most {
        let Ok(now) = make() else { return false };
        if now == id {
            return true;
        }
        remove(now);
        if (turn(id) - turn(now)).rem_euclid(NUMBERS * PLACES) > most - made {
            return false;
        }
    }
    false
}

/// Gives a set its values, owner and mode; false when it cannot be what it was.
fn set(image: &Image<'_>, one: &Semaphore, id: i32) -> bool {
    let (mut now, saved) = ([0; SET_FACTS], one.as_bytes());
    let Some(mut wanted) = saved.first_chunk().copied() else { return false };
    let told = set_values(id, image.bytes(one.values).unwrap_or_default())
        .and_then(|()| set_control(id, SET, &mut wanted))
        .and_then(|()| set_control(id, STAT, &mut now));
    told.is_ok() && now.get(..Semaphore::IDENTITY) == saved.get(..Semaphore::IDENTITY)
}

/// Gives it its bytes, owner and mode; false when it cannot be what it was.
fn fill(image: &Image<'_>, file: &File, one: &Sysv, id: i32) -> io::Result<bool> {
    let Ok(at) = attach(id, 0, 0) else { return Ok(false) };
    let result = copy(image, file, one, at as u64);
    detach(at);
    result?;
    let (mut now, saved) = ([0; FACTS], one.as_bytes());
    let Some(mut wanted) = saved.first_chunk().copied() else { return Ok(false) };
    let told = control(id, SET, &mut wanted).and_then(|()| control(id, STAT, &mut now));
    Ok(told.is_ok() && now.get(..Sysv::IDENTITY) == saved.get(..Sysv::IDENTITY))
}

fn copy(image: &Image<'_>, file: &File, one: &Sysv, at: u64) -> io::Result<()> {
    // Nothing else leads to a segment's memory.
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    let contents = image.table::<Content>().map_err(|_| io::ErrorKind::InvalidData)?;
    let Some(content) = contents.get(one.content.get() as usize) else { return Ok(()) };
    let mine = image.content_segments().skip(content.first.get() as usize).take(content.segments.get() as usize);
    for segment in mine {
        let mut bytes = vec![0; usize::try_from(segment.len).map_err(|_| io::ErrorKind::InvalidData)?];
        file.read_exact_at(&mut bytes, segment.offset)?;
        memory.write_all_at(&bytes, at + segment.addr)?;
    }
    Ok(())
}
