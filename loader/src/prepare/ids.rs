//! `--pid keep`: whether process and threads can have their saved ids.
//!
//! The process has its id already, or never will: `ckpt restart` sees to that. What can be known of the threads' is found
//! here; an id that somebody takes meanwhile ends the restart later.

use image_format::record::thread::Thread;
use image_format::{Checked, ExitCode};
use state::{Error, Result};
use sys::Errno;
use sys::packed;

/// Checks all ids.
///
/// # Errors
/// Another process id; ids that this user may not choose; one that is taken.
pub fn check(image: &Checked<'_>) -> Result<()> {
    let threads = image.table::<Thread>();
    let (then, now) = (image.header().pid.get(), sys::process::pid() as u32);
    if then != now {
        let what = packed!(
            "process id #: is not restart-stub's own, which becomes the process: ckpt restart --pid keep starts it so"
        );
        return Err(Error::about(what, then, b"", None).code(ExitCode::Kernel));
    }
    if threads.len() > 1 {
        // Its own id is taken: EEXIST says that it could have chosen.
        match sys::thread::may_choose_ids(now) {
            Err(Errno::EEXIST) => {}
            Ok(_) => return Ok(()),
            Err(e) => {
                return Err(Error::about(packed!("ids of # threads: cannot be chosen (!): --namespace of ckpt restart, or CAP_CHECKPOINT_RESTORE, or --pid new"), threads.len() as u64, b"", e)
                .code(ExitCode::Kernel));
            }
        }
    }
    for thread in threads.iter().filter(|thread| thread.tid.get() != now) {
        let tid = thread.tid.get() as i32;
        // A group may outlive the process that it is named after.
        if sys::process::kill(tid, 0) != Err(Errno::ESRCH) || sys::process::kill(-tid, 0) != Err(Errno::ESRCH) {
            return Err(Error::about(
                packed!("thread id #: is taken: end what has it, or --pid new"),
                thread.tid,
                b"",
                None,
            )
            .code(ExitCode::Kernel));
        }
    }
    Ok(())
}
