//! Runs the built `ckpt` and looks at what it says.
#![allow(dead_code, clippy::unwrap_used)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The built command.
pub fn ckpt() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ckpt"))
}

/// Runs `ckpt` with these arguments to its end.
pub fn run(args: &[&OsStr]) -> Output {
    ckpt().args(args).output().unwrap()
}

/// A file in a directory that goes away.
pub fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The command failed with this code and one line that contains `says`.
#[track_caller]
pub fn failed(output: &Output, code: i32, says: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with("ckpt: ") && said.contains(says), "{said}");
    assert_eq!(said.matches('\n').count(), 1, "{said}");
    assert!(output.stdout.is_empty());
}
