//! Work that must not end half-way is done by a process of its own, in a session of its own. Whoever ends the command ends the process
//! that waits for it; then the work is given up in order: what it has changed for a moment is put back by whoever has changed it.
//!
//! Must never let the work go on for nobody.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use image_format::ExitCode;
use sys::abi::signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use sys::child::Change;
use sys::signal::{ALL, bit, ignore, set_default, set_mask, take_pending};
use sys::{Errno, child, process};

use crate::failure::Failure;

/// The work is to be given up.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Does the work in a process of its own, and ends as it does; in this one where no other can be made.
pub fn work(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    // A limit on the size of files is an error of a write.
    let _ = ignore(SIGXFSZ);
    let parent = process::pid();
    // What is ignored leaves no status.
    let made = set_default(SIGCHLD).and_then(|()| {
        // SAFETY: this command has one thread.
        unsafe { child::fork(None) }
    });
    match made {
        Err(_) => work(),
        Ok(0) => {
            begin(parent);
            // Nobody is there to be told.
            work().map_err(|failure| if child::parent() == parent { failure } else { Failure::status(failure.code()) })
        }
        Ok(worker) => wait(worker),
    }
}

/// In the process that works: its own session, no signal but SIGKILL, and the end of `parent` gives the work up.
pub fn begin(parent: i32) {
    // All are blocked: none interrupts a call, or ends the work with what a limit forbids (SIGXFSZ).
    let _ = set_mask(ALL);
    let _ = child::new_session();
    if process::set_death_signal(SIGHUP).is_err() || child::parent() != parent {
        GIVEN_UP.store(true, Ordering::Relaxed);
    }
}

/// Whether the work is to be given up: the end of who asked for it, or a signal to end, has come.
pub fn is_given_up() -> bool {
    let asked = [SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter().fold(0, |set, signal| set | bit(signal));
    if !GIVEN_UP.load(Ordering::Relaxed) && take_pending(asked).is_ok() {
        GIVEN_UP.store(true, Ordering::Relaxed);
    }
    GIVEN_UP.load(Ordering::Relaxed)
}

/// Waits for the worker, which has said what there was to say.
fn wait(worker: i32) -> Result<(), Failure> {
    let failed = |what: fmt::Arguments<'_>| {
        Err(Failure::new(ExitCode::SaveFailed, format_args!("the process that saves {what}")))
    };
    loop {
        match child::wait(worker, true) {
            Ok(Some((_, Change::Exited(0)))) => return Ok(()),
            Ok(Some((_, Change::Exited(status)))) => return Err(Failure::status(status)),
            Ok(Some((_, Change::Killed(signal)))) => {
                return failed(format_args!("was ended by signal {signal}: save again"));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return failed(format_args!("cannot be waited for (error {})", e.into_raw())),
        }
    }
}
