//! Why an object cannot be saved: a value with the object, the kind, the reason, the kernel's word and the remedy.
//!
//! Code matches on [`Kind`] and errno; texts are for people, and become a message only where that is shown. Must never point into memory that
//! others write to: threads that fail to stop keep one each.

use core::fmt;

use image_format::ExitCode;
use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::writer::Full;
use sys::Errno;
use sys::text::{Line, Text};

/// The result of saving.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Bytes of an object's name that are kept; a longer one is cut.
const NAME: usize = 256;

/// What is matched on; all else about an error is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It cannot be carried.
    Refused,
    /// A system call failed.
    Failed,
    /// It changed meanwhile: another attempt may succeed.
    Changed,
    /// Events wait in it, which the program may read soon.
    EventsWait,
    /// Requests are in flight in it, which may be done soon.
    InFlight,
    /// It is memory that a fork wipes or leaves out: a copy of the process lacks it.
    Wiped,
    /// The process has ended, or is about to.
    Ended,
    /// No executable mapping has room for a system call that is made inside the process.
    NoRoomInside,
    /// The process may not be traced.
    NotTraced,
}

/// What an error is about.
#[derive(Clone, Copy, Debug)]
pub enum Object {
    /// A descriptor: its number in the tree's common table, and what it is.
    Descriptor {
        /// See [`FD_BITS`].
        number: u32,
        /// The process whose number it is, where that is not clear.
        pid: Option<u32>,
        /// What it is; empty: that is not known.
        what: Text<NAME>,
    },
    /// Two descriptors, and what they are.
    Descriptors([(u32, Option<u32>); 2]),
    /// Anything else, by its name.
    Other(Text<NAME>),
}

impl Object {
    /// A descriptor of the tree's common table, and what it is.
    #[must_use]
    #[cold]
    pub fn descriptor(number: u32, what: fmt::Arguments<'_>) -> Self {
        Self::Descriptor { number, pid: None, what: Text::of(what) }
    }

    /// A descriptor of which nothing else is known.
    #[must_use]
    #[cold]
    pub fn bare(number: u32) -> Self {
        Self::descriptor(number, format_args!(""))
    }

    /// The same object, with the processes whose descriptors it names; `pid_of`: the id of the process at a place of the tree.
    fn with_processes(mut self, pid_of: impl Fn(usize) -> Option<u32>) -> Self {
        let find = |number: u32, pid: &mut Option<u32>| {
            *pid = pid_of((number >> FD_BITS) as usize).filter(|_| number > FD_MASK);
        };
        match &mut self {
            Self::Descriptor { number, pid, .. } => find(*number, pid),
            Self::Descriptors(both) => both.iter_mut().for_each(|(number, pid)| find(*number, pid)),
            Self::Other(_) => {}
        }
        self
    }

    fn tell(&self, line: &mut Line) {
        let number = |line: &mut Line, number: u32, pid: Option<u32>| match pid {
            Some(pid) => {
                line.fill("#", (number & FD_MASK).into(), b"", 0);
                line.fill(" of process #", pid.into(), b"", 0);
            }
            None => line.fill("#", number.into(), b"", 0),
        };
        let name = |line: &mut Line, text: &Text<NAME>| {
            line.fill("@", 0, text.as_bytes(), 0);
            if text.is_cut() {
                line.fill("...", 0, b"", 0);
            }
        };
        match self {
            Self::Descriptor { number: own, pid, what } => {
                line.fill("descriptor ", 0, b"", 0);
                number(line, *own, *pid);
                if !what.as_bytes().is_empty() {
                    line.fill(" (", 0, b"", 0);
                    name(line, what);
                    line.fill(")", 0, b"", 0);
                }
            }
            Self::Descriptors([(first, first_pid), (second, second_pid)]) => {
                line.fill("descriptors ", 0, b"", 0);
                number(line, *first, *first_pid);
                line.fill(" and ", 0, b"", 0);
                number(line, *second, *second_pid);
            }
            Self::Other(text) => name(line, text),
        }
    }
}

impl From<fmt::Arguments<'_>> for Object {
    #[cold]
    fn from(name: fmt::Arguments<'_>) -> Self {
        Self::Other(Text::of(name))
    }
}

/// What went wrong with which object. Displays as one line: `object: reason (errno): remedy`.
#[derive(Clone, Copy)]
pub struct Error {
    object: Object,
    why: &'static str,
    remedy: &'static str,
    errno: Option<Errno>,
    kind: Kind,
    code: ExitCode,
}

impl Error {
    #[cold]
    fn new(object: Object, kind: Kind, why: &'static str, errno: Option<Errno>, remedy: &'static str) -> Self {
        Self { object, why, remedy, errno, kind, code: ExitCode::SaveFailed }
    }

    /// An object that cannot be carried, and what helps.
    #[must_use]
    #[cold]
    pub fn refused(object: impl Into<Object>, why: &'static str, remedy: &'static str) -> Self {
        debug_assert!(!remedy.is_empty());
        Self::new(object.into(), Kind::Refused, why, None, remedy)
    }

    /// A system call that failed.
    #[must_use]
    #[cold]
    pub fn failed(object: impl Into<Object>, why: &'static str, errno: Errno) -> Self {
        Self::new(object.into(), Kind::Failed, why, Some(errno), "")
    }

    /// All of it as one line, shown as [`fmt::Display`] does.
    #[must_use]
    pub fn line(&self) -> Line {
        let mut line = Line::new();
        self.object.tell(&mut line);
        line.fill(": @", 0, self.why.as_bytes(), 0);
        if let Some(errno) = self.errno {
            line.fill(" (!)", 0, b"", errno.into_raw());
        }
        if !self.remedy.is_empty() {
            line.fill(": @", 0, self.remedy.as_bytes(), 0);
        }
        line
    }

    /// The same with descriptors of a tree's common table called by their own numbers and processes; `pid_of`: the id of the process at
    /// a place.
    #[must_use]
    #[cold]
    pub fn with_processes(self, pid_of: impl Fn(usize) -> Option<u32>) -> Self {
        Self { object: self.object.with_processes(pid_of), ..self }
    }

    /// The same with another exit code.
    #[must_use]
    pub fn code(self, code: ExitCode) -> Self {
        Self { code, ..self }
    }

    /// The same of another kind.
    #[must_use]
    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn remedy(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }

    /// Whether it is of this kind.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind
    }

    /// Whether another attempt may succeed: something changed meanwhile, or a process or thread has ended.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.is(Kind::Changed) || self.errno == Some(Errno::ESRCH)
    }

    /// The exit code of a program that stops for it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        self.code
    }

    /// What the kernel said, when it was asked.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.line(), f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Full> for Error {
    #[cold]
    fn from(_: Full) -> Self {
        Self::refused(
            format_args!("the process"),
            "has more mappings, segments or descriptors than the saver's memory holds",
            "raise its address space limit (ulimit -v)",
        )
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    /// What was held keeps its text, however many come later.
    #[test]
    fn an_error_is_a_value() {
        let held: std::vec::Vec<_> =
            (0..100).map(|n| Error::failed(format_args!("thread {n}"), "cannot be read", Errno::EIO)).collect();
        for (n, error) in held.iter().enumerate() {
            assert_eq!(error.to_string(), std::format!("thread {n}: cannot be read (EIO)"));
        }
    }

    /// Only the descriptor's number is one of the common table: ids and what is in a name are not.
    #[test]
    fn descriptors_are_called_as_their_processes_do() {
        let pid_of = |place| (place < 3).then_some(100 + place as u32);
        let own = |number, what| {
            let error = Error::refused(Object::descriptor(number, what), "cannot be carried", "close it");
            error.with_processes(pid_of).to_string()
        };
        assert_eq!(own(5, format_args!("pipe")), "descriptor 5 (pipe): cannot be carried: close it");
        let there = own(2 << FD_BITS | 7, format_args!("inotify, watch 1 on inode 2097155"));
        assert_eq!(
            there,
            "descriptor 7 of process 102 (inotify, watch 1 on inode 2097155): cannot be carried: close it"
        );
        let process =
            Error::refused(format_args!("process 2097155"), "has ended", "name another").with_processes(pid_of);
        assert_eq!(process.to_string(), "process 2097155: has ended: name another");
        let both = Object::Descriptors([(3, None), (1 << FD_BITS | 4, None)]);
        let both = Error::refused(both, "cannot be told apart", "close one").with_processes(pid_of);
        assert_eq!(both.to_string(), "descriptors 3 and 4 of process 101: cannot be told apart: close one");
    }

    /// A name that is too long takes nothing away from what follows it.
    #[test]
    fn long_names_are_cut() {
        let path = "x".repeat(4096);
        let error = Error::refused(format_args!("file {path}"), "was deleted", "save again").to_string();
        assert!(error.ends_with("xxx...: was deleted: save again"), "{error}");
        assert!(error.len() < 320, "{error}");
    }
}
