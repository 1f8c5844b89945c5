//! The Rust API: the same five calls as in C, with paths and `io::Result`.

use std::boxed::Box;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::string::ToString;

use crate::local::save::{Path as ImagePath, Request};
use crate::local::{self, Outcome};
use crate::output::PATH_MAX;

/// What the process does when it has saved itself on a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Ends with status 0.
    Exit,
    /// Goes on.
    Continue,
}

fn os_error(errno: sys::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.into_raw())
}

/// Saves this process to `path` and returns twice, like setjmp: [`Outcome::Saved`] here, [`Outcome::Restarted`] in
/// every process that is restarted from the image.
///
/// # Errors
/// The save failed, with the object and the reason; the process goes on, an older image is untouched.
pub fn save(path: impl AsRef<Path>) -> io::Result<Outcome> {
    let mut full = [0; PATH_MAX];
    let len = local::arm::absolute(path.as_ref().as_os_str().as_bytes(), &mut full).map_err(os_error)?;
    let old = sys::signal::set_mask(sys::signal::ALL).map_err(os_error)?;
    let path = full.get(..len).unwrap_or_default();
    let result =
        local::save(Request { path: ImagePath::Given(path), signal: 0, interrupted: core::ptr::null(), exit: None });
    sys::signal::set_mask(old).map_err(os_error)?;
    match result {
        Some(Ok(outcome)) => Ok(outcome),
        Some(Err(error)) => Err(match error.errno() {
            Some(errno) => io::Error::new(os_error(errno).kind(), error.to_string()),
            None => io::Error::other(error.to_string()),
        }),
        None => Err(io::Error::new(io::ErrorKind::WouldBlock, "another thread is saving this process")),
    }
}

/// Saves this process to `path` whenever `signal` (a number, `SIGUSR1` is 10) comes. A relative path counts from
/// the working directory of now. Not to be called again while such a signal may arrive.
///
/// # Errors
/// A signal that cannot be handled, or a path that is too long.
pub fn on_signal(signal: i32, path: impl AsRef<Path>, after: After) -> io::Result<()> {
    let after = match after {
        After::Exit => local::After::Exit(0),
        After::Continue => local::After::Continue,
    };
    local::arm::on_signal(signal, path.as_ref().as_os_str().as_bytes(), after).map_err(os_error)
}

/// The special branch at the start of `main`: if there is an image at `path`, this process becomes the saved one and
/// does not return; else the program runs as usual. Files that have grown since go back, their tails are kept.
///
/// # Errors
/// There is an image, and the restart stub could not be started.
pub fn restart_if_saved(path: impl AsRef<Path>) -> io::Result<()> {
    if path.as_ref().try_exists()? { Err(restart(path)) } else { Ok(()) }
}

/// Becomes the process that was saved to `path`. Returns only when the stub could not be started; what it finds
/// wrong with the image ends the process with a message and an exit code.
pub fn restart(path: impl AsRef<Path>) -> io::Error {
    let stub = match stub_file() {
        Ok(stub) => stub,
        Err(e) => return e,
    };
    std::process::Command::new(stub).arg0("restart-stub").args(["--files", "rollback", "--"]).arg(path.as_ref()).exec()
}

/// A name under which the stub can be executed.
fn stub_file() -> io::Result<std::path::PathBuf> {
    if let Some(path) = std::env::var_os("CKPT_STUB") {
        return Ok(path.into());
    }
    if !loader::embedded::is_present() {
        let why = "this program was built without the restart stub: set CKPT_STUB to the file restart-stub";
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    let name = CString::new("restart-stub")?;
    let stub = sys::process::memfd(&name, 0).map_err(os_error)?;
    sys::fs::write_all(stub.fd(), loader::embedded::STUB).map_err(os_error)?;
    // Closed by the exec, which replaces this process; until then it must stay open.
    Ok(std::format!("/proc/self/fd/{}", stub.release()).into())
}

/// Registers a function that runs in the restarted process before the program goes on: to draw the screen again, to
/// connect again. It runs on the thread that saved, while all others still wait, perhaps inside a signal handler:
/// it must not wait for a lock that another thread may hold.
pub fn at_restart(hook: fn()) {
    extern "C" fn call(argument: *mut u8) {
        // SAFETY: made from a leaked box of this very type below.
        let hook = unsafe { *argument.cast::<fn()>() };
        hook();
    }
    crate::hooks::add(call, Box::into_raw(Box::new(hook)).cast());
}
