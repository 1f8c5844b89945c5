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
        text.add(args);
        text
    }

    /// Appends formatted parts; what does not fit is cut.
    pub fn add(&mut self, args: fmt::Arguments<'_>) {
        let mut rest = Rest { buffer: &mut self.bytes, len: &mut self.len, cut: &mut self.cut };
        // Cutting is how it fails, and `is_cut` tells.
        let _ = fmt::Write::write_fmt(&mut rest, args);
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
        const { assert!(N > 0) };
        // SAFETY: the last byte stays NUL (see `append`), and the bytes live as long as the result.
        unsafe { CStr::from_ptr(self.bytes.as_ptr().cast()) }
    }

    /// Whether something did not fit.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }
}

/// A text of any size, for the formatter: so that its code exists once.
struct Rest<'a> {
    buffer: &'a mut [u8],
    len: &'a mut usize,
    cut: &'a mut bool,
}

impl fmt::Write for Rest<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        *self.cut |= append(self.buffer, self.len, s.as_bytes());
        Ok(())
    }
}

/// Appends to a buffer whose last byte stays NUL; tells whether something was cut. Apart, so that it exists once.
#[inline(never)]
fn append(buffer: &mut [u8], len: &mut usize, bytes: &[u8]) -> bool {
    let room = buffer.len().saturating_sub(1).saturating_sub(*len);
    let fits = bytes.len().min(room);
    // As many as fit into `room`; a loop, as `copy_from_slice` brings a message that costs the stub 1 KiB.
    for (to, from) in buffer.iter_mut().skip(*len).zip(bytes.iter().take(fits)) {
        *to = *from;
    }
    *len += fits;
    fits < bytes.len()
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
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
pub fn printable(mut bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    while let Some(first) = bytes.first() {
        let len = match character(bytes) {
            Some(c) if !c.is_control() => {
                fmt::Write::write_char(f, c)?;
                c.len_utf8()
            }
            _ => {
                escaped(*first, f)?;
                1
            }
        };
        bytes = bytes.get(len..).unwrap_or_default();
    }
    Ok(())
}

/// The character that these bytes begin with, if they are UTF-8 so far. By hand: the core library's reading is made for long
/// texts, and costs the stub 1/2 KiB.
fn character(bytes: &[u8]) -> Option<char> {
    let (first, rest) = bytes.split_first()?;
    // As many leading ones as bytes, but for one byte: none.
    let ones = first.leading_ones();
    let tail = rest.get(..ones.saturating_sub(1) as usize)?;
    let mut code = u32::from(*first) & (0x7f >> ones);
    for byte in tail {
        if byte & 0xc0 != 0x80 {
            return None;
        }
        code = code << 6 | u32::from(byte & 0x3f);
    }
    // Neither a tail alone, nor more bytes than it takes, nor half of a pair.
    char::from_u32(code).filter(|c| ones != 1 && c.len_utf8() == 1 + tail.len())
}

/// One byte that is not to be shown as it is.
fn escaped(byte: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "\\x{}{}", Hex(u64::from(byte >> 4)), Hex(u64::from(byte & 15)))
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

/// A number, shown in decimal: those of the core library know padding and signs, which cost the stub 1 KiB.
#[derive(Clone, Copy)]
pub struct Decimal<N>(pub N);

impl<N: Into<u64> + Copy> fmt::Display for Decimal<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(self.0.into(), 10, f)
    }
}

/// A number, shown in hexadecimal without a prefix.
#[derive(Clone, Copy)]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(self.0, 16, f)
    }
}

/// Writes the digits of a number, the first one first.
fn digits(number: u64, radix: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if number >= radix {
        digits(number / radix, radix, f)?;
    }
    fmt::Write::write_char(f, char::from_digit((number % radix) as u32, radix as u32).unwrap_or('?'))
}

/// The names of errors 1 to 40, in order, and some later ones behind their numbers (errno-base.h, errno.h).
const ERRORS: &[u8] = b"EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT \
     ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE \
     EROFS EMLINK EPIPE";
const LATER_ERRORS: &[u8] =
    b"36 ENAMETOOLONG 37 ENOLCK 38 ENOSYS 40 ELOOP 75 EOVERFLOW 95 EOPNOTSUPP 98 EADDRINUSE 110 ETIMEDOUT 111 ECONNREFUSED 116 ESTALE 122 EDQUOT";

/// An error by its name, or by its number. The `syscalls` crate's own table of names costs the stub 5 KiB.
#[derive(Clone, Copy)]
pub struct Named(pub crate::Errno);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u64::try_from(self.0.into_raw()).unwrap_or(0);
        let index = (number as usize).wrapping_sub(1);
        match words(ERRORS).nth(index).or_else(|| numbered(LATER_ERRORS, number)) {
            Some(name) => printable(name, f),
            None => write!(f, "error {}", Decimal(number)),
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

fn number(bytes: &[u8], radix: u8) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    rest.iter().try_fold(u64::from(digit(*first, radix)?), |n, b| {
        n.checked_mul(u64::from(radix))?.checked_add(u64::from(digit(*b, radix)?))
    })
}

fn digit(byte: u8, radix: u8) -> Option<u8> {
    let value = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'z' => byte - b'a' + 10,
        b'A'..=b'Z' => byte - b'A' + 10,
        _ => return None,
    };
    Some(value).filter(|value| *value < radix)
}

/// The word behind this number in a list of numbers and words.
#[must_use]
#[inline(never)] // So that it exists once.
pub fn numbered(list: &[u8], number: u64) -> Option<&[u8]> {
    let mut list = words(list);
    list.find(|word| decimal(word) == Some(number))?;
    list.next()
}

/// Which of the words of a list this one is.
#[must_use]
pub fn choice(word: &[u8], list: &[u8]) -> Option<usize> {
    words(list).position(|one| one == word)
}

/// What follows a prefix. Unlike the core library's own it cannot panic, which would cost the stub a message.
#[must_use]
pub fn after<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    text.get(prefix.len()..).filter(|_| text.starts_with(prefix))
}

/// Splits at the first `at`: what is before and what is behind it.
#[must_use]
pub fn cut(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = bytes.iter().position(|b| *b == at)?;
    Some((bytes.get(..i)?, bytes.get(i + 1..)?))
}

/// The words of a line, between blanks and tabs.
#[must_use]
pub fn words(line: &[u8]) -> Words<'_> {
    Words(line)
}

/// What [`words`] gives.
#[derive(Clone, Debug)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline(never)] // So that it exists once.
    fn next(&mut self) -> Option<&'a [u8]> {
        let is_blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n');
        let start = self.0.iter().position(|b| !is_blank(b))?;
        let rest = self.0.get(start..)?;
        let end = rest.iter().position(is_blank).unwrap_or(rest.len());
        let (word, rest) = rest.split_at_checked(end)?;
        self.0 = rest;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> Text<64> {
        Text::of(format_args!("{}", Shown(bytes)))
    }

    #[test]
    fn text_is_shown_as_it_is() {
        let text = "a \u{7e} \u{e4} \u{20ac} \u{1f600}!";
        assert_eq!(shown(text.as_bytes()).as_bytes(), text.as_bytes());
    }

    /// As the core library reads it: each character, and each pair of bytes with tails of all lengths.
    #[test]
    fn characters_are_read_as_they_are_written() {
        let mut buffer = [0; 4];
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            assert_eq!(character(c.encode_utf8(&mut buffer).as_bytes()), Some(c));
        }
        for pair in 0..=u16::MAX {
            let [a, b] = pair.to_be_bytes();
            for len in 1..=4 {
                let bytes = &[a, b, 0x80, 0xbf][..len];
                let first = |len| core::str::from_utf8(bytes.get(..len)?).ok()?.chars().next();
                assert_eq!(character(bytes), (1..=4).find_map(first), "{bytes:x?}");
            }
        }
    }

    #[test]
    fn control_characters_and_what_is_no_text_are_not() {
        assert_eq!(shown(b"a\x1b[2J\n\x7f").as_bytes(), b"a\\x1b[2J\\x0a\\x7f");
        assert_eq!(shown("\u{9b}".as_bytes()).as_bytes(), b"\\xc2\\x9b");
        // Cut short, too long for what it says, half of a pair, a lone tail.
        assert_eq!(shown(b"\xe2\x82").as_bytes(), b"\\xe2\\x82");
        assert_eq!(shown(b"\xc0\xafb").as_bytes(), b"\\xc0\\xafb");
        assert_eq!(shown(b"\xed\xa0\x80").as_bytes(), b"\\xed\\xa0\\x80");
        assert_eq!(shown(b"\x80").as_bytes(), b"\\x80");
    }
}
