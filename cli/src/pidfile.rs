//! `--pidfile`: a file that holds a pid from the moment it is there, never half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use image_format::ExitCode;
use rustix::process::{Pid, getpid};

use crate::failure::{Failure, reason};
use crate::text;

/// A file that will get its name when the pid is known; it vanishes if that never comes.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl PidFile {
    /// Makes sure, before anything is started, that it can be written.
    pub fn prepare(path: &Path) -> Result<Self, Failure> {
        let mut name = path.file_name().ok_or_else(|| failed(path, &io::ErrorKind::IsADirectory.into()))?.to_owned();
        name.push(format!(".{}.new", getpid().as_raw_nonzero()));
        let temporary = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary);
        let file = file.map_err(|e| failed(path, &e))?;
        Ok(Self { path: path.to_owned(), temporary, file })
    }

    /// Writes it.
    pub fn write(mut self, pid: Pid) -> Result<(), Failure> {
        let written =
            writeln!(self.file, "{}", pid.as_raw_nonzero()).and_then(|()| fs::rename(&self.temporary, &self.path));
        written.map_err(|e| failed(&self.path, &e))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Gone already when it was written.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let what = format_args!("{}: the pid cannot be written: {}", text::path(path), reason(error)).to_string();
    Failure::new(ExitCode::Usage, what)
}
