//! `--pidfile`: a file that holds a pid from the moment it is there, never half of one.

use image_format::ExitCode;
use state::restart::{Error, Result};
use sys::Errno;
use sys::abi::{O_CREAT, O_EXCL, O_WRONLY};
use sys::text::Line;

use crate::heap;

/// A file that gets its name when the pid is known; it vanishes if that never comes.
#[derive(Clone, Copy, Debug)]
pub struct PidFile {
    path: &'static [u8],
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
        let flags = O_WRONLY | O_CREAT | O_EXCL;
        sys::fs::open_path(made.temporary, flags, 0o644).map_err(|e| failed(path, e))?;
        Ok(Some(made))
    }

    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, pid: i32) -> Result<()> {
        let line = Line::filled("#\n", pid as u64, b"", 0);
        sys::fs::open_path(self.temporary, O_WRONLY, 0)
            .and_then(|file| sys::fs::write_all(file.fd(), line.as_bytes()))
            .and_then(|()| sys::fs::rename_path(self.temporary, self.path))
            .map_err(|e| failed(self.path, e))
    }

    /// It never will be.
    pub fn give_up(&self) {
        // Gone already when it was written.
        let _ = sys::fs::unlink_path(self.temporary);
    }
}

/// Both parts, one behind the other; empty without memory.
fn joined(first: &[u8], second: &[u8]) -> &'static [u8] {
    let bytes = heap::bytes(first.len() + second.len());
    let mut to = bytes.iter_mut();
    for part in [first, second] {
        part.iter().zip(&mut to).for_each(|(from, to)| *to = *from);
    }
    bytes
}

fn failed(path: &[u8], e: Errno) -> Error {
    Error::about("@: the pid cannot be written (!)", 0u32, path, e).code(ExitCode::Usage)
}
