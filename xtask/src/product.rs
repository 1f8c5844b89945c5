//! How each file that users get is built: one call of cargo each, whose progress is shown.
//!
//! `dist` checks and publishes all of them; the demonstration takes what it needs. Must never build the same thing in two ways.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::Workspace;

/// What keeps the stub small: functions are inlined where that makes it shorter, and sequences that occur often become functions.
const SMALL: &str = include_str!("../../loader/stub-llvm-args.txt");
const STUB: [&str; 10] = [
    // A function that keeps data below its stack pointer may not push: that costs it seven bytes for each small number.
    "--config",
    r#"build.rustflags=["-Cno-redzone=yes"]"#,
    "-p",
    "ckpt-loader",
    "--bin",
    "restart-stub",
    "--features",
    "freestanding",
    "--profile",
    "stub",
];

fn small() -> String {
    format!("llvm-args={}", SMALL.trim())
}

/// Builds the stub; returns its path in the target directory. It has no section headers, which only a linker and a debugger would read.
///
/// # Errors
/// It does not build.
pub fn stub(ws: &Workspace) -> Result<PathBuf> {
    let sh = ws.shell()?;
    let small = small();
    cmd!(sh, "cargo rustc {STUB...} -- -C {small}").quiet().run()?;
    let linked = fs::read(linked_stub(ws))?;
    fs::write(ws.stub(), without_sections(linked)?)?;
    fs::set_permissions(ws.stub(), fs::Permissions::from_mode(0o755))?;
    Ok(ws.stub())
}

/// The stub as [`stub`] has linked it.
#[must_use]
pub fn linked_stub(ws: &Workspace) -> PathBuf {
    ws.target.join("stub/restart-stub")
}

/// An executable that ends where its last segment does, and says that it has no sections (elf(5)).
fn without_sections(mut elf: Vec<u8>) -> Result<Vec<u8>> {
    let word = |at: usize, len: usize| -> Result<usize> {
        let bytes = elf.get(at..at + len).context("the stub is no 64-bit ELF file")?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    // e_phoff, e_phentsize, e_phnum; of each program header p_offset and p_filesz.
    let (phoff, phentsize, phnum) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
    let mut end = 0;
    for at in (0..phnum).map(|i| phoff + i * phentsize) {
        end = end.max(word(at + 8, 8)? + word(at + 32, 8)?);
    }
    // e_shoff; e_shnum and e_shstrndx.
    for range in [40..48, 60..64] {
        elf.get_mut(range).context("the stub is no 64-bit ELF file")?.fill(0);
    }
    elf.truncate(end);
    Ok(elf)
}

/// The same program once more, with the linker's list of addresses in it; never shipped.
///
/// # Errors
/// It does not build.
pub fn listed_stub(ws: &Workspace) -> Result<PathBuf> {
    let aside = ws.target.join("stub-addresses");
    let small = small();
    let list = ["-C", "link-arg=-Wl,--emit-relocs", "-C", "strip=none"];
    let sh = ws.shell()?;
    cmd!(sh, "cargo rustc {STUB...} --target-dir {aside} -- -C {small} {list...}").quiet().run()?;
    Ok(aside.join("stub/restart-stub"))
}

/// The library in one of its two forms.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// `libckpt.so`. Standing in front of the libc's sigaction is for the preloaded library alone.
    Shared,
    /// `libckpt.a`.
    Static,
}

/// Builds the library with [`stub`]'s stub in it.
///
/// # Errors
/// It does not build.
pub fn library(ws: &Workspace, library: Library) -> Result<PathBuf> {
    let (feature, kind, name) = match library {
        Library::Shared => ("preload", "cdylib", "libckpt.so"),
        Library::Static => ("c-abi", "staticlib", "libckpt.a"),
    };
    let sh = ws.shell()?;
    sh.set_var("CKPT_STUB", ws.stub());
    let args = ["--no-default-features", "--features", feature, "--crate-type", kind];
    cmd!(sh, "cargo rustc -p ckpt --lib --profile stub {args...}").quiet().run()?;
    Ok(ws.target.join("stub").join(name))
}

/// Builds the command with [`stub`]'s stub in it, in a quarter of the time: as it is tested, not as it is shipped.
///
/// # Errors
/// It does not build.
pub fn quick_command(ws: &Workspace) -> Result<PathBuf> {
    let sh = ws.shell()?;
    sh.set_var("CKPT_STUB", ws.stub());
    cmd!(sh, "cargo build -p ckpt-cli --bin ckpt").quiet().run()?;
    Ok(ws.target.join("debug/ckpt"))
}

/// Builds the command with [`stub`]'s stub in it.
///
/// # Errors
/// It does not build.
pub fn command(ws: &Workspace) -> Result<PathBuf> {
    let sh = ws.shell()?;
    sh.set_var("CKPT_STUB", ws.stub());
    // Three quarters of it would be tables of lines.
    let light = ["-C", "strip=debuginfo"];
    // With no other library it runs beside any C library of any machine, and starts in two thirds of the time.
    let alone = ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"];
    let command = ["--release", "-p", "ckpt-cli", "--bin", "ckpt"];
    if cmd!(sh, "cargo rustc {command...} -- {light...} {alone...}").quiet().run().is_err() {
        println!("ckpt: cannot be linked statically here (no libc.a?): it needs this machine's C library");
        cmd!(sh, "cargo rustc {command...} -- {light...}").quiet().run()?;
    }
    Ok(ws.target.join("release/ckpt"))
}
