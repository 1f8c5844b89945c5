//! Messages on standard error.

use crate::text::Line;

/// Writes a line to standard error, if that can be: a pattern, see [`Text::fill`](crate::text::Text::fill).
#[inline(never)] // So that its buffer exists once.
pub fn say(pattern: &'static str, number: u64, bytes: &[u8], errno: i32) {
    let _ = crate::fs::write_all(2, Line::filled(pattern, number, bytes, errno).as_bytes());
}
