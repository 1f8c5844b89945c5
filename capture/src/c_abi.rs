//! The C interface, as `ckpt.h` declares it. Works without Rust's std: inside any program with a libc.

use core::ffi::{CStr, c_char, c_int, c_void};

use sys::Errno;

use crate::local::save::{Path, Request};
use crate::local::{self, After, Outcome};
use crate::output::PATH_MAX;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
    /// The environment, in glibc and musl alike.
    pub(crate) static mut environ: *mut *const u8;
}

/// Sets errno and returns -1.
pub(crate) fn fail(errno: Errno) -> c_int {
    // SAFETY: libc's own word for this thread.
    unsafe { *__errno_location() = errno.into_raw() };
    -1
}

/// The bytes of a C string; none for a null pointer.
unsafe fn path_of<'a>(path: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller passes a string or null, as the header asks.
    (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) }.to_bytes())
}

/// Saves this process: 0 in this process, 1 in a restarted one, -1 and errno when it failed (with a line on
/// standard error that tells the object and the reason).
///
/// # Safety
/// `path` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_save(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let Some(path) = (unsafe { path_of(path) }) else { return fail(Errno::EINVAL) };
    let mut full = [0; PATH_MAX];
    let len = match local::arm::absolute(path, &mut full) {
        Ok(len) => len,
        Err(e) => return fail(e),
    };
    let old = match sys::signal::set_mask(sys::signal::ALL) {
        Ok(old) => old,
        Err(e) => return fail(e),
    };
    let path = full.get(..len).unwrap_or_default();
    let result =
        local::save(Request { path: Path::Given(path), signal: 0, interrupted: core::ptr::null(), exit: None });
    let _ = sys::signal::set_mask(old);
    match result {
        Some(Ok(Outcome::Saved)) => 0,
        Some(Ok(Outcome::Restarted)) => 1,
        Some(Err(error)) => {
            local::arm::report(&error);
            fail(error.errno().unwrap_or(Errno::EOPNOTSUPP))
        }
        None => fail(Errno::EAGAIN),
    }
}

/// Saves this process whenever `signal` comes; `after` is `CKPT_CONTINUE` (0) or `CKPT_EXIT` (1).
///
/// # Safety
/// `path` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_on_signal(signal: c_int, path: *const c_char, after: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let Some(path) = (unsafe { path_of(path) }) else { return fail(Errno::EINVAL) };
    let after = match after {
        0 => After::Continue,
        1 => After::Exit(0),
        _ => return fail(Errno::EINVAL),
    };
    local::arm::on_signal(signal, path, after).map_or_else(fail, |()| 0)
}

/// Registers a hook that runs in the restarted process before it goes on.
///
/// # Safety
/// `hook` may run inside a signal handler; `argument` is what it expects, also after a restart.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_at_restart(hook: Option<extern "C" fn(*mut u8)>, argument: *mut c_void) -> c_int {
    match hook {
        Some(hook) if crate::hooks::add(hook, argument.cast()) => 0,
        Some(_) => fail(Errno::ENOMEM),
        None => fail(Errno::EINVAL),
    }
}

/// If there is an image, becomes the saved process and does not return; 0 when there is none.
///
/// # Safety
/// `path` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_restart_if_saved(path: *const c_char) -> c_int {
    if path.is_null() {
        return fail(Errno::EINVAL);
    }
    // SAFETY: the caller's promise.
    match sys::fs::stat(unsafe { CStr::from_ptr(path) }) {
        Err(Errno::ENOENT) => 0,
        Err(e) => fail(e),
        // SAFETY: the caller's promise.
        Ok(_) => unsafe { ckpt_restart(path) },
    }
}

/// Becomes the process that was saved to `path`; returns -1 only when the stub could not be started.
///
/// # Safety
/// `path` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_restart(path: *const c_char) -> c_int {
    if path.is_null() {
        return fail(Errno::EINVAL);
    }
    if !loader::embedded::is_present() {
        return fail(Errno::ENOSYS);
    }
    let stub = match sys::process::memfd(c"restart-stub", 0) {
        Ok(stub) => stub,
        Err(e) => return fail(e),
    };
    if let Err(e) = sys::fs::write_all(stub.fd(), loader::embedded::STUB) {
        return fail(e);
    }
    let argv =
        [c"restart-stub".as_ptr(), c"--files".as_ptr(), c"rollback".as_ptr(), c"--".as_ptr(), path, core::ptr::null()];
    // SAFETY: both arrays end with a null pointer; the strings live on this stack and in the program.
    let errno = unsafe { sys::process::exec(stub.fd(), argv.as_ptr().cast(), environ.cast_const()) };
    fail(errno)
}
