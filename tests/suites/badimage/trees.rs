//! Hostile images of trees of processes: images within images that lie anywhere, and tables that tell another tree.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::Bytes;
use ckpt_tests::{Job, Place, READY, User, dist};
use image_format::{ExitCode, NoteType};

use super::{Workshop, refusal};

/// What an image is called that tells another tree than it holds.
const BAD: &[ExitCode] =
    &[ExitCode::Malformed, ExitCode::BadAddress, ExitCode::Truncated, ExitCode::Damaged, ExitCode::DamagedMemory];

/// The image of a tree with seven processes that live, two that have ended and a group that is left.
fn tree() -> Result<Workshop> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let mut job = Job::start(&mut place.command(place.guest("process")?))?;
    job.wait_line(READY)?;
    place.save(job.pid(), &image, &["--kill"])?;
    job.end()?;
    // Whatever were started would say so at once.
    place.go()?;
    let sound = Bytes::read(&image)?;
    Ok(Workshop { place, sound })
}

impl Workshop {
    /// The stub, `ckpt restart` and `ckpt verify` refuse it, soon and in one line, before there is any other process.
    fn no_tree(&self, what: &str, bytes: &[u8]) -> Result<()> {
        let path = self.lay_out(bytes)?;
        let mut stub = Command::new(dist::dir()?.join("restart-stub"));
        stub.arg(&path);
        let (mut restart, mut verify) = (self.place.ckpt(), self.place.ckpt());
        restart.arg("restart").arg(&path);
        verify.arg("verify").arg(&path);
        for (command, begin) in [(stub, "restart-stub: "), (restart, ""), (verify, "")] {
            refusal(command, begin, BAD).with_context(|| what.to_owned())?;
        }
        Ok(())
    }
}

/// Where the other processes' images lie.
#[test]
fn images_within_an_image() -> Result<()> {
    let shop = tree()?;
    let sound = shop.forgery()?;
    let (segments, len) = (sound.segments(), sound.bytes.len() as u64);
    let word = |index: usize, at: usize| {
        let at = sound.segment_word(index, at);
        u64::from_le_bytes(std::array::from_fn(|i| sound.bytes[at + i]))
    };
    let last = segments - 1;
    let (first_offset, last_len) = (word(last - 1, 8), word(last, 32));
    // (what, which, place in its header, value): 8 is the offset, 16 the pid, 32 and 40 the length.
    let cases = [
        ("an image behind the end", last, 8, len),
        ("an image at the root's own beginning", last, 8, 0),
        ("an image in another's place", last, 8, first_offset),
        ("an image between two pages", last, 8, word(last, 8) + 1),
        ("an image that wraps", last, 8, u64::MAX - 4095),
        ("a longer image", last, 32, last_len + 4096),
        ("a shorter image", last, 32, last_len - 8),
        ("an image of no bytes", last, 32, 0),
        ("an endless image", last, 32, u64::MAX),
        ("an image of another process", last, 16, 1),
        ("an image of the root", last, 16, word(0, 16)),
        ("an image of the process before", last, 16, word(last - 1, 16)),
        ("a piece of memory in an image's place", 0, 0, 0x64_434b_0202),
    ];
    for (what, index, at, value) in cases {
        let place = sound.segment_word(index, at);
        shop.no_tree(what, &sound.clone().put(place, &value.to_le_bytes()).sealed().bytes)?;
    }
    // What was sealed is another image: bytes of its notes, and of its seal.
    let at = usize::try_from(word(last, 8))?;
    for place in [at + 4096, at + usize::try_from(last_len)? - 4] {
        shop.no_tree("a changed image", &sound.clone().flip(place, 3).bytes)?;
    }
    Ok(())
}

/// Who is whose parent.
#[test]
fn tables_of_processes() -> Result<()> {
    let shop = tree()?;
    let sound = shop.forgery()?;
    let (table, len) = sound.note(NoteType::Process)?;
    let word = |row: usize, at: usize| {
        let at = table + row * 40 + at;
        u32::from_le_bytes(std::array::from_fn(|i| sound.bytes[at + i]))
    };
    let rows = len / 40;
    let (second, third) = (word(1, 0), word(2, 0));
    let ended = (0..rows).find(|row| word(*row, 28) == 1).context("nobody has ended")?;
    // (what, row, place in it, value): 0 is the id, 4 the parent's, 28 whether it has ended.
    let cases = [
        ("a root with a parent's id of its own", 0, 0, second),
        ("a child of its own", 1, 4, second),
        ("a child of its child", 1, 4, third),
        ("a child of nobody", 2, 4, 0),
        ("a child of one that has ended", 2, 4, word(ended, 0)),
        ("two of one id", 2, 0, second),
        ("an id that no image has", 2, 0, 0x3f_ffff),
        ("one that lives and has ended", 2, 28, 1),
        ("one that has ended and lives", ended, 28, 0),
        ("one whose state nobody knows", ended, 28, 77),
    ];
    for (what, row, at, value) in cases {
        shop.no_tree(what, &sound.clone().put(table + row * 40 + at, &value.to_le_bytes()).sealed().bytes)?;
    }
    // The first descriptor of the second process belongs to one that is not there, or to the last one that can be.
    let (descriptors, len) = sound.note(NoteType::Descriptor)?;
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| sound.bytes[descriptors + at + i]));
    let last = len - 16;
    for place in [rows as u32, 2047] {
        let far = number(last) & 0xf_ffff | place << 20;
        let forged = sound.clone().put(descriptors + last, &far.to_le_bytes()).sealed();
        shop.no_tree("a descriptor of nobody", &forged.bytes)?;
    }
    Ok(())
}

/// Without this all refusals above would show nothing.
#[test]
fn a_sound_tree_restarts() -> Result<()> {
    let shop = tree()?;
    let path = shop.lay_out(&shop.forgery()?.sealed().bytes)?;
    let ended = Job::start(shop.place.ckpt().arg("restart").arg(&path))?.end()?;
    ended.expect_pass()?;
    ensure!(fs::metadata(&path)?.len() > 0, "the image is gone");
    Ok(())
}
