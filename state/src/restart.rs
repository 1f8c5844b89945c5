//! Why an object cannot be restored: what, why, the kernel's word and the remedy.
//!
//! An error is one word, as hundreds of functions of the stub hand errors on: it owns a place of [`PLACES`] until it is dropped, as there is
//! no allocator. Must never share a place: what is held keeps its text, whatever comes later, in any thread.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::{ExitCode, Fault};
use sys::Errno;
use sys::text::{Line, say};

/// The result of restoring.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// In this order: the short ones first, within a byte's reach of the start.
#[repr(C)]
struct Facts {
    code: ExitCode,
    errno: Option<Errno>,
    /// A descriptor of a tree's common table, which the text begins with; [`NO_FD`]: none.
    fd: u32,
    /// The process whose descriptor it is; 0: that is clear.
    pid: u32,
    /// The text, or what follows the descriptor.
    text: Line,
}

/// No number of a descriptor.
const NO_FD: u32 = u32::MAX;

/// Of one error at a time. All zero before its first one, so that it costs no byte of the file.
struct Place {
    taken: AtomicBool,
    facts: UnsafeCell<MaybeUninit<Facts>>,
}

// SAFETY: the facts belong to the one error that has set `taken`; it alone writes to them, and not through a shared reference.
unsafe impl Sync for Place {}

/// Errors that there may be at a time: whoever collects them keeps their lines. One more ends this program, as a panic of the stub does.
const MOST: usize = 16;

static PLACES: [Place; MOST] =
    [const { Place { taken: AtomicBool::new(false), facts: UnsafeCell::new(MaybeUninit::uninit()) } }; MOST];

/// What went wrong with which object. Displays as one line: `object: reason (errno): remedy`.
pub struct Error(&'static Place);

impl Error {
    /// What went wrong: the whole line as a pattern (see [`sys::text::Text::fill`]), in which `#` or `*` stands for the number,
    /// `@` for the bytes, `!` for the kernel's word.
    #[must_use]
    #[cold]
    #[inline(always)]
    pub fn about(line: &'static str, number: impl Into<u64>, bytes: &[u8], errno: impl Into<Option<Errno>>) -> Self {
        Self::filled(line, number.into(), bytes, errno.into().map_or(0, Errno::into_raw))
    }

    #[cold]
    #[inline(never)] // So that it exists once.
    fn filled(line: &'static str, number: u64, bytes: &[u8], errno: i32) -> Self {
        let mut error = Self::empty();
        error.change(|facts| {
            facts.text.fill(line, number, bytes, errno);
            facts.errno = Some(Errno::new(errno)).filter(|_| errno != 0);
        });
        error
    }

    /// One that says nothing yet: its text is written where it stays.
    #[inline(never)] // So that it exists once.
    fn empty() -> Self {
        let Some(place) = PLACES.iter().find(|place| !place.taken.swap(true, Ordering::Acquire)) else {
            say("internal error: too many errors at a time\n", 0, b"", 0);
            sys::process::exit(i32::from(ExitCode::Restore as u8))
        };
        let facts = Facts { code: ExitCode::Kernel, errno: None, fd: NO_FD, pid: 0, text: Line::new() };
        // SAFETY: the place is this error's own, see `Place`; what it held before needs no drop.
        unsafe { (*place.facts.get()).write(facts) };
        Self(place)
    }

    fn change(&mut self, f: impl FnOnce(&mut Facts)) {
        // SAFETY: the place is this error's own, which is borrowed; it was written when the error was made.
        f(unsafe { (*self.0.facts.get()).assume_init_mut() });
    }

    fn facts(&self) -> &Facts {
        // SAFETY: as above; nobody writes while the error is borrowed.
        unsafe { (*self.0.facts.get()).assume_init_ref() }
    }

    /// What went wrong with a descriptor of this kind and name.
    #[must_use]
    #[cold]
    #[inline(never)] // So that it exists once.
    pub fn descriptor(fd: u32, kind: &'static str, path: &[u8], why: &'static str, errno: Option<Errno>) -> Self {
        let mut error = Self::empty();
        error.change(|facts| {
            facts.fd = fd;
            facts.text.fill(" (", 0, b"", 0);
            facts.text.fill(kind, 0, b"", 0);
            facts.text.fill(" @)", 0, path, 0);
            facts.errno = errno;
        });
        error.why(why)
    }

    /// The same about a descriptor, which its text then follows.
    #[must_use]
    #[cold]
    #[inline(never)] // So that it exists once.
    pub fn of_descriptor(mut self, fd: u32) -> Self {
        self.change(|facts| facts.fd = fd);
        self
    }

    /// The same with a reason, and the kernel's word, behind what it says.
    #[must_use]
    #[cold]
    #[inline(never)] // So that it exists once.
    pub fn why(self, why: &'static str) -> Self {
        let errno = self.errno().map(Errno::into_raw);
        let mut told = self.hint(why);
        if let Some(errno) = errno {
            told.change(|facts| facts.text.fill(" (!)", 0, b"", errno));
        }
        told
    }

    /// The same with a remedy behind what it says; an empty one is none.
    #[must_use]
    #[cold]
    #[inline(never)] // So that it exists once.
    pub fn hint(self, remedy: &'static str) -> Self {
        self.hint_with(remedy, 0)
    }

    /// The same of a pattern in which `#` stands for a number.
    #[must_use]
    #[cold]
    #[inline(never)] // So that it exists once.
    pub fn hint_with(mut self, remedy: &'static str, number: u32) -> Self {
        if !remedy.is_empty() {
            self.change(|facts| {
                facts.text.fill(": ", 0, b"", 0);
                facts.text.fill(remedy, number.into(), b"", 0);
            });
        }
        self
    }

    /// All of it as one line, shown as [`fmt::Display`] does.
    #[must_use]
    pub fn line(&self) -> Line {
        let Facts { fd, pid, text, .. } = self.facts();
        let mut line = Line::new();
        if *fd != NO_FD {
            let own = if *pid == 0 { *fd } else { fd & FD_MASK };
            line.fill("descriptor #", own.into(), b"", 0);
            if *pid != 0 {
                line.fill(" of process #", (*pid).into(), b"", 0);
            }
        }
        line.fill("@", 0, text.as_bytes(), 0);
        line
    }

    /// The same with a descriptor of a tree's common table called by its own number and process; `pid_of`: the id of the process at a place.
    #[must_use]
    #[cold]
    pub fn with_processes(mut self, pid_of: impl Fn(usize) -> Option<u32>) -> Self {
        self.change(|facts| {
            if facts.fd != NO_FD && facts.fd > FD_MASK {
                facts.pid = pid_of((facts.fd >> FD_BITS) as usize).unwrap_or(0);
            }
        });
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub fn code(mut self, code: ExitCode) -> Self {
        self.change(|facts| facts.code = code);
        self
    }

    /// The exit code of a program that stops for it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        self.facts().code
    }

    /// What the kernel said, when it was asked.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.facts().errno
    }

    /// What is wrong with the image of this name, if it has one.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub fn of_image(path: &[u8], fault: Fault) -> Self {
        let mut error = Self::empty();
        error.change(|facts| {
            let text = &mut facts.text;
            text.fill(if path.is_empty() { "image: " } else { "image @: " }, 0, path, 0);
            fault.tell(&mut |pattern, number| text.fill(pattern, number, b"", 0));
            text.fill(": nothing was started", 0, b"", 0);
            facts.code = fault.exit_code();
        });
        error
    }
}

impl Drop for Error {
    #[inline(never)] // So that it exists once.
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
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

impl From<Fault> for Error {
    #[cold]
    fn from(fault: Fault) -> Self {
        Self::of_image(b"", fault)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    /// What is held keeps its text, in each of several threads; what was dropped makes room.
    #[test]
    fn an_error_owns_its_text() {
        let about = |n: u32| Error::about("limit #: cannot be set (!)", n, b"", Errno::EPERM);
        let work = |first: u32| {
            move || {
                for n in (first..).take(1000) {
                    let held: Vec<_> = [n, n + 1, n + 2].into_iter().map(about).collect();
                    for (n, error) in (n..).zip(&held) {
                        assert_eq!(error.to_string(), std::format!("limit {n}: cannot be set (EPERM)"));
                    }
                }
            }
        };
        let threads: Vec<_> = (1..=4).map(|n| std::thread::spawn(work(n * 1_000_000))).collect();
        for thread in threads {
            assert!(thread.join().is_ok());
        }
    }

    /// Only the descriptor's number is one of the common table.
    #[test]
    fn descriptors_are_called_as_their_processes_do() {
        let pid_of = |place| (place == 1).then_some(2_097_155);
        let name = b"/tmp/2097152";
        let own = |fd| Error::descriptor(fd, "pipe", name, "cannot be made again", Some(Errno::EIO));
        let there = own(1 << FD_BITS | 7).with_processes(pid_of);
        assert_eq!(
            there.to_string(),
            "descriptor 7 of process 2097155 (pipe /tmp/2097152): cannot be made again (EIO)"
        );
        assert_eq!(
            own(7).with_processes(pid_of).to_string(),
            "descriptor 7 (pipe /tmp/2097152): cannot be made again (EIO)"
        );
    }
}
