//! The stub's texts, packed by the compiler: what is often in them is one byte. 1.9 KiB less.
//!
//! Must never change what a text says: packing is undone byte by byte, and tested so.

use super::words;

/// What a text often has, with `_` for a blank; word n is byte 0x80 + n.
const PIECES: &str = "\
    cannot_be_ _the_ descriptor restart s_ ing_ :_ re t_ d_ file th ,_or_-- no image memory in er (!) back e_ it ma \
    pro en -- on st N=PATH se ha of_ or name save signal ck to_ ,_which_ _OLD=NEW wa an ram ce el _@ mo un ol y_ a_ \
    ad al ar co us new #_ ed il ig pu im pi pp lo ke tr ub ch sid aga wn_ FIFO miss vdso pa ro ct op ta ,_ at wr la \
    if gu CPU IMAGE";

/// A text in which bytes above 0x7f stand for a piece each. Made by [`packed!`](crate::packed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed(&'static [u8]);

impl Packed {
    /// What [`packed!`](crate::packed) has packed.
    #[must_use]
    pub const fn new(packed: &'static [u8]) -> Self {
        Self(packed)
    }

    /// A text of ASCII characters, as it is.
    #[must_use]
    pub const fn plain(text: &'static str) -> Self {
        Self(text.as_bytes())
    }

    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The text, byte by byte.
    #[inline(always)]
    pub fn each(self, mut take: impl FnMut(u8)) {
        for byte in self.0 {
            let piece = usize::from(*byte).checked_sub(0x80).and_then(|n| words(PIECES.as_bytes()).nth(n));
            for one in piece.unwrap_or(core::slice::from_ref(byte)) {
                take(if piece.is_some() && *one == b'_' { b' ' } else { *one });
            }
        }
    }
}

/// A text of ASCII characters, packed by the compiler.
#[macro_export]
macro_rules! packed {
    ($text:expr) => {{
        const PACKED: [u8; $crate::text::packed_len($text)] = $crate::text::pack($text);
        $crate::text::Packed::new(&PACKED)
    }};
}

/// The byte for the beginning of the rest of a text, and how much of it that is: the longest piece that fits.
#[allow(clippy::indexing_slicing, reason = "by the compiler, which would say so")]
const fn longest(text: &[u8], at: usize) -> (u8, usize) {
    assert!(text[at] < 0x80);
    let pieces = PIECES.as_bytes();
    let (mut found, mut found_len) = (text[at], 1);
    let (mut code, mut start) = (0x80, 0);
    while start < pieces.len() {
        let (mut len, mut fits) = (0, true);
        while start + len < pieces.len() && pieces[start + len] != b' ' {
            let byte = if pieces[start + len] == b'_' { b' ' } else { pieces[start + len] };
            fits = fits && at + len < text.len() && text[at + len] == byte;
            len += 1;
        }
        if fits && len > found_len {
            (found, found_len) = (code, len);
        }
        start += len + 1;
        code += 1;
    }
    (found, found_len)
}

/// How long a text is, packed.
#[must_use]
pub const fn packed_len(text: &str) -> usize {
    let (mut at, mut len) = (0, 0);
    while at < text.len() {
        at += longest(text.as_bytes(), at).1;
        len += 1;
    }
    len
}

/// A text, packed.
#[must_use]
#[allow(clippy::indexing_slicing, reason = "by the compiler, which would say so")]
pub const fn pack<const N: usize>(text: &str) -> [u8; N] {
    let mut packed = [0; N];
    let (mut at, mut to) = (0, 0);
    while at < text.len() {
        let (code, len) = longest(text.as_bytes(), at);
        packed[to] = code;
        at += len;
        to += 1;
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    const TEXT: &str = "descriptor #: cannot be opened (!): put the old file back\n";

    fn unpacked(packed: Packed) -> Text<100> {
        let mut text = Text::new();
        packed.each(|byte| text.push(&[byte]));
        text
    }

    #[test]
    fn packing_is_undone() {
        const SHORT: Packed = packed!(TEXT);
        assert!(SHORT.0.len() < TEXT.len() / 2, "{}", SHORT.0.len());
        assert_eq!(unpacked(SHORT).as_bytes(), TEXT.as_bytes());
        assert_eq!(unpacked(Packed::plain(TEXT)).as_bytes(), TEXT.as_bytes());
    }

    #[test]
    fn each_piece_has_a_byte() {
        assert!(PIECES.split(' ').count() <= 0x80);
        for piece in PIECES.split(' ') {
            assert!(piece.len() > 1 && piece.is_ascii(), "{piece:?}");
        }
    }
}
