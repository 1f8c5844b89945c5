//! `--pidfile`: a file that holds a pid from the moment it is there, never half of one.

use image_format::ExitCode;
use state::restart::{Error, Result};
use sys::Errno;
use sys::abi::{O_CREAT, O_EXCL, O_WRONLY};
use sys::fs::Fd;
use sys::text::Line;

use crate::heap;

/// A file that gets its name, with the pid in it, when that is known.
#[derive(Clone, Copy, Debug)]
pub struct PidFile {
    /// Its path.
    pub path: &'static [u8],
    temporary: &'static [u8],
}

impl PidFile {
    /// Makes sure, before anything is started, that it can be written. None for an empty path.
    ///
    /// # Errors
    /// It cannot.
    pub fn prepare(path: &'static [u8]) -> Result<Option<Self>> {
        if path.is_empty() {
            return Ok(None);
        }
        let number = Line::filled(".#.new", sys::process::pid() as u64, b"", 0);
        let made = Self { path, temporary: joined(path, number.as_bytes()) };
        made.with_file(|_| sys::fs::unlink_path(made.temporary)).map_err(|e| made.failed(e))?;
        Ok(Some(made))
    }

    /// Writes it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, pid: i32) -> sys::Result<()> {
        let line = Line::filled("#\n", pid as u64, b"", 0);
        self.with_file(|file| {
            sys::fs::write_all(file, line.as_bytes())?;
            sys::fs::rename_path(self.temporary, self.path)
        })
    }

    /// Makes the temporary file; it stays nowhere where the rest fails.
    fn with_file(&self, rest: impl FnOnce(Fd) -> sys::Result<()>) -> sys::Result<()> {
        let file = sys::fs::open_path(self.temporary, O_WRONLY | O_CREAT | O_EXCL, 0o644)?;
        let done = rest(file.fd());
        if done.is_err() {
            let _ = sys::fs::unlink_path(self.temporary);
        }
        done
    }

    /// That it cannot be written.
    pub fn failed(&self, e: Errno) -> Error {
        Error::about(ExitCode::Usage, NOT_WRITTEN, 0u32, self.path, e)
    }
}

/// The same as a pattern, for whom this is not the end.
pub const NOT_WRITTEN: &str = "@: the pid cannot be written (!)";

/// Both parts, one behind the other; empty without memory.
fn joined(first: &[u8], second: &[u8]) -> &'static [u8] {
    let bytes = heap::bytes(first.len() + second.len());
    let mut to = bytes.iter_mut();
    for part in [first, second] {
        part.iter().zip(&mut to).for_each(|(from, to)| *to = *from);
    }
    bytes
}
