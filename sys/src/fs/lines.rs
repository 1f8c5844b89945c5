//! Reading what the kernel tells as text and as directories: line by line, name by name, through buffers of the caller.
//!
//! Must never need more memory than it was given: a line that does not fit is an error.

use core::ffi::CStr;

use super::{Fd, Owned, arg, open_at, read, seek};
use crate::{Errno, Result, Sysno, abi, call};

/// The names in a directory, one call of `f` each, until it returns an error, which is given back; `.` and `..` left out.
///
/// # Errors
/// getdents64(2)'s.
pub fn for_each_name<E>(
    dir: Fd,
    mut f: impl FnMut(&[u8]) -> core::result::Result<(), E>,
) -> Result<core::result::Result<(), E>> {
    for_each_entry(dir, |entry| f(entry.name))
}

/// What a directory tells of one of its names.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'b> {
    /// Number of the inode, or of the directory that something is mounted over.
    pub ino: u64,
    /// `DT_*`: 0 where the file system does not tell.
    pub kind: u8,
    /// The name.
    pub name: &'b [u8],
}

/// As [`for_each_name`], with the inode's number and the kind.
///
/// # Errors
/// As for that.
#[inline(always)]
pub fn for_each_entry<E>(
    dir: Fd,
    mut f: impl FnMut(&Entry<'_>) -> core::result::Result<(), E>,
) -> Result<core::result::Result<(), E>> {
    #[repr(align(8))]
    struct Buffer([u8; 2048]);
    let mut buffer = Buffer([0; 2048]);
    seek(dir, 0, abi::SEEK_SET)?;
    loop {
        let at = buffer.0.as_mut_ptr() as usize;
        // SAFETY: the kernel writes only into the buffer.
        let n = unsafe { call(Sysno::getdents64, [arg(dir), at, buffer.0.len()]) }?;
        if n == 0 {
            return Ok(Ok(()));
        }
        // struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name.
        let mut rest = buffer.0.get(..n).unwrap_or_default();
        while let (Some(len), Some(name)) = (rest.get(16..18), rest.get(19..)) {
            let len =
                usize::from(u16::from_le_bytes([len.first().copied().unwrap_or(0), len.get(1).copied().unwrap_or(0)]));
            let name = name.split(|b| *b == 0).next().unwrap_or_default();
            let ino = rest.first_chunk().map_or(0, |ino| u64::from_le_bytes(*ino));
            let kind = rest.get(18).copied().unwrap_or(0);
            if name != b"."
                && name != b".."
                && let Err(end) = f(&Entry { ino, kind, name })
            {
                return Ok(Err(end));
            }
            if len == 0 {
                break;
            }
            rest = rest.get(len..).unwrap_or_default();
        }
    }
}

/// Lines of a text file of the kernel, read through a buffer of the caller; a line that does not fit is EOVERFLOW.
#[derive(Debug)]
pub struct Lines<'b> {
    fd: Owned,
    buffer: &'b mut [u8],
    start: usize,
    end: usize,
    done: bool,
    /// Lines that do not fit are passed over instead of being an error.
    pass_long: bool,
    /// One read tells all that fits (`single_open` of fs/seq_file.c).
    whole: bool,
    /// In the middle of such a line.
    passing: bool,
}

impl<'b> Lines<'b> {
    /// Reads `path` in `dir` line by line.
    ///
    /// # Errors
    /// openat(2)'s.
    pub fn open_at(dir: Fd, path: &CStr, buffer: &'b mut [u8]) -> Result<Self> {
        open_at(dir, path, abi::O_RDONLY, 0).map(|fd| Self::new(fd, buffer))
    }

    /// Reads an open file line by line, from where it is.
    #[must_use]
    pub fn new(fd: Owned, buffer: &'b mut [u8]) -> Self {
        Self { fd, buffer, start: 0, end: 0, done: false, pass_long: false, whole: false, passing: false }
    }

    /// Passes over lines that do not fit: for files of which only some short lines are wanted.
    #[must_use]
    pub fn pass_long(mut self) -> Self {
        self.pass_long = true;
        self
    }

    /// For files that the kernel writes as one piece, like `status` and `fdinfo/N`: a read that leaves room has told all.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// The next line without its newline; `None` at the end.
    ///
    /// # Errors
    /// read(2)'s; EOVERFLOW for a line longer than the buffer.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let found = self.buffer.get(self.start..self.end).unwrap_or_default().iter().position(|b| *b == b'\n');
            if let Some(len) = found {
                let from = self.start;
                self.start += len + 1;
                if core::mem::take(&mut self.passing) {
                    continue;
                }
                return Ok(self.buffer.get(from..from + len));
            }
            if self.done {
                let (from, to) = (self.start, self.end);
                self.start = self.end;
                return Ok(if from < to { self.buffer.get(from..to) } else { None });
            }
            // The two minima are what they are of; they spare the compiler's own checks.
            let end = self.end.min(self.buffer.len());
            self.buffer.copy_within(self.start.min(end)..end, 0);
            self.end -= self.start;
            self.start = 0;
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            if room.is_empty() {
                if !self.pass_long {
                    return Err(Errno::EOVERFLOW);
                }
                self.passing = true;
                self.end = 0;
                continue;
            }
            let (n, len) = (read(self.fd.fd(), room)?, room.len());
            self.end += n;
            self.done = n == 0 || self.whole && n < len;
        }
    }
}

/// Reads a whole small file into `to`; what does not fit is left out.
///
/// # Errors
/// openat(2)'s and read(2)'s.
pub fn read_file_at<'t>(dir: Fd, path: &CStr, to: &'t mut [u8]) -> Result<&'t [u8]> {
    let file = open_at(dir, path, abi::O_RDONLY, 0)?;
    let mut len = 0;
    loop {
        let n = read(file.fd(), to.get_mut(len..).unwrap_or_default())?;
        len += n;
        if n == 0 {
            return to.get(..len).ok_or(Errno::EIO);
        }
    }
}
