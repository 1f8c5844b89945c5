//! Why an object cannot be saved or restored: the object, the reason, the remedy. One type for both halves.

use core::fmt;

use image_format::writer::Full;
use image_format::{ExitCode, Fault};
use sys::Errno;
use sys::text::Text;

/// The result of saving or restoring.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with which object. Displays as one line: `object: reason (errno): remedy`.
#[derive(Clone, Copy)]
pub struct Error {
    /// The exit code of a program that stops for it.
    pub code: ExitCode,
    /// The object by number, kind and name, as in `descriptor 5 (socket:[123])`.
    pub object: Text<320>,
    /// Why, in words.
    pub why: &'static str,
    /// What the kernel said, when it was asked.
    pub errno: Option<Errno>,
    /// What to do; may be empty.
    pub remedy: &'static str,
}

impl Error {
    /// An object that cannot be carried.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub fn refused(object: fmt::Arguments<'_>, why: &'static str, remedy: &'static str) -> Self {
        Self { code: ExitCode::SaveFailed, object: Text::of(object), why, errno: None, remedy }
    }

    /// A system call that failed while saving.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub fn failed(object: fmt::Arguments<'_>, why: &'static str, errno: Errno) -> Self {
        Self { code: ExitCode::SaveFailed, object: Text::of(object), why, errno: Some(errno), remedy: "" }
    }

    /// The same with another exit code.
    #[must_use]
    pub const fn code(mut self, code: ExitCode) -> Self {
        self.code = code;
        self
    }

    /// The same with a remedy.
    #[must_use]
    pub const fn remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = remedy;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.why)?;
        if let Some(errno) = self.errno {
            write!(f, " ({})", errno.name().unwrap_or("unknown error"))?;
        }
        if !self.remedy.is_empty() {
            write!(f, ": {}", self.remedy)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Full> for Error {
    fn from(_: Full) -> Self {
        Self::refused(
            format_args!("the process"),
            "has more mappings, segments or descriptors than the saver's memory holds",
            "raise its address space limit (ulimit -v)",
        )
    }
}

impl From<Fault> for Error {
    #[cold]
    #[inline(never)]
    fn from(fault: Fault) -> Self {
        Self {
            code: fault.exit_code(),
            object: Text::of(format_args!("image")),
            why: "is bad",
            errno: None,
            remedy: "",
        }
        .with_object(format_args!("image: {fault}"))
    }
}

impl Error {
    fn with_object(mut self, object: fmt::Arguments<'_>) -> Self {
        self.object = Text::of(object);
        self
    }
}
