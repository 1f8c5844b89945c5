//! Text without an allocator: an inline string to format into, and numbers out of the kernel's text files.
//!
//! What does not fit is cut and counted, never a panic.

use core::ffi::CStr;
use core::fmt;

/// A string of at most `N` bytes, kept with a closing NUL behind it.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
    cut: bool,
}

impl<const N: usize> Text<N> {
    /// The empty string.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0, cut: false }
    }

    /// A string of these formatted parts.
    #[must_use]
    pub fn of(args: fmt::Arguments<'_>) -> Self {
        let mut text = Self::new();
        // Cutting is how it fails, and `is_cut` tells.
        let _ = fmt::Write::write_fmt(&mut text, args);
        text
    }

    /// Appends bytes; what does not fit is cut.
    pub fn push(&mut self, bytes: &[u8]) {
        self.cut |= append(&mut self.bytes, &mut self.len, bytes);
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The bytes as text; empty when they are no UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or("?")
    }

    /// For system calls. Ends at the first NUL.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    /// Whether something did not fit.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }
}

/// Appends to a buffer whose last byte stays NUL; tells whether something was cut. Apart, so that it exists once.
#[inline(never)]
fn append(buffer: &mut [u8], len: &mut usize, bytes: &[u8]) -> bool {
    let room = buffer.len().saturating_sub(1).saturating_sub(*len);
    let fits = bytes.len().min(room);
    if let (Some(to), Some(from)) = (buffer.get_mut(*len..*len + fits), bytes.get(..fits)) {
        to.copy_from_slice(from);
        *len += fits;
    }
    fits < bytes.len()
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.push(s.as_bytes());
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        printable(self.as_bytes(), f)
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes bytes as text; control characters and what is no UTF-8 appear as `\xNN`, so that no name from a file
/// system or an image can play with a terminal.
///
/// # Errors
/// The formatter's own.
pub fn printable(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { write!(f, "\\x{:02x}", u64::from(c))? } else { fmt::Write::write_char(f, c)? }
        }
        for b in chunk.invalid() {
            write!(f, "\\x{:02x}", u64::from(*b))?;
        }
    }
    Ok(())
}

/// Bytes shown by [`printable`].
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        printable(self.0, f)
    }
}

/// A string shown as it is: `str`'s own Display knows padding and cutting, which cost the stub 1 KiB.
#[derive(Clone, Copy)]
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The names of errors 1 to 40, in order, and some later ones behind their numbers (errno-base.h, errno.h).
const ERRORS: &str = "EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT \
     ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE \
     EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP";
const LATER_ERRORS: &str = "75 EOVERFLOW 95 EOPNOTSUPP 110 ETIMEDOUT 116 ESTALE 122 EDQUOT";

/// An error by its name, or by its number. The `syscalls` crate's own table of names costs the stub 5 KiB.
#[derive(Clone, Copy)]
pub struct Named(pub crate::Errno);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u64::try_from(self.0.into_raw()).unwrap_or(0);
        let index = (number as usize).wrapping_sub(1);
        let mut later = LATER_ERRORS.split(' ');
        let found = ERRORS.split(' ').nth(index).or_else(|| {
            later.find(|n| decimal(n.as_bytes()) == Some(number))?;
            later.next()
        });
        match found {
            Some(name) => f.write_str(name),
            None => write!(f, "error {number}"),
        }
    }
}

/// Parses a decimal number that makes up all of `bytes`.
#[must_use]
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    number(bytes, 10)
}

/// Parses a hexadecimal number that makes up all of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> Option<u64> {
    number(bytes, 16)
}

/// Parses an octal number that makes up all of `bytes`.
#[must_use]
pub fn octal(bytes: &[u8]) -> Option<u64> {
    number(bytes, 8)
}

fn number(bytes: &[u8], radix: u32) -> Option<u64> {
    let mut digits = bytes.iter().map(|b| char::from(*b).to_digit(radix));
    let first = u64::from(digits.next()??);
    digits.try_fold(first, |n, digit| n.checked_mul(u64::from(radix))?.checked_add(u64::from(digit?)))
}

/// Splits at the first `at`: what is before and what is behind it.
#[must_use]
pub fn cut(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = bytes.iter().position(|b| *b == at)?;
    Some((bytes.get(..i)?, bytes.get(i + 1..)?))
}

/// The words of a line, between blanks and tabs.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| matches!(b, b' ' | b'\t' | b'\n')).filter(|w| !w.is_empty())
}
