//! `cargo xtask build-stub`: the freestanding build, and the proof that the result is what it must be.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use xshell::cmd;

use crate::workspace::Workspace;
use crate::{elf_check, stub_words};

/// Builds `dist/restart-stub`, prints its size and every property; returns its path.
///
/// # Errors
/// It does not build, or a property does not hold (named); nothing is put into `dist/` then.
pub fn run(ws: &Workspace) -> Result<PathBuf> {
    let sh = ws.shell()?;
    let stub = ["-p", "ckpt-loader", "--bin", "restart-stub", "--features", "freestanding", "--profile", "stub"];
    cmd!(sh, "cargo build --quiet {stub...}").run()?;
    let built = ws.target.join("stub/restart-stub");
    let bytes = fs::read(&built)?;

    // The same program once more, with the linker's list of addresses in it; never shipped.
    let aside = ws.target.join("stub-addresses");
    let list = ["-C", "link-arg=-Wl,--emit-relocs", "-C", "strip=none"];
    cmd!(sh, "cargo rustc --quiet {stub...} --target-dir {aside} -- {list...}").run()?;
    let listed = fs::read(aside.join("stub/restart-stub"))?;

    println!("restart-stub, {} bytes:", bytes.len());
    let mut properties = elf_check::stub(&bytes)?;
    properties.push(stub_words::check(&bytes, &listed)?);
    elf_check::report("restart-stub", &properties)?;
    ws.publish(&built, "restart-stub")
}
