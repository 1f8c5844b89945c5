//! Texts that stand in one place, each known by a name: one byte in the code that uses it, where a string takes two words.

/// Declares an enum of such texts, and its method `text`.
#[macro_export]
macro_rules! texts {
    ($(#[$of:meta])* $seen:vis enum $kind:ident { $($name:ident = $text:literal,)* }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        $seen enum $kind {
            $(#[doc = $text] $name,)*
        }

        impl $kind {
            /// Its words.
            #[must_use]
            $seen fn text(self) -> &'static str {
                $crate::texts::line(concat!($($text, "\n"),*), self as usize)
            }
        }
    };
}

/// The line with this number, counted from 0. Without `str::lines`, which brings the formatter into the stub.
#[must_use]
#[inline(never)] // So that it exists once.
pub fn line(text: &'static str, number: usize) -> &'static str {
    let (mut line, mut start) = (0, 0);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'\n' {
            if line == number {
                return text.get(start..at).unwrap_or_default();
            }
            (line, start) = (line + 1, at + 1);
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_has_its_words() {
        texts! {
            /// Some.
            enum Some {
                First = "the first one",
                Last = "the last one",
            }
        }
        assert_eq!([Some::First, Some::Last].map(Some::text), ["the first one", "the last one"]);
        assert_eq!(super::line("a\n", 1), "");
    }
}
