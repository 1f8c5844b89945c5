//! The file mode creation mask.

use image_format::Checked;
use image_format::record::umask::Umask;
use sys::Errno;

use crate::target::status_value;
use crate::{Error, Result, Save, Target};

/// Saves it, from `/proc/PID/status`: umask(2) could only ask by changing it.
///
/// # Errors
/// The file cannot be read.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>) -> Result<()> {
    let mut buffer = [0; 16];
    let mask = status_value(save.target.memory_proc(), c"status", b"Umask", &mut buffer)
        .and_then(|v| v.and_then(sys::text::octal).ok_or(Errno::ENOENT))
        .map_err(|e| Error::failed(format_args!("umask"), "cannot be read from /proc/PID/status", e))?;
    save.notes.table(&[Umask { mask: (mask as u32).into() }])?;
    Ok(())
}

/// Sets it.
pub fn restore(image: &Checked<'_>) {
    sys::fs::umask(image.single::<Umask>().mask.get());
}
