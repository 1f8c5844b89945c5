//! `ckpt verify`: one line about a sound image, a named fault about any other.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;
#[path = "../../image-format/tests/support/mod.rs"]
mod support;

use common::{failed, file, run, stdout};
use support::Parts;

/// `verify` and (but for the memory) `show` find this fault in these bytes.
#[track_caller]
fn faulty(bytes: &[u8], code: i32, says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "bad.ckpt", bytes);
    let output = run(&["verify".as_ref(), image.as_ref()]);
    failed(&output, code, says);
    failed(&output, code, "bad.ckpt: ");
    if code != 89 {
        failed(&run(&["show".as_ref(), image.as_ref()]), code, says);
    }
}

#[test]
fn a_sound_image() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "job.ckpt", &support::image());
    let output = run(&["verify".as_ref(), image.as_ref()]);
    assert!(output.status.success());
    let said = stdout(&output);
    assert!(said.contains("job.ckpt: sound: ") && said.contains("4 segments"), "{said}");
    assert_eq!(said.matches('\n').count(), 1);
}

#[test]
fn each_fault_by_name() {
    let good = support::image();
    let with = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    faulty(b"", 70, "empty");
    faulty(b"hello", 71, "does not begin with the ELF magic");
    faulty(&std::fs::read(env!("CARGO_BIN_EXE_ckpt")).unwrap()[..4096], 71, "not a core");
    faulty(&with(18, &[183]), 72, "another machine");
    faulty(&good[..good.len() - 1], 73, "truncated");
    faulty(&good[..40], 73, "truncated");
    faulty(&with(700, &[good[700] ^ 1]), 74, "headers and notes");
    let mut parts = Parts::new();
    parts.descriptors[0].file = 9.into();
    faulty(&parts.image(), 75, "does not describe");
    parts = Parts::new();
    parts.threads[1].jmp.mxcsr = u32::MAX.into();
    faulty(&parts.image(), 75, "MXCSR");
    parts = Parts::new();
    parts.runs[3].addr = u64::MAX - 4095;
    faulty(&parts.image(), 76, "kernel space");
    parts = Parts::new();
    parts.header.major = 2.into();
    faulty(&parts.image(), 77, "newer than this program's");
    parts = Parts::new();
    parts.header.required = (1 << 63).into();
    faulty(&parts.image(), 77, "bits 0x8000000000000000");
}

#[test]
fn a_flip_in_memory_is_found_by_verify_alone() {
    let good = support::image();
    let dir = tempfile::tempdir().unwrap();
    let first = good.len().next_multiple_of(4096) - 6 * 4096;
    for at in [first, first + 4096 + 5000, first + 4 * 4096 + 4095] {
        let mut image = good.clone();
        image[at] ^= 1;
        faulty(&image, 89, "the checksum of the memory at 0x");
        let image = file(dir.path(), "job.ckpt", &image);
        assert!(run(&["show".as_ref(), image.as_ref()]).status.success());
    }
}

#[test]
fn every_flipped_byte_of_the_file_is_found() {
    let good = support::image();
    let dir = tempfile::tempdir().unwrap();
    for at in (0..good.len()).step_by(211) {
        let mut image = good.clone();
        image[at] ^= 4;
        let image = file(dir.path(), "job.ckpt", &image);
        let output = run(&["verify".as_ref(), image.as_ref()]);
        assert!(matches!(output.status.code(), Some(70..=89)), "byte {at}: {:?}", output.status);
    }
}

#[test]
fn what_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    for command in ["show", "verify"] {
        failed(
            &run(&[command.as_ref(), "/nonexistent/x".as_ref()]),
            66,
            "/nonexistent/x: the image cannot be opened: No such",
        );
        failed(&run(&[command.as_ref(), dir.path().as_ref()]), 66, "not a regular file");
        failed(&run(&[command.as_ref(), fifo.as_ref()]), 66, "not a regular file");
    }
}
