//! Numbers and words out of the kernel's text files. Must never panic, whatever the text is.

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
