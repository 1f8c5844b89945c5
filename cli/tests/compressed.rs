//! Compressed images: read wherever a plain one is, and what is wrong with one is named before anything starts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;
#[path = "../../image-format/tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use common::{ckpt, failed, file, run, stdout};
use image_format::Layout;

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn piped(bytes: &[u8]) -> Output {
    let mut command = ckpt();
    command.args(["restart", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended without reading all.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    child.wait_with_output().unwrap()
}

/// `show`, `verify` and `restart`, from a file and from a pipe, say this of these bytes.
#[track_caller]
fn faulty(bytes: &[u8], code: i32, says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "bad.zst", bytes);
    for command in ["show", "verify", "restart"] {
        failed(&run(&[command.as_ref(), image.as_ref()]), code, &format!("bad.zst: {says}"));
    }
    failed(&piped(bytes), code, &format!("standard input: {says}"));
}

#[test]
fn read_like_a_plain_one() {
    let dir = tempfile::tempdir().unwrap();
    let plain = support::image();
    let zst = file(dir.path(), "job.zst", &packed(&plain));
    let ckpt = file(dir.path(), "job.ckpt", &plain);
    let said = |command: &str, image: &Path| stdout(&run(&[command.as_ref(), image.as_ref()])).replace(".zst", ".ckpt");
    assert_eq!(said("verify", &zst), said("verify", &ckpt));
    assert!(said("show", &zst).contains("compressed"));
    let json = |image: &Path| -> serde_json::Value {
        serde_json::from_slice(&run(&["show".as_ref(), "--json".as_ref(), image.as_ref()]).stdout).unwrap()
    };
    let (zst, ckpt) = (json(&zst), json(&ckpt));
    assert_eq!(zst["image"]["compression"], "zstd");
    assert_eq!(zst["image"]["stored"], packed(&plain).len());
    assert_eq!(zst["image"]["bytes"], plain.len());
    assert_eq!(ckpt["image"]["compression"], serde_json::Value::Null);
    assert_eq!(ckpt["image"]["stored"], plain.len());
    assert_eq!(zst["processes"], ckpt["processes"]);
}

#[test]
fn what_is_wrong_is_named() {
    let good = support::image();
    let whole = packed(&good);
    faulty(&whole[..whole.len() - 1], 73, "truncated: the zstd stream ends early");
    faulty(&whole[..whole.len() / 2], 73, "truncated: the zstd stream ends early");
    faulty(&whole[..6], 73, "truncated");
    faulty(&packed(&good[..good.len() / 2]), 73, "truncated");
    faulty(&packed(&good[..100]), 73, "truncated");
    faulty(&packed(b""), 70, "the file is empty");
    faulty(&packed(b"hello"), 71, "not an image");
    faulty(&packed(&whole), 71, "compressed with zstd");
    faulty(&[whole.clone(), whole.clone()].concat(), 75, "malformed");
    faulty(&[&whole[..], b"more"].concat(), 74, "damaged: zstd");
    faulty(&packed(&[&good[..], b"more"].concat()), 75, "malformed");
    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    faulty(&flipped, 74, "damaged: zstd");
}

/// A small file that unpacks to much is recognised by its first bytes, and by the length that it claims.
#[test]
fn a_bomb_does_not_fill_the_memory() {
    faulty(&packed(&vec![0; 64 << 20]), 71, "not an image");
    let mut long = support::image();
    let length = long.len();
    long.resize(length + (64 << 20), 0);
    faulty(&packed(&long), 75, "malformed");
}

/// An image with so many MiB of zeros, packed; `whole`: with the zeros and the seal, else as far as its notes.
fn zeros(mebibytes: u64, whole: bool) -> Vec<u8> {
    const PIECE: u64 = 16 << 20;
    let mut parts = support::Parts::new();
    parts.vmas[2].end = (parts.vmas[2].start.get() + (mebibytes << 20)).into();
    parts.vmas[2].prot = 3.into();
    let (start, notes) = (parts.vmas[2].start.get(), parts.notes());
    let count = (mebibytes << 20).div_ceil(PIECE);
    let layout = Layout::new(count, count * PIECE, notes.len() as u64);
    let mut prefix = vec![0; usize::try_from(layout.headers_len()).unwrap()];
    layout.write_headers(&mut prefix, (0..count).map(|place| (start + place * PIECE, PIECE, 6))).unwrap();
    prefix.extend_from_slice(&notes);
    let piece = vec![0; usize::try_from(PIECE).unwrap()];
    let sums = vec![xxhash_rust::xxh3::xxh3_64(&piece); usize::try_from(count).unwrap()];
    let mut room = vec![0; usize::try_from(layout.seal_len).unwrap()];
    let seal = image_format::seal::write(&mut room, layout.file_len(), &prefix, &sums).unwrap().to_vec();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    prefix.resize(usize::try_from(layout.segments).unwrap(), 0);
    encoder.write_all(&prefix).unwrap();
    if whole {
        (0..count).for_each(|_| encoder.write_all(&piece).unwrap());
        encoder.write_all(&seal).unwrap();
    }
    encoder.finish().unwrap()
}

/// Who only looks at an image passes over its memory: neither file in memory nor address space is taken for that.
#[test]
fn what_is_not_shown_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = zeros(256, true);
    assert!(bytes.len() < 1 << 20);
    let image = file(dir.path(), "zeros.zst", &bytes);
    let limited = |command: &str| {
        let line = "ulimit -v 131072; ulimit -f 16; exec \"$@\"";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", line, "sh", env!("CARGO_BIN_EXE_ckpt"), command]).arg(&image).output().unwrap()
    };
    let shown = limited("show");
    assert!(shown.status.success() && stdout(&shown).contains("256.0 MiB"), "{shown:?}");
    // Whatever else is said of it here, it was read.
    let checked = limited("check");
    assert!([0, 79, 80, 81].contains(&checked.status.code().unwrap()), "{checked:?}");
    assert!(run(&["verify".as_ref(), image.as_ref()]).status.success());
}

/// What is to be kept in memory, and is longer than that, is refused before it is unpacked.
#[test]
fn more_than_the_memory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "large.zst", &zeros(2 << 20, false));
    failed(&run(&["verify".as_ref(), image.as_ref()]), 86, "of memory when it is unpacked");
    failed(&run(&["restart".as_ref(), image.as_ref()]), 86, "of memory when it is unpacked");
    failed(&run(&["show".as_ref(), image.as_ref()]), 73, "truncated");
}

#[test]
fn one_that_others_may_write_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "job.zst", &packed(&support::image()));
    std::fs::set_permissions(&image, PermissionsExt::from_mode(0o622)).unwrap();
    failed(&run(&["restart".as_ref(), image.as_ref()]), 78, "others may write it");
}

#[test]
fn levels_are_checked() {
    for wrong in ["gzip", "zstd:0", "zstd:20", "zstd:x"] {
        failed(&run(&["save".as_ref(), "1".as_ref(), "--compress".as_ref(), wrong.as_ref()]), 64, "give it as zstd");
    }
}
