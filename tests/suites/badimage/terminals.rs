//! Hostile records of pseudo-terminals: what a restart would do to a terminal that it makes, or to one that is not its own.

use anyhow::Result;
use image_format::{ExitCode, NoteType};

use super::Workshop;

/// What would be done with a terminal: see `record::pty`.
#[test]
fn hostile_terminals() -> Result<()> {
    let shop = Workshop::of("pty")?;
    let bad = &[ExitCode::Malformed];
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    // (what, note, offset in the first record, value): the first step sets the settings.
    let cases: [(&str, NoteType, usize, Vec<u8>); 9] = [
        ("a terminal of a very high number", NoteType::Pty, 16, words(&[1 << 18])),
        ("a terminal without its master", NoteType::Pty, 20, words(&[0x7777])),
        ("a step of no terminal", NoteType::PtyStep, 0, words(&[0x7777])),
        ("typing into the terminal by TIOCSTI", NoteType::PtyStep, 4, words(&[0x5412])),
        ("settings that are cut off", NoteType::PtyStep, 12, words(&[35])),
        ("settings outside the strings", NoteType::PtyStep, 8, words(&[0xffff_ff00])),
        ("permissions of /dev/ptmx itself", NoteType::PtyStep, 4, words(&[1])),
        ("permissions with more than that", NoteType::PtyStep, 4, words(&[1, 0, 0, 1, 0o4777])),
        ("more echo than was written", NoteType::PtyStep, 4, words(&[0, 0, 4, 0, 5])),
    ];
    for (what, kind, at, value) in cases {
        let (body, _) = shop.forgery()?.note(kind)?;
        shop.refused(what, &shop.forgery()?.put(body + at, &value).sealed().bytes, bad)?;
    }
    // An echo that never comes is waited for, but not for long: behind the five steps of the first terminal, and the second one's
    // settings, without echo.
    let (body, _) = shop.forgery()?.note(NoteType::PtyStep)?;
    let silent = shop.forgery()?.put(body + 6 * 24 + 4, &words(&[0, 0, 1, 0, 1])).sealed().bytes;
    shop.refused("an echo that never comes", &silent, &[ExitCode::Descriptor])
}
