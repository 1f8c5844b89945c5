//! Why an object cannot be restored: what, why, the kernel's word and the remedy.
//!
//! In the stub (feature `stub`) an error is said where it is found, and ends the process: there is no value of it, so that no instruction
//! hands one on. Elsewhere it is a value that owns its text: `ckpt check` and `ckpt restart` say several.

#[cfg(feature = "stub")]
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use image_format::record::process::FD_MASK;
#[cfg(feature = "stub")]
use image_format::record::process::{FD_BITS, Process};
use image_format::{ExitCode, Fault};
use sys::Errno;
use sys::text::Line;

/// The result of restoring.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with which object, as one line, `object: reason (errno): remedy`, and the exit code.
#[cfg(not(feature = "stub"))]
pub struct Error {
    code: ExitCode,
    line: Line,
}

/// No process of the stub outlives one.
#[cfg(feature = "stub")]
pub struct Error(core::convert::Infallible);

#[cfg(feature = "stub")]
unsafe extern "Rust" {
    /// Says the line and ends the process: the stub's own.
    safe fn restart_failed(code: u8, line: &Line) -> !;
}

impl Error {
    /// One whose line is a pattern (see [`sys::text::Text::fill`]), in which `#` or `*` stands for the number, `@` for the bytes, `!` for
    /// the kernel's word.
    #[must_use]
    #[cold]
    #[inline(always)]
    pub fn about(
        code: ExitCode,
        line: &'static str,
        number: impl Into<u64>,
        bytes: &[u8],
        errno: impl Into<Option<Errno>>,
    ) -> Self {
        Self::filled(line, number.into(), bytes, Cause::of(code, errno))
    }

    #[cold]
    #[inline(never)] // So that it exists once.
    fn filled(line: &'static str, number: u64, bytes: &[u8], cause: Cause) -> Self {
        Self::new(cause.code(), &Line::filled(line, number, bytes, cause.errno()))
    }

    /// One whose reason, with the kernel's word, and remedy stand behind the pattern of its object; empty ones are none. In the remedy, too,
    /// `#` stands for the number.
    #[must_use]
    #[cold]
    #[inline(always)]
    pub fn with_reason(
        code: ExitCode,
        object: &'static str,
        number: u64,
        bytes: &[u8],
        errno: impl Into<Option<Errno>>,
        [why, remedy]: [&'static str; 2],
    ) -> Self {
        Self::joined([object, why, remedy], number, bytes, Cause::of(code, errno))
    }

    #[cold]
    #[inline(never)] // So that it exists once.
    fn joined([object, why, remedy]: [&'static str; 3], number: u64, bytes: &[u8], cause: Cause) -> Self {
        Self::ended(Line::filled(object, number, bytes, cause.errno()), number, cause, [why, remedy])
    }

    #[inline(never)] // So that it exists once.
    fn ended(mut line: Line, number: u64, cause: Cause, [why, remedy]: [&'static str; 2]) -> Self {
        for (text, behind) in [(why, " (!)"), (remedy, "")] {
            if !text.is_empty() {
                line.fill(": ", 0, b"", 0);
                line.fill(text, number, b"", 0);
                if cause.errno() != 0 {
                    line.fill(behind, 0, b"", cause.errno());
                }
            }
        }
        Self::new(cause.code(), &line)
    }

    /// The same about a descriptor of the tree's common table. `what` is a pattern for what it is, with `@` for the name; empty: that is not
    /// known. In the remedy `#` stands for the process's own number.
    #[must_use]
    #[cold]
    #[inline(always)]
    pub fn descriptor(
        code: ExitCode,
        fd: u32,
        what: &'static str,
        name: &[u8],
        errno: impl Into<Option<Errno>>,
        [why, remedy]: [&'static str; 2],
    ) -> Self {
        Self::numbered([what, why, remedy], fd, name, Cause::of(code, errno))
    }

    #[cold]
    #[inline(never)] // So that it exists once.
    fn numbered([what, why, remedy]: [&'static str; 3], fd: u32, name: &[u8], cause: Cause) -> Self {
        let own = (fd & FD_MASK).into();
        let mut line = Line::filled("descriptor #", own, b"", 0);
        if let Some(pid) = owner_of(fd) {
            line.fill(" of process #", pid.into(), b"", 0);
        }
        if !what.is_empty() {
            line.fill(" (", 0, b"", 0);
            line.fill(what, 0, name, 0);
            line.fill(")", 0, b"", 0);
        }
        Self::ended(line, own, cause, [why, remedy])
    }

    /// What is wrong with the image of this name, if it has one.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub fn of_image(path: &[u8], fault: Fault) -> Self {
        let mut line = Line::filled(if path.is_empty() { "image: " } else { "image @: " }, 0, path, 0);
        fault.tell(&mut |pattern, number| line.fill(pattern, number, b"", 0));
        line.fill(": nothing was started", 0, b"", 0);
        Self::new(fault.exit_code() as u8, &line)
    }

    #[cfg(feature = "stub")]
    fn new(code: u8, line: &Line) -> Self {
        restart_failed(code, line)
    }

    /// Nothing comes here.
    #[cfg(feature = "stub")]
    pub fn never(self) -> ! {
        match self.0 {}
    }

    #[cfg(not(feature = "stub"))]
    fn new(code: u8, line: &Line) -> Self {
        // It was one a moment ago.
        Self { code: ExitCode::from_number(code).unwrap_or(ExitCode::Restore), line: *line }
    }
}

#[cfg(not(feature = "stub"))]
impl Error {
    /// The exit code of a program that stops for it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        self.code
    }

    /// All of it.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }
}

#[cfg(not(feature = "stub"))]
impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.line.fmt(f)
    }
}

#[cfg(not(feature = "stub"))]
impl core::fmt::Debug for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.line.fmt(f)
    }
}

impl From<Fault> for Error {
    #[cold]
    fn from(fault: Fault) -> Self {
        Self::of_image(b"", fault)
    }
}

/// An exit code, and behind it an error number or 0: one register at each place that fails.
#[derive(Clone, Copy)]
struct Cause(u32);

impl Cause {
    #[inline(always)]
    fn of(code: ExitCode, errno: impl Into<Option<Errno>>) -> Self {
        let errno = errno.into().map_or(0, Errno::into_raw);
        Self(u32::from(code as u8) << 16 | errno.cast_unsigned())
    }

    const fn code(self) -> u8 {
        (self.0 >> 16) as u8
    }

    const fn errno(self) -> i32 {
        self.0 as u16 as i32
    }
}

/// The processes of the tree whose descriptors are being opened, all of them from one table; else none.
#[cfg(feature = "stub")]
static TREE: (AtomicPtr<Process>, AtomicUsize) = (AtomicPtr::new(core::ptr::null_mut()), AtomicUsize::new(0));

/// Remembers them: an error names descriptors by these. Before other threads are made.
#[cfg(feature = "stub")]
pub fn opens_for(processes: &'static [Process]) {
    TREE.0.store(processes.as_ptr().cast_mut(), Ordering::Relaxed);
    TREE.1.store(processes.len(), Ordering::Relaxed);
}

/// The process that has a descriptor of the common table.
#[cfg(feature = "stub")]
fn owner_of(fd: u32) -> Option<u32> {
    let place = (fd >> FD_BITS) as usize;
    // SAFETY: both are of one slice that lives for ever, or nothing.
    let process =
        (place < TREE.1.load(Ordering::Relaxed)).then(|| unsafe { &*TREE.0.load(Ordering::Relaxed).add(place) });
    process.filter(|_| fd > FD_MASK).map(|process| process.pid.get())
}

/// Outside of the stub descriptors are told of one process at a time.
#[cfg(not(feature = "stub"))]
const fn owner_of(_fd: u32) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn all_is_in_one_line() {
        let (code, denied) = (ExitCode::FileMissing, Errno::EACCES);
        for (error, line) in [
            (Error::about(code, "limit #: cannot be set (!)", 7u32, b"", denied), "limit 7: cannot be set (EACCES)"),
            (
                Error::with_reason(code, "file @", 0, b"/a b", denied, ["cannot be opened", "put it back"]),
                "file /a b: cannot be opened (EACCES): put it back",
            ),
            (Error::with_reason(code, "id #", 5, b"", None, ["", "free #"]), "id 5: free 5"),
            (
                Error::descriptor(code, 3, "pipe @", b"p", None, ["led outside", "--fd #=PATH"]),
                "descriptor 3 (pipe p): led outside: --fd 3=PATH",
            ),
            (
                Error::descriptor(code, 3, "", b"", denied, ["cannot be kept", ""]),
                "descriptor 3: cannot be kept (EACCES)",
            ),
        ] {
            assert_eq!(error.to_string(), line);
            assert_eq!(error.exit_code(), code, "{line}");
        }
    }

    /// What is held keeps its text, whatever comes later.
    #[test]
    fn an_error_owns_its_text() {
        let about = |n: u32| Error::about(ExitCode::Kernel, "limit #", n, b"", None);
        let held: std::vec::Vec<_> = (0..100).map(about).collect();
        for (n, error) in held.iter().enumerate() {
            assert_eq!(error.to_string(), std::format!("limit {n}"));
        }
    }
}
