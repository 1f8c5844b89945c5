//! `cargo xtask build-stub`: the freestanding build, and the proof that the result is what it must be.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use xshell::cmd;

use crate::elf_check;
use crate::workspace::Workspace;

/// Builds `dist/restart-stub`, prints its size and every property; returns its path.
///
/// # Errors
/// It does not build, or a property does not hold (named); nothing is put into `dist/` then.
pub fn run(ws: &Workspace) -> Result<PathBuf> {
    let sh = ws.shell()?;
    cmd!(sh, "cargo build --quiet -p ckpt-loader --bin restart-stub --features freestanding --profile stub").run()?;
    let built = ws.target.join("stub/restart-stub");
    let bytes = fs::read(&built)?;
    println!("restart-stub, {} bytes:", bytes.len());
    elf_check::report("restart-stub", &elf_check::stub(&bytes)?)?;
    ws.publish(&built, "restart-stub")
}
