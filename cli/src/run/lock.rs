//! One `ckpt run` for an image: a lock on a file beside it, for as long as this command lives.
//!
//! The kernel gives the lock up when this process ends, however it does; the file says who has it. It is another file than the
//! image, which a save replaces. Must never be open in the program.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use image_format::ExitCode;
use rustix::fs::OFlags;
use sys::abi::{F_OFD_SETLK, F_WRLCK, Flock};

use crate::failure::{Failure, errno, reason};
use crate::text;

/// A lock on all of a file.
const WHOLE: Flock = Flock { kind: F_WRLCK, whence: 0, start: 0, len: 0, pid: 0 };

/// Longest description of who has it.
const HOLDER_MAX: u64 = 256;

/// Most bytes of what the last one has left.
const LEFT_MAX: u64 = 1 << 20;

/// The lock on an image.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
    /// Lines that the last one has left for the next.
    left: Vec<String>,
    /// Whether this one leaves lines.
    keeps: bool,
}

/// Where the lock of an image lies.
pub fn path(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Who runs an image's job at this moment, in words; none when nobody does.
pub fn holder(image: &Path) -> Option<String> {
    let file = File::open(path(image)).ok()?;
    sys::fs::is_locked(file.as_raw_fd(), WHOLE).is_ok_and(|is| is).then(|| described(&file))
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// Another process has it; its file cannot be written.
    pub fn take(image: &Path) -> Result<Self, Failure> {
        let path = path(image);
        loop {
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let mut open = OpenOptions::new();
            open.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file =
                open.custom_flags(flags.bits().cast_signed()).open(&path).map_err(|e| unwritable(image, &path, &e))?;
            let meta = file.metadata().map_err(|e| unwritable(image, &path, &e))?;
            if !meta.is_file() {
                let what = format_args!(
                    "{}: is no regular file, and should be the image's lock: remove it",
                    text::path(&path)
                );
                return Err(Failure::new(ExitCode::SaveFailed, what));
            }
            match sys::fs::set_lock(file.as_raw_fd(), F_OFD_SETLK, &WHOLE) {
                Ok(()) => {}
                Err(e) if is_taken(e) => {
                    let what = format_args!(
                        "{}: another `ckpt run` has it, {}: wait for its end, or choose another image with -o",
                        text::path(image),
                        described(&file)
                    );
                    return Err(Failure::new(ExitCode::InUse, what));
                }
                Err(e) => return Err(errno(&format!("{}: cannot be locked", text::path(&path)), e)),
            }
            // Whoever had it may have removed the name meanwhile: then this lock protects no name any more.
            if fs::symlink_metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (meta.dev(), meta.ino())) {
                let mut lock = Self { path, file, left: Vec::new(), keeps: false };
                lock.left = lock.lines();
                lock.keeps = !lock.left.is_empty();
                lock.write(&lock.left).map_err(|e| unwritable(image, &lock.path, &e))?;
                return Ok(lock);
            }
        }
    }

    /// Lines that the last one has left.
    pub fn left(&self) -> &[String] {
        &self.left
    }

    /// Leaves these lines for the next one.
    pub fn keep(&mut self, lines: &[String]) {
        // They are lost with a full disk; the lock is not.
        self.keeps = self.write(lines).is_ok() && !lines.is_empty();
    }

    /// Who has it, then the lines.
    fn write(&self, lines: &[String]) -> io::Result<()> {
        let host = rustix::system::uname();
        let mut all = [std::process::id().to_string().as_bytes(), b" ", host.nodename().to_bytes(), b"\n"].concat();
        lines.iter().for_each(|line| all.extend([line.as_bytes(), b"\n"].concat()));
        self.file.write_all_at(&all, 0)?;
        self.file.set_len(all.len() as u64)
    }

    /// Lines behind the one that says who has it.
    fn lines(&self) -> Vec<String> {
        let mut all = Vec::new();
        let read = self.file.try_clone().and_then(|file| file.take(LEFT_MAX).read_to_end(&mut all));
        let lines = all.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
        if read.is_ok() { lines.map(text::plain).collect() } else { Vec::new() }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the lock is given up: a name that is removed later could be the next one's.
        if !self.keeps {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_taken(error: sys::Errno) -> bool {
    matches!(error, sys::Errno::EAGAIN | sys::Errno::EACCES)
}

/// `process 4711 on HOST`.
fn described(file: &File) -> String {
    let mut said = Vec::new();
    let read = file.try_clone().and_then(|file| file.take(HOLDER_MAX).read_to_end(&mut said));
    let first = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = first.split(|byte| *byte == b' ');
    match (read, words.next(), words.next()) {
        (Ok(_), Some(pid), Some(host)) if !pid.is_empty() && pid.iter().all(u8::is_ascii_digit) => {
            format!("process {} on {}", text::plain(pid), text::plain(host))
        }
        _ => "a process that has not said yet who it is".to_owned(),
    }
}

fn unwritable(image: &Path, lock: &Path, error: &io::Error) -> Failure {
    let dir = image.parent().filter(|dir| !dir.as_os_str().as_bytes().is_empty()).unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let what = match rustix::fs::access(dir, access) {
        Err(errno) => format!("{}: no image can be saved there: {}", text::path(dir), reason(&errno.into())),
        Ok(()) => format!("{}: cannot be written: {}", text::path(lock), reason(error)),
    };
    Failure::new(ExitCode::SaveFailed, format_args!("{what}: choose another with -o"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let image = dir.path().join("job.ckpt");
        let taken = |result: Result<Lock, Failure>| result.map_err(Failure::into_parts);
        let lock = taken(Lock::take(&image));
        assert!(lock.is_ok(), "{lock:?}");
        assert!(holder(&image).is_some());
        let own = format!("process {} on ", std::process::id());
        match taken(Lock::take(&image)) {
            Err((code, message)) => {
                assert_eq!(code, ExitCode::InUse as u8);
                assert!(message.contains(&own), "{message}");
            }
            Ok(_) => panic!("two have it"),
        }
        drop(lock);
        assert!(holder(&image).is_none() && !path(&image).exists());
        assert!(taken(Lock::take(&image)).is_ok());
        Ok(())
    }

    #[test]
    fn what_a_dead_one_has_left_is_no_lock() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let image = dir.path().join("job.ckpt");
        fs::write(path(&image), "4711 somewhere\n")?;
        assert!(Lock::take(&image).is_ok());
        Ok(())
    }
}
