//! Text for people: sizes, and names from images made harmless.
//!
//! Must never let a control character of an image's string reach a terminal.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// A line on standard error, for `-v` and for what goes wrong while a program goes on.
pub fn note(what: impl fmt::Display) {
    // Nobody is left to tell when standard error is closed; one write, so that it does not mix with the program's.
    let _ = io::stderr().write_all(format!("ckpt: {what}\n").as_bytes());
}

/// Bytes as text: UTF-8 as it is, but control characters and stray bytes as escapes.
pub fn plain(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Bidirectional marks reorder a line as control characters do.
            if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// A path as text.
pub fn path(path: &Path) -> String {
    plain(path.as_os_str().as_bytes())
}

/// A number of bytes with a unit: `512 B`, `1.5 KiB`, `2.0 GiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// How long ago something was: `3 s`, `5 min`, `2 h`, `3 days`.
pub fn age(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// `1 thread`, `2 threads`.
pub fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_could_reach_a_terminal() {
        assert_eq!(plain(b"/tmp/\x1b[31mred\n"), "/tmp/\\u{1b}[31mred\\n");
        assert_eq!(plain(b"a\xffb"), "a\\xffb");
        assert_eq!(plain("/tmp/\u{202e}txt.exe".as_bytes()), "/tmp/\\u{202e}txt.exe");
        assert_eq!(plain("/tmp/ä b".as_bytes()), "/tmp/ä b");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }

    #[test]
    fn ages_have_units() {
        let ages = [0, 119, 120, 7199, 7200, 172_800].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
