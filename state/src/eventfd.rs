//! Event counters: made anew with what they held.

use image_format::record::eventfd::Eventfd;
use sys::Sysno;
use sys::abi::EFD_SEMAPHORE;
use sys::fs::Fd;
use sys::text::{decimal, hex};

use crate::descriptor::{Kind, OpenFile, each_fact};
use crate::inside::{Arg, Inside};
use crate::{Error, Object, Result, Save, Target};

/// Writes the table.
///
/// # Errors
/// A counter that has overflowed; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Eventfd, |target, file| {
        let (mut count, mut semaphore) = (0, None);
        each_fact(target.at(file.fd), |key, value| {
            match key {
                b"eventfd-count" => count = hex(value).unwrap_or(u64::MAX),
                b"eventfd-semaphore" => semaphore = decimal(value).map(|n| n != 0),
                _ => {}
            }
            Ok(())
        })?;
        if count == u64::MAX {
            let object = Object::descriptor(file.fd, format_args!("eventfd"));
            return Err(Error::refused(object, "has overflowed, which cannot be carried", "read it before the save"));
        }
        let failed =
            |e| Error::failed(Object::descriptor(file.fd, format_args!("eventfd")), "its mode cannot be found", e);
        let semaphore = match semaphore {
            Some(told) => told,
            // It is carried either way.
            None if !target.stands_still() => false,
            None => probe(target, file.fd as Fd, count).map_err(failed)?,
        };
        Ok(Eventfd {
            id: file.id.into(),
            flags: file.flags.into(),
            count: count.into(),
            semaphore: u32::from(semaphore).into(),
            reserved: 0.into(),
        })
    })
}

/// Kernels before 6.5 do not tell the mode: a read takes one from a semaphore and all from another counter. What it
/// held is put back; who watches it for edges sees one more.
fn probe(inside: &mut impl Inside, fd: Fd, count: u64) -> sys::Result<bool> {
    let mut run = |number, value: u64| {
        let mut data = value.to_le_bytes();
        let zero = Arg::Value(0);
        let args = [Arg::Value(fd as usize), Arg::Data(0), Arg::Value(8), zero, zero, zero];
        // SAFETY: reads or writes a number, the data.
        unsafe { inside.call(number, args, &mut data) }?;
        Ok(u64::from_le_bytes(data))
    };
    // Two more than it held, less one is not nothing: no call waits, and what a read takes tells the mode.
    run(Sysno::write, 2)?;
    if run(Sysno::read, 0)? == 1 {
        run(Sysno::read, 0)?;
        return Ok(true);
    }
    if count != 0 {
        run(Sysno::write, count)?;
    }
    Ok(false)
}

/// Makes it.
///
/// # Errors
/// The kernel's.
pub fn restore(eventfd: &Eventfd) -> sys::Result<Fd> {
    let mode = if eventfd.semaphore.get() != 0 { EFD_SEMAPHORE } else { 0 };
    let made = sys::fs::eventfd(mode)?.release();
    if eventfd.count.get() != 0 {
        sys::fs::write_all(made, &eventfd.count.get().to_le_bytes())?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Here;

    fn take(fd: Fd) -> u64 {
        let mut word = [0; 8];
        assert_eq!(sys::fs::read(fd, &mut word), Ok(8));
        u64::from_le_bytes(word)
    }

    /// What old kernels need: the mode is found, and the count is as it was.
    #[test]
    fn the_mode_is_found_by_looking() -> sys::Result<()> {
        for count in [0, 1, 2, 77] {
            for semaphore in [false, true] {
                let record = Eventfd {
                    id: 0.into(),
                    flags: 0.into(),
                    count: count.into(),
                    semaphore: u32::from(semaphore).into(),
                    reserved: 0.into(),
                };
                // SAFETY: just made.
                let fd = unsafe { sys::fs::Owned::new(restore(&record)?) };
                assert_eq!(probe(&mut Here, fd.fd(), count), Ok(semaphore));
                // One more, so that reading never waits.
                assert_eq!(sys::fs::write_all(fd.fd(), &1u64.to_le_bytes()), Ok(()));
                if semaphore {
                    for _ in 0..=count {
                        assert_eq!(take(fd.fd()), 1);
                    }
                } else {
                    assert_eq!(take(fd.fd()), count + 1);
                }
            }
        }
        Ok(())
    }
}
