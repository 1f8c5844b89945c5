//! Why an object cannot be saved or restored: the object, the reason, the remedy. One type for both halves.
//!
//! An error is one word: its text lies in a small ring of statics, as there is no allocator and hundreds of
//! functions hand errors on. Whoever keeps one while [`RING`] later ones are made reads a later one's text.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};

use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::writer::Full;
use image_format::{ExitCode, Fault};
use sys::Errno;
use sys::text::{Line, Text, decimal};

/// The result of saving or restoring.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Errors whose text exists at a time. Threads that fail to stop make one each, and the first is reported.
const RING: usize = 8;

/// In this order: the short ones first, within a byte's reach of the start.
#[repr(C)]
struct Facts {
    code: ExitCode,
    errno: Option<Errno>,
    /// It came of what changed meanwhile: another attempt may succeed.
    passing: bool,
    why: &'static str,
    remedy: &'static str,
    object: Line,
}

/// Empty until its first error: all zero, so that it costs no byte of the file.
struct Slot(UnsafeCell<MaybeUninit<Facts>>);

// SAFETY: a slot belongs to the thread that took it from the ring until RING further errors were made; see the module.
unsafe impl Sync for Slot {}

static SLOTS: [Slot; RING] = [const { Slot(UnsafeCell::new(MaybeUninit::uninit())) }; RING];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// What went wrong with which object. Displays as one line: `object: reason (errno): remedy`.
#[derive(Clone, Copy)]
pub struct Error(&'static Slot);

impl Error {
    /// What went wrong: with the kernel's word, if it was asked, and a remedy, if there is one.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub fn new(object: fmt::Arguments<'_>, why: &'static str, errno: Option<Errno>, remedy: &'static str) -> Self {
        let error = Self::empty();
        error.change(|facts| {
            facts.object.add(object);
            (facts.why, facts.errno, facts.remedy) = (why, errno, remedy);
        });
        error
    }

    /// One that says nothing yet: its text is written where it stays.
    #[inline(never)] // So that it exists once.
    fn empty() -> Self {
        let index = NEXT.fetch_add(1, Ordering::Relaxed) % RING;
        let [first, ..] = &SLOTS;
        let error = Self(SLOTS.get(index).unwrap_or(first));
        let (code, object) = (ExitCode::SaveFailed, Line::new());
        let facts = Facts { code, object, why: "", errno: None, passing: false, remedy: "" };
        // SAFETY: the slot is this error's own, see `Slot`; what it held before needs no drop.
        unsafe { (*error.0.0.get()).write(facts) };
        error
    }

    /// An object that cannot be carried.
    #[must_use]
    #[cold]
    pub fn refused(object: fmt::Arguments<'_>, why: &'static str, remedy: &'static str) -> Self {
        Self::new(object, why, None, remedy)
    }

    /// As [`Error::refused`], with reason and remedy in one: `reason: remedy`.
    #[must_use]
    #[cold]
    pub fn told(object: fmt::Arguments<'_>, why: &'static str) -> Self {
        Self::new(object, why, None, "")
    }

    /// A system call that failed.
    #[must_use]
    #[cold]
    pub fn failed(object: fmt::Arguments<'_>, why: &'static str, errno: Errno) -> Self {
        Self::new(object, why, Some(errno), "")
    }

    /// What went wrong at a restart: the whole line as a pattern (see [`Text::fill`]), in which `#` or `*` stands for the number,
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
        let error = Self::empty();
        error.change(|facts| {
            facts.object.fill(line, number, bytes, errno);
            facts.errno = Some(Errno::new(errno)).filter(|_| errno != 0);
        });
        error
    }

    /// What went wrong at a restart with a descriptor of this kind and name.
    #[must_use]
    #[cold]
    #[inline(never)] // So that it exists once.
    pub fn descriptor(fd: u32, kind: &'static str, path: &[u8], why: &'static str, errno: Option<Errno>) -> Self {
        let error = Self::empty();
        error.change(|facts| {
            facts.object.fill("descriptor # (", fd.into(), b"", 0);
            facts.object.fill(kind, 0, b"", 0);
            facts.object.fill(" @)", 0, path, 0);
            facts.errno = errno;
        });
        error.why(why)
    }

    /// The same with a reason, and the kernel's word, behind what a pattern says.
    #[must_use]
    #[cold]
    #[inline(never)] // So that it exists once.
    pub fn why(self, why: &'static str) -> Self {
        let errno = self.errno().map(Errno::into_raw);
        let told = self.hint(why);
        if let Some(errno) = errno {
            told.change(|facts| facts.object.fill(" (!)", 0, b"", errno));
        }
        told
    }

    /// The same with a remedy behind what a pattern says; an empty one is none.
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
    pub fn hint_with(self, remedy: &'static str, number: u32) -> Self {
        if !remedy.is_empty() {
            self.change(|facts| {
                facts.object.fill(": ", 0, b"", 0);
                facts.object.fill(remedy, number.into(), b"", 0);
            });
        }
        self
    }

    /// All of it as one line, shown as [`fmt::Display`] does.
    #[must_use]
    pub fn line(&self) -> Line {
        let Facts { object, why, errno, remedy, .. } = self.facts();
        let mut line = Text::filled("@", 0, object.as_bytes(), 0);
        // A pattern has all in one.
        if !why.is_empty() {
            line.fill(": @", 0, why.as_bytes(), 0);
            if let Some(errno) = errno {
                line.fill(" (!)", 0, b"", errno.into_raw());
            }
        }
        if !remedy.is_empty() {
            line.fill(": @", 0, remedy.as_bytes(), 0);
        }
        line
    }

    /// The same with descriptors of a tree's common table called by their own numbers and processes; `pid_of`: the id of the process at
    /// a place.
    #[must_use]
    #[cold]
    pub fn with_processes(self, pid_of: impl Fn(usize) -> Option<u32>) -> Self {
        self.change(|facts| facts.object = told(facts.object.as_bytes(), pid_of));
        self
    }

    fn change(self, f: impl FnOnce(&mut Facts)) {
        // SAFETY: the slot is this error's own, see `Slot`, and was written when the error was made.
        f(unsafe { (*self.0.0.get()).assume_init_mut() });
    }

    fn facts(&self) -> &Facts {
        // SAFETY: as above.
        unsafe { (*self.0.0.get()).assume_init_ref() }
    }

    /// The same with another exit code.
    #[must_use]
    pub fn code(self, code: ExitCode) -> Self {
        self.change(|facts| facts.code = code);
        self
    }

    /// The same with a remedy.
    #[must_use]
    pub fn remedy(self, remedy: &'static str) -> Self {
        self.change(|facts| facts.remedy = remedy);
        self
    }

    /// The same, which came of what changed meanwhile: another attempt may succeed.
    #[must_use]
    pub fn passing(self) -> Self {
        self.change(|facts| facts.passing = true);
        self
    }

    /// Whether another attempt may succeed: something changed meanwhile, or a process or thread has ended.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.facts().passing || self.errno() == Some(Errno::ESRCH)
    }

    /// The exit code of a program that stops for it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        self.facts().code
    }

    /// Whether this is the reason: some are not the end, and are told apart by the constant that names them.
    #[must_use]
    pub fn is(&self, why: &str) -> bool {
        self.facts().why == why
    }

    /// What the kernel said, when it was asked.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.facts().errno
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

impl From<Fault> for Error {
    #[cold]
    fn from(fault: Fault) -> Self {
        Self::of_image(b"", fault)
    }
}

impl Error {
    /// What is wrong with the image of this name, if it has one.
    #[must_use]
    #[cold]
    #[inline(never)]
    pub fn of_image(path: &[u8], fault: Fault) -> Self {
        let error = Self::empty();
        error.change(|facts| {
            let object = &mut facts.object;
            object.fill(if path.is_empty() { "image: " } else { "image @: " }, 0, path, 0);
            fault.tell(&mut |pattern, number| object.fill(pattern, number, b"", 0));
            object.fill(": nothing was started", 0, b"", 0);
            facts.code = fault.exit_code();
        });
        error
    }
}

/// A text that begins with `descriptor`, or tells of its locks, and numbers of a tree's common table, with the program's own numbers and its processes' ids.
fn told(text: &[u8], pid_of: impl Fn(usize) -> Option<u32>) -> Line {
    let names = if text.starts_with(b"descriptor") || text.starts_with(b"locks of descriptor") {
        text.iter().position(|b| b"(:".contains(b))
    } else {
        Some(0)
    };
    let (mut rest, names) = text.split_at_checked(names.unwrap_or(text.len())).unwrap_or((text, b""));
    let mut line = Line::new();
    while let Some(at) = rest.iter().position(u8::is_ascii_digit) {
        let (before, behind) = rest.split_at_checked(at).unwrap_or_default();
        let count = behind.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, behind) = behind.split_at_checked(count).unwrap_or_default();
        let number = decimal(digits).unwrap_or(0);
        line.push(before);
        match pid_of((number >> FD_BITS) as usize) {
            Some(pid) if number > u64::from(FD_MASK) => {
                line.fill("#", number & u64::from(FD_MASK), b"", 0);
                line.fill(" of process #", pid.into(), b"", 0);
            }
            _ => line.push(digits),
        }
        rest = behind;
    }
    line.push(rest);
    line.push(names);
    line
}
