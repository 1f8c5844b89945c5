//! Rust source without what is no code: comments, strings and tests become blanks, lines stay where they are.
//!
//! A small lexer, enough to tell `"panic!"` from `panic!`. Must never fail: on source that does not compile it
//! blanks too much or too little, and the compiler speaks first.

/// The code with comments, strings and character literals blanked out.
pub fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` itself when none does.
fn skip(chars: &[char], at: usize) -> usize {
    let next = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    let inside_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (next(0), next(1)) {
        ('/', '/') => chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n),
        ('/', '*') => block_comment(chars, at),
        ('"', _) => string(chars, at + 1),
        ('b' | 'c', '"') if !inside_word => string(chars, at + 2),
        ('b', '\'') if !inside_word => character(chars, at + 1),
        ('r', '"' | '#') if !inside_word => raw_string(chars, at, at + 1),
        ('b' | 'c', 'r') if !inside_word && matches!(next(2), '"' | '#') => raw_string(chars, at, at + 2),
        ('\'', _) => character(chars, at),
        _ => at,
    }
}

fn block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn raw_string(chars: &[char], start: usize, mut at: usize) -> usize {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return start; // r#identifier
    }
    while at < chars.len() {
        at += 1;
        let closes = chars.get(at) == Some(&'"') && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        if closes {
            return at + 1 + hashes;
        }
    }
    chars.len()
}

/// A character literal, or a lifetime, which is code.
fn character(chars: &[char], quote: usize) -> usize {
    match (chars.get(quote + 1), chars.get(quote + 2)) {
        (Some('\\'), _) => {
            let body = quote + 3;
            chars.get(body..).and_then(|rest| rest.iter().position(|c| *c == '\'')).map_or(quote, |n| body + n + 1)
        }
        (Some(_), Some('\'')) => quote + 3,
        _ => quote,
    }
}

/// The code (as [`code`] gives it) with every item under `#[cfg(test)]` or `#[test]` blanked out too.
pub fn without_tests(code: &str) -> String {
    let mut out = code.to_string();
    for mark in ["#[cfg(test)]", "#[test]"] {
        let mut from = 0;
        while let Some(start) = out[from..].find(mark).map(|n| from + n) {
            let end = end_of_item(&out, start + mark.len());
            let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            out.replace_range(start..end, &blank);
            from = start + blank.len();
        }
    }
    out
}

/// Behind the `;` or the matching `}` that ends the item which begins after `from`.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> String {
        code(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_no_code_is_blanked() {
        assert_eq!(kept("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(kept(r##"a "b\"c" d r#"e " f"# g b"h" i"##), "a d g i");
        assert_eq!(kept(r"a '\'' b 'c' d b'e' '\u{1F600}' f"), "a b d f");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(kept("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(kept("r#match + var"), "r#match + var");
    }

    #[test]
    fn lines_stay_where_they_are() {
        let text = "a\n/* b\nc */\n\"d\ne\"\nf\n";
        assert_eq!(code(text).matches('\n').count(), text.matches('\n').count());
    }

    #[test]
    fn tests_are_blanked_and_what_follows_is_not() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { if x { } } }\nfn c() {}\n#[cfg(test)]\nuse d;\nfn e() {}";
        let left = without_tests(&code(text));
        assert!(left.contains("fn a") && left.contains("fn c") && left.contains("fn e"));
        assert!(!left.contains("fn b") && !left.contains("use d"));
    }
}
