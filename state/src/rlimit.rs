//! Resource limits.

use image_format::record::rlimit::Rlimit;
use image_format::{Checked, NoteType};
use sys::Sysno;
use sys::abi::RLIM_NLIMITS;

use crate::inside::Arg;
use crate::{Error, Result, Save, Target};

/// Saves all of them.
///
/// # Errors
/// They cannot be read.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>) -> Result<()> {
    save.notes.begin(NoteType::Rlimit)?;
    for resource in 0..RLIM_NLIMITS {
        let mut data = [0; 16];
        let args =
            [Arg::Value(0), Arg::Value(resource as usize), Arg::Value(0), Arg::Data(0), Arg::Value(0), Arg::Value(0)];
        // SAFETY: without a new limit it fills the structure.
        unsafe { save.target.call(Sysno::prlimit64, args, &mut data) }
            .map_err(|e| Error::failed(format_args!("limit {resource}"), "cannot be read", e))?;
        let (soft, hard) = data.split_at(8);
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap_or_default()).into();
        save.notes.push(&Rlimit {
            resource: resource.into(),
            reserved: 0.into(),
            soft: word(soft),
            hard: word(hard),
        })?;
    }
    save.notes.end()?;
    Ok(())
}

/// Sets them. Where this user may not have the old hard limit, its own hard limit stays and the soft one is cut to
/// it: a program does not see a limit above what the kernel would grant.
///
/// # Errors
/// The kernel refuses even that.
pub fn restore(image: &Checked<'_>) -> sys::Result<()> {
    for limit in image.each::<Rlimit>() {
        let resource = limit.resource.get();
        let wanted = sys::abi::Rlimit { soft: limit.soft.get(), hard: limit.hard.get() };
        let now = sys::process::rlimit(resource)?;
        if (now.soft, now.hard) == (wanted.soft, wanted.hard) || sys::process::set_rlimit(resource, &wanted).is_ok() {
            continue;
        }
        let hard = wanted.hard.min(now.hard);
        let cut = sys::abi::Rlimit { soft: wanted.soft.min(hard), hard };
        sys::process::set_rlimit(resource, &cut)?;
    }
    Ok(())
}
