//! What threads may call: seccomp filters, the oldest first, and strict mode. Only a privileged tracer can read filters, and
//! a thread gets them when it has nothing left to do but rt_sigreturn(2).
//!
//! Must never let a thread go on with fewer restrictions than it had.

use image_format::record::seccomp::{How, Instruction, Seccomp};
use image_format::{Checked, ExitCode};
use zerocopy::little_endian::U32;

use crate::{Error, Result, Save, Target, restart};

/// Refuses a process whose filters nobody can read.
#[must_use]
pub fn refused() -> Error {
    Error::refused(
        format_args!("seccomp filter"),
        "is told to root alone, and to nobody who has one",
        "use `ckpt save PID` as root, from outside of containers",
    )
}

/// Writes the programs, and what restricts each of the threads, in their order; programs' places are counted from the first one's.
///
/// # Errors
/// No room.
pub fn save<'s, T: Target>(
    save: &mut Save<'_, '_, T>,
    programs: &[Instruction],
    threads: impl Iterator<Item = &'s [Seccomp]> + Clone,
) -> Result<()> {
    save.notes.table(programs)?;
    save.notes.begin(image_format::NoteType::Seccomp)?;
    let zero = U32::ZERO;
    let end =
        Seccomp { number: zero, first: zero, second: zero, tid: zero, third: 0.into(), len: 0.into(), at: 0.into() };
    let row = size_of::<Seccomp>() as u64;
    let rows = threads.clone().flatten().count() as u64 + 1;
    let (mut at, mut privilege, mut free, mut all) = (0, false, None, false);
    for step in threads.flatten() {
        let mut step = *step;
        if step.len.get() == 0 {
            free = Some(step.tid);
        } else {
            all |= free == Some(step.tid) && How::of(&step).is_some_and(How::is_shared);
            privilege |= !all && free != Some(step.tid);
            step.third = (at + core::mem::offset_of!(Seccomp, len) as u64).into();
            step.at = (step.at.get() + rows * row).into();
        }
        save.notes.push(&step)?;
        at += row;
    }
    // A tree's processes have their own rights again before their filters are installed.
    if privilege && save.target.processes() > 1 && !is_privileged(save.target) {
        return Err(Error::refused(
            format_args!("seccomp filter"),
            "was installed with a privilege that the process has given up (no no_new_privs)",
            "save the process by itself",
        ));
    }
    if rows != 1 {
        save.notes.push(&Seccomp { first: u32::from(privilege).into(), ..end })?;
    }
    save.notes.end()?;
    Ok(())
}

/// Whether a process has `CAP_SYS_ADMIN`.
fn is_privileged<T: Target>(target: &T) -> bool {
    const SYS_ADMIN: u32 = 21;
    let mut buffer = [0; 32];
    let value = crate::target::status_value(target.proc(), c"status", b"CapEff", &mut buffer);
    value.ok().flatten().and_then(sys::text::hex).is_some_and(|all| all >> SYS_ADMIN & 1 != 0)
}

/// Whether this process may install the image's filters: with `no_new_privs`, or privileged in its user namespace.
///
/// # Errors
/// It may not, or the kernel knows no filters.
pub fn check(image: &Checked<'_>) -> restart::Result<()> {
    if image.each::<Seccomp>().all(|step| step.tid.get() != 0 || step.first.get() == 0) {
        return Ok(());
    }
    match sys::process::may_filter() {
        Ok(()) => Ok(()),
        Err(e) => {
            let what = "seccomp: cannot be set again here (!): restart as root";
            Err(restart::Error::about(ExitCode::Kernel, what, 0u32, b"", e))
        }
    }
}
