//! System V segments that are gone, for users who may not choose their ids: the kernel gives ids in turn, and after a reboot it
//! begins anew. Segments are made and removed until one has the id; that one gets its bytes.
//!
//! Must never touch a segment that it did not make, nor go on for more than a few seconds.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use image_format::record::content::Content;
use image_format::record::sysv::Sysv;
use image_format::{Fault, Image};
use sys::Errno;
use sys::sysv::{FACTS, NEW, RMID, SET, STAT, attach, control, detach, get};
use zerocopy::IntoBytes;

/// Places in its table that the kernel uses in turn before it counts on, as long as few segments are there.
const PLACES: i64 = 64;
/// Bits of an id that tell the place; how many numbers are above them.
const PLACE_BITS: u32 = 15;
const NUMBERS: i64 = 65_535;
/// Most segments that are made: some two seconds.
const MOST: i64 = 250_000;

/// How many ids come before this one, from the first of all.
fn turn(id: i32) -> i64 {
    i64::from(id >> PLACE_BITS) * PLACES + i64::from(id & ((1 << PLACE_BITS) - 1))
}

fn asked(id: i32, command: usize) -> sys::Result<()> {
    control(id, command, &mut [0; FACTS])
}

/// Makes those segments again whose ids come soon. The others are refused by the stub, which also looks at what was made here.
pub fn make_again(image: &Image<'_>, file: &File) -> Result<(), Fault> {
    let is_root = || OpenOptions::new().write(true).open("/proc/sys/kernel/shm_next_id").is_ok();
    for one in image.table::<Sysv>()?.iter().filter(|one| one.mode.get() & Sysv::DEST == 0) {
        let id = one.id.get().cast_signed();
        let is_gone = matches!(asked(id, STAT), Err(Errno::EINVAL | Errno::EIDRM));
        if is_gone && !is_root() && reach(one, id) && !fill(image, file, one, id).unwrap_or(false) {
            let _ = asked(id, RMID);
        }
    }
    Ok(())
}

/// Whether it has its id again, empty.
fn reach(one: &Sysv, id: i32) -> bool {
    for made in 0..MOST {
        let Ok(now) = get(one.key.get(), one.size.get(), 0o600 | NEW) else { return false };
        if now == id {
            return true;
        }
        let _ = asked(now, RMID);
        if (turn(id) - turn(now)).rem_euclid(NUMBERS * PLACES) > MOST - made {
            return false;
        }
    }
    false
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
