//! Descriptors from which signals are read. The signals themselves wait with the process: see `pending`.

use image_format::record::signalfd::Signalfd;
use sys::Errno;
use sys::fs::{Fd, Owned};
use sys::text::hex;

use crate::descriptor::{Kind, OpenFile, each_fact};
use crate::{Error, Object, Result, Save, Target};

/// Writes the table.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Signalfd, |target, file| {
        let mut mask = 0;
        each_fact(target.at(file.fd), |key, value| {
            if key == b"sigmask" {
                let object = Object::descriptor(file.fd, format_args!("signalfd"));
                mask = hex(value).ok_or_else(|| Error::failed(object, "its signals cannot be read", Errno::EIO))?;
            }
            Ok(())
        })?;
        Ok(Signalfd { id: file.id.into(), flags: file.flags.into(), mask: mask.into() })
    })
}

/// Makes it.
///
/// # Errors
/// The kernel's.
pub fn restore(signalfd: &Signalfd) -> sys::Result<Fd> {
    sys::fs::signalfd(signalfd.mask.get()).map(Owned::release)
}
