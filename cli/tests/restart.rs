//! `ckpt restart` up to the stub: streams, ids that cannot be had, files that cannot be written.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../image-format/tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::process::{Output, Stdio};

use common::{ckpt, failed, file, run};
use rustix::fs::{CWD, Mode, mkfifoat};

/// `ckpt restart` with these bytes on standard input.
fn piped(bytes: &[u8], arguments: &[&str]) -> Output {
    let mut command = ckpt();
    command.arg("restart").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended without reading all.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    child.wait_with_output().unwrap()
}

#[test]
fn a_stream_is_checked_before_anything_starts() {
    let good = support::image();
    failed(&piped(b"", &["-"]), 70, "standard input: the file is empty");
    failed(&piped(b"hello, world", &["-"]), 71, "standard input: ");
    failed(&piped(&good[..good.len() / 2], &["-"]), 73, "standard input: truncated");
    failed(&piped(&good[..good.len() - 1], &["-"]), 73, "standard input: truncated");
    let mut flipped = good;
    flipped[700] ^= 1;
    failed(&piped(&flipped, &["-"]), 74, "standard input: damaged");
    failed(&piped(b"", &["/dev/stdin"]), 70, "/dev/stdin: the file is empty");
}

#[test]
fn a_fifo_of_others_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    rustix::fs::chmod(&fifo, Mode::from_raw_mode(0o622)).unwrap();
    // Whoever opens a FIFO for reading waits for a writer.
    let writer = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::write(fifo, b"x")
    });
    failed(&run(&["restart".as_ref(), fifo.as_ref()]), 78, "others may write it");
    let _ = writer.join();
}

#[test]
fn the_pidfile_vanishes_with_a_restart_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    for more in [&[][..], &["--detach"], &["--pid", "keep"], &["--namespace"]] {
        let arguments = ["restart", "--pidfile", pid.to_str().unwrap(), "-"];
        failed(
            &ckpt().args(arguments).args(more).stdin(Stdio::null()).output().unwrap(),
            70,
            "standard input: the file is empty",
        );
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "{more:?}");
    }
}

#[test]
fn an_image_that_is_not_there() {
    for more in [&["--detach"][..], &["--pid", "keep"], &["--namespace"]] {
        failed(
            &ckpt().args(["restart", "/nonexistent/x"]).args(more).output().unwrap(),
            66,
            "/nonexistent/x: the image cannot be opened",
        );
    }
}

#[test]
fn what_the_stub_says_is_the_status() {
    if !loader::embedded::is_present() {
        return;
    }
    // Sound, but of a program whose files are not there.
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "job.ckpt", &support::image());
    let alone = run(&["restart".as_ref(), image.as_ref()]);
    for more in ["--detach", "--namespace"] {
        let got = run(&["restart".as_ref(), more.as_ref(), image.as_ref()]);
        assert_eq!((got.status.code(), got.stderr), (alone.status.code(), alone.stderr.clone()), "{more}");
    }
}
