//! A network or mounts of a test's own: what it changes there is seen by what it starts, and by nobody else.

use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::UnshareFlags;

/// Runs a test in a thread that has these to itself; as root alone.
///
/// # Errors
/// The test's own; the kernel gives no such thing.
pub fn inside(what: UnshareFlags, test: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let inside = || {
        // SAFETY: no flag gives the thread descriptors of its own, so that each stays what it was for the others.
        unsafe { rustix::thread::unshare_unsafe(what) }.context("nothing of its own")?;
        test()
    };
    thread::scope(|scope| scope.spawn(inside).join().map_err(|_| anyhow!("the test panicked"))?)
}
