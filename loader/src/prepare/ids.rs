//! `--pid keep`: whether process and threads can have their saved ids.
//!
//! The process has its id already, or never will: `ckpt restart` sees to that. What can be known of the threads' is found
//! here; an id that somebody takes meanwhile ends the restart later.

use image_format::record::thread::Thread;
use image_format::{Checked, ExitCode};
use state::{Error, Result};
use sys::Errno;
use sys::text::Decimal;

/// Checks all ids.
///
/// # Errors
/// Another process id; ids that this user may not choose; one that is taken.
pub fn check(image: &Checked<'_>) -> Result<()> {
    let threads = image.table::<Thread>();
    let (then, now) = (image.header().pid.get(), sys::process::pid() as u32);
    if then != now {
        let object = format_args!("process id {}", Decimal(then));
        let why = "is not restart-stub's own, which becomes the process";
        return Err(Error::refused(object, why, "ckpt restart --pid keep starts it so").code(ExitCode::Kernel));
    }
    if threads.len() > 1 {
        // Its own id is taken: EEXIST says that it could have chosen.
        match sys::thread::may_choose_ids(now) {
            Err(Errno::EEXIST) => {}
            Ok(_) => return Ok(()),
            Err(e) => {
                return Err(Error::failed(
                    format_args!("ids of {} threads", Decimal(threads.len() as u64)),
                    "cannot be chosen",
                    e,
                )
                .code(ExitCode::Kernel)
                .remedy("--namespace of ckpt restart, or CAP_CHECKPOINT_RESTORE, or --pid new"));
            }
        }
    }
    for thread in threads.iter().filter(|thread| thread.tid.get() != now) {
        let tid = thread.tid.get() as i32;
        // A group may outlive the process that it is named after.
        if sys::process::kill(tid, 0) != Err(Errno::ESRCH) || sys::process::kill(-tid, 0) != Err(Errno::ESRCH) {
            let object = format_args!("thread id {}", Decimal(thread.tid.get()));
            return Err(Error::refused(object, "is taken", "end what has it, or --pid new").code(ExitCode::Kernel));
        }
    }
    Ok(())
}
