//! Text without an allocator: an inline string to format into, and numbers out of the kernel's text files.
//!
//! What does not fit is cut and counted, never a panic.

use core::ffi::CStr;
use core::fmt;

mod parse;

pub use parse::{Words, after, choice, cut, decimal, hex, numbered, octal, words};

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

    /// Appends a pattern; what does not fit is cut. See [`fill`].
    pub fn fill(&mut self, pattern: &'static str, number: u64, bytes: &[u8], errno: i32) {
        let mut rest = Rest { buffer: &mut self.bytes, len: &mut self.len, cut: &mut self.cut };
        fill(&mut rest, pattern, number, bytes, errno);
    }

    /// A string of a pattern.
    #[must_use]
    pub fn filled(pattern: &'static str, number: u64, bytes: &[u8], errno: i32) -> Self {
        let mut text = Self::new();
        text.fill(pattern, number, bytes, errno);
        text
    }

    /// Appends bytes; what does not fit is cut.
    pub fn push(&mut self, bytes: &[u8]) {
        self.cut |= append(&mut self.bytes, &mut self.len, bytes);
    }

    /// Keeps no more than the first `len` bytes.
    pub fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.bytes.get_mut(self.len..).unwrap_or_default().fill(0);
        self.cut = false;
    }

    /// The bytes.
    #[must_use]
    #[inline(never)] // So that it exists once.
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

/// A message of the stub. One size for all, so that the code exists once.
pub type Line = Text<1024>;

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

/// Room for what follows a name.
const BEHIND: usize = 250;

/// Where text goes. Cutting is no failure, and a formatter's own shows at the end: nothing to ask at each piece.
trait Sink {
    /// Takes some bytes, whole characters.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Rest<'_> {
    fn put(&mut self, bytes: &[u8]) {
        *self.cut |= append(self.buffer, self.len, bytes);
    }
}

/// A formatter, until it fails.
struct Shower<'a, 'f>(&'a mut fmt::Formatter<'f>, fmt::Result);

impl Sink for Shower<'_, '_> {
    fn put(&mut self, bytes: &[u8]) {
        if self.1.is_ok() {
            self.1 = self.0.write_str(core::str::from_utf8(bytes).unwrap_or("?"));
        }
    }
}

/// Lets a formatter be written to.
fn show(f: &mut fmt::Formatter<'_>, what: impl FnOnce(&mut Shower<'_, '_>)) -> fmt::Result {
    let mut shower = Shower(f, Ok(()));
    what(&mut shower);
    shower.1
}

/// Writes a pattern: `#` stands for the number in decimal, `*` for it in hexadecimal, `%` for it as a number of bytes, `!` for the
/// error's name, and `@` for the bytes as [`printable`] shows them. For the stub's messages: the core library's formatting costs it 2 KiB.
#[inline(never)] // So that it exists once.
fn fill(to: &mut Rest<'_>, pattern: &'static str, number: u64, bytes: &[u8], errno: i32) {
    pattern.bytes().for_each(|byte| match byte {
        b'#' => digits(number, 10, to),
        b'*' => digits(number, 16, to),
        b'%' => size(number, to),
        b'!' => named(errno as u64, to),
        b'@' => {
            // What follows a name is never cut by it.
            let room = to.buffer.len().saturating_sub(BEHIND);
            let buffer = to.buffer.get_mut(..room).unwrap_or_default();
            printable(bytes, &mut Rest { buffer, len: to.len, cut: to.cut });
        }
        other => to.put(&[other]),
    });
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
        show(f, |f| printable(self.as_bytes(), f))
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes bytes as text; control characters and what is no UTF-8 appear as `\xNN`, so that no name from a file
/// system or an image can play with a terminal.
fn printable(mut bytes: &[u8], to: &mut impl Sink) {
    while let Some(first) = bytes.first() {
        let shown = character(bytes).filter(|c| !c.is_control()).map_or(0, char::len_utf8);
        if shown == 0 {
            escaped(*first, to);
        } else {
            to.put(bytes.get(..shown).unwrap_or_default());
        }
        bytes = bytes.get(shown.max(1)..).unwrap_or_default();
    }
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
fn escaped(byte: u8, to: &mut impl Sink) {
    to.put(b"\\x");
    digits(u64::from(byte >> 4), 16, to);
    digits(u64::from(byte & 15), 16, to);
}

/// Bytes shown by [`printable`].
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, |f| printable(self.0, f))
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
        show(f, |f| digits(self.0.into(), 10, f))
    }
}

/// Writes a number of bytes, with one digit behind the point in the unit that suits it.
fn size(bytes: u64, to: &mut impl Sink) {
    const UNITS: &[u8] = b"B KiB MiB GiB TiB PiB EiB";
    let unit = (63 - (bytes | 1).leading_zeros()) / 10;
    digits(bytes >> (10 * unit), 10, to);
    if unit != 0 {
        to.put(b".");
        digits((bytes >> (10 * (unit - 1))) % 1024 * 10 / 1024, 10, to);
    }
    to.put(b" ");
    to.put(words(UNITS).nth(unit as usize).unwrap_or_default());
}

/// Writes the digits of a number, the first one first.
fn digits(number: u64, radix: u64, to: &mut impl Sink) {
    if number >= radix {
        digits(number / radix, radix, to);
    }
    let at = (number % radix) as usize;
    to.put(b"0123456789abcdef".get(at..=at).unwrap_or_default());
}

/// The names of errors 1 to 40, in order, and some later ones behind their numbers (errno-base.h, errno.h).
const ERRORS: &[u8] = b"EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT \
     ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE \
     EROFS EMLINK EPIPE";
const LATER_ERRORS: &[u8] =
    b"36 ENAMETOOLONG 37 ENOLCK 38 ENOSYS 40 ELOOP 75 EOVERFLOW 95 EOPNOTSUPP 98 EADDRINUSE 110 ETIMEDOUT 111 ECONNREFUSED 116 ESTALE 122 EDQUOT";

/// Writes an error's name, or its number. The `syscalls` crate's own table of names costs the stub 5 KiB.
fn named(number: u64, to: &mut impl Sink) {
    let index = (number as usize).wrapping_sub(1);
    if let Some(name) = words(ERRORS).nth(index).or_else(|| numbered(LATER_ERRORS, number)) {
        return to.put(name);
    }
    to.put(b"error ");
    digits(number, 10, to);
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
    fn sizes_have_their_units() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(Text::<32>::filled("%", bytes, b"", 0).as_str(), shown);
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
