//! Why an object cannot be saved or restored: the object, the reason, the remedy. One type for both halves.
//!
//! An error is one word: its text lies in a small ring of statics, as there is no allocator and hundreds of
//! functions hand errors on. Whoever keeps one while [`RING`] later ones are made reads a later one's text.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};

use image_format::writer::Full;
use image_format::{ExitCode, Fault};
use sys::Errno;
use sys::text::Text;

/// The result of saving or restoring.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Errors whose text exists at a time. Threads that fail to stop make one each, and the first is reported.
const RING: usize = 8;

/// In this order: the short ones first, within a byte's reach of the start.
#[repr(C)]
struct Facts {
    code: ExitCode,
    errno: Option<Errno>,
    why: &'static str,
    remedy: &'static str,
    object: Text<512>,
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
        Self::made(Text::of(object), why, errno, remedy)
    }

    fn made(object: Text<512>, why: &'static str, errno: Option<Errno>, remedy: &'static str) -> Self {
        let index = NEXT.fetch_add(1, Ordering::Relaxed) % RING;
        let [first, ..] = &SLOTS;
        let error = Self(SLOTS.get(index).unwrap_or(first));
        let facts = Facts { code: ExitCode::SaveFailed, object, why, errno, remedy };
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
    fn filled(line: &str, number: u64, bytes: &[u8], errno: i32) -> Self {
        let errno_told = Some(Errno::new(errno)).filter(|_| errno != 0);
        Self::made(Text::filled(line, number, bytes, errno), "", errno_told, "")
    }

    /// What went wrong with a descriptor of this kind and name.
    #[must_use]
    #[cold]
    #[inline(never)] // So that it exists once.
    pub fn descriptor(fd: u32, kind: &str, path: &[u8], why: &'static str, errno: Option<Errno>) -> Self {
        let mut object = Text::filled("descriptor # (@ ", fd.into(), kind.as_bytes(), 0);
        object.fill("@)", 0, path, 0);
        Self::made(object, why, errno, "")
    }

    /// All of it as one line, shown as [`fmt::Display`] does.
    #[must_use]
    pub fn line(&self) -> Text<1024> {
        let Facts { object, why, errno, remedy, .. } = self.facts();
        let mut line = Text::filled("@", 0, object.as_bytes(), 0);
        // A pattern of `about` has all in one.
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

    /// The same with a reason behind what it says of the object.
    #[must_use]
    pub fn why(self, why: &'static str) -> Self {
        self.change(|facts| facts.why = why);
        self
    }

    /// The same with a remedy.
    #[must_use]
    pub fn remedy(self, remedy: &'static str) -> Self {
        self.change(|facts| facts.remedy = remedy);
        self
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
        let gap = if path.is_empty() { "image" } else { "image @" };
        let mut object = Text::filled(gap, 0, path, 0);
        object.fill(": @: nothing was started", 0, fault.brief().as_bytes(), 0);
        Self::made(object, "", None, "").code(fault.exit_code())
    }
}
