//! What threads may call: seccomp filters, the oldest first, and strict mode. Only a privileged tracer is told of filters, and
//! a thread gets them when it has nothing left to do but rt_sigreturn(2).
//!
//! Must never let a thread go on with fewer restrictions than it had.

use image_format::record::seccomp::{How, Instruction, Seccomp};
use image_format::{Checked, ExitCode};
use sys::abi::{PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP};
use sys::{Errno, Sysno, packed};

use crate::{Error, Result, Save, Target};

/// Number, first and second argument of the call behind each [`How`].
const CALLS: [(Sysno, [u16; 2]); 5] = [
    (Sysno::prctl, [PR_SET_NO_NEW_PRIVS, 1]),
    (Sysno::seccomp, [1, 0]),
    (Sysno::seccomp, [1, 2]),
    (Sysno::prctl, [PR_SET_SECCOMP, 2]),
    (Sysno::prctl, [PR_SET_SECCOMP, 1]),
];

/// Refuses a process whose filters nobody can read.
#[must_use]
pub fn refused() -> Error {
    Error::refused(
        format_args!("seccomp filter"),
        "is told to root alone, and to nobody who has one",
        "use `ckpt save PID` as root, from outside of containers",
    )
}

/// Writes the programs, and what restricts each of the threads, in their order.
///
/// # Errors
/// No room.
pub fn save<'s, T: Target>(
    save: &mut Save<'_, '_, T>,
    programs: &[Instruction],
    threads: impl Iterator<Item = &'s [Seccomp]>,
) -> Result<()> {
    save.notes.table(programs)?;
    save.notes.begin(image_format::NoteType::Seccomp)?;
    for step in threads.flatten() {
        save.notes.push(step)?;
    }
    save.notes.end()?;
    Ok(())
}

/// Whether this process may install the image's filters: with `no_new_privs`, or privileged in its user namespace.
///
/// # Errors
/// It may not, or the kernel knows no filters.
pub fn check(image: &Checked<'_>) -> Result<()> {
    let (mut free, mut last) = (true, None);
    for step in image.each::<Seccomp>() {
        let how = step.how.get();
        if how == How::NoNewPrivs as u32 {
            last = Some(step.tid);
        }
        free &= how == How::Strict as u32 || last == Some(step.tid);
    }
    if last.is_none() && free {
        return Ok(());
    }
    // The kernel looks at the privilege before it looks for the program, which is nowhere.
    match sys::process::restrict((Sysno::seccomp, [1, 0]), &[1, 1]) {
        Err(Errno::EFAULT) => Ok(()),
        Err(Errno::EACCES) if free => Ok(()),
        other => {
            let what = packed!("seccomp filters: cannot be installed here (!): restart as root, or with --namespace");
            Err(Error::about(what, 0u32, b"", other.err()).code(ExitCode::Kernel))
        }
    }
}

/// The steps of one thread, by its id at the save.
pub fn steps<'a>(image: &Checked<'a>, tid: u32) -> impl Iterator<Item = (&'a Seccomp, &'a [Instruction])> {
    let programs = image.table::<Instruction>();
    image.each::<Seccomp>().filter(move |step| step.tid.get() == tid).map(move |step| {
        let from = programs.get(step.at.get() as usize..).unwrap_or_default();
        (step, from.get(..step.len.get() as usize).unwrap_or_default())
    })
}

/// Number and first two arguments of a step's call.
#[must_use]
pub fn call(step: &Seccomp) -> (Sysno, [u16; 2]) {
    CALLS.get(step.how.get() as usize).copied().unwrap_or((Sysno::exit, [1; 2]))
}

/// Restricts the calling thread, which was the one with this id.
///
/// # Errors
/// The kernel refuses.
pub fn restore(image: &Checked<'_>, tid: u32) -> sys::Result<()> {
    for (step, program) in steps(image, tid) {
        sys::process::restrict(call(step), &[program.len(), program.as_ptr() as usize])?;
    }
    Ok(())
}
