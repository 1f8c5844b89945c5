//! `cargo xtask build-stub`: the freestanding build, and the proof that the result is what it must be.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{elf_check, product, stub_words};

/// Builds `dist/restart-stub`, prints its size and every property; returns its path.
///
/// # Errors
/// It does not build, or a property does not hold (named); nothing is put into `dist/` then.
pub fn run(ws: &Workspace) -> Result<PathBuf> {
    let built = product::stub(ws)?;
    let (size, bytes) = (fs::metadata(&built)?.len(), fs::read(product::linked_stub(ws))?);
    let listed = fs::read(product::listed_stub(ws)?)?;

    let words = stub_words::check(&bytes, &listed)?;
    println!("restart-stub, {} bytes:", size);
    let mut properties = elf_check::stub(&bytes, size)?;
    properties.push(words);
    properties.push(elf_check::formatting(&listed)?);
    elf_check::report("restart-stub", &properties)?;
    ws.publish(&built, "restart-stub")
}
