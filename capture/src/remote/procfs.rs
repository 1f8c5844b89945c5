//! What `/proc` has of a process: its directory, and its namespaces.

use core::ffi::CStr;

use state::{Error, Result};
use sys::Errno;
use sys::fs::{Fd, Owned};
use sys::text::Text;

/// Its directory in `/proc`.
///
/// # Errors
/// It is gone.
pub fn directory(pid: i32) -> Result<Owned> {
    let path = Text::<32>::of(format_args!("/proc/{pid}"));
    sys::fs::open(path.as_c_str(), sys::abi::O_DIRECTORY, 0).map_err(gone(pid))
}

pub fn gone(pid: i32) -> impl Fn(Errno) -> Error {
    move |e| Error::failed(format_args!("process {pid}"), "is not there, or may not be read", e)
}

/// What names one of its namespaces; zeros where this kernel has none of the kind.
///
/// # Errors
/// It cannot be read.
pub fn namespace(proc: Fd, link: &CStr) -> sys::Result<[u8; 64]> {
    let mut name = [0; 64];
    match sys::fs::read_link_at(proc, link, &mut name) {
        Ok(_) | Err(Errno::ENOENT) => Ok(name),
        Err(e) => Err(e),
    }
}
