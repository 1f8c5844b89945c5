//! `cargo xtask build-stub`: the freestanding build, and the proof that the result is what it must be.

use std::fs;
use std::mem::offset_of;
use std::path::PathBuf;

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{ElfFile64, ProgramHeader};
use xshell::cmd;

use crate::workspace::Workspace;
use crate::{elf_check, stub_words};

/// What the code generator is not to do, for 1.3 KiB: constants taken out of loops into registers that are saved and given back around
/// calls, blocks in the order of their likelihood; and what it is to do: sequences that occur often become functions.
const SMALLER: [&str; 2] = [
    "-C",
    "llvm-args=-disable-machine-licm -disable-block-placement -enable-machine-outliner=always -tail-merge-size=2 \
      -min-jump-table-entries=1000",
];

/// Builds `dist/restart-stub-tree` and `dist/restart-stub`, prints their sizes and every property; returns the latter's path.
///
/// # Errors
/// It does not build, or a property does not hold (named); nothing is put into `dist/` then.
pub fn run(ws: &Workspace) -> Result<PathBuf> {
    build(ws, "restart-stub-tree", "freestanding,tree", elf_check::TREE_STUB_MAX)?;
    build(ws, "restart-stub", "freestanding", elf_check::STUB_MAX)
}

/// Builds it with these features, of so many bytes at most.
fn build(ws: &Workspace, name: &str, features: &str, most: usize) -> Result<PathBuf> {
    let sh = ws.shell()?;
    let stub = ["-p", "ckpt-loader", "--bin", "restart-stub", "--features", features, "--profile", "stub"];
    cmd!(sh, "cargo rustc --quiet {stub...} -- {SMALLER...}").run()?;
    let built = ws.target.join("stub/restart-stub");
    let bytes = fs::read(&built)?;

    // The same program once more, with the linker's list of addresses in it; never shipped.
    let aside = ws.target.join("stub-addresses");
    let list = ["-C", "link-arg=-Wl,--emit-relocs", "-C", "strip=none"];
    cmd!(sh, "cargo rustc --quiet {stub...} --target-dir {aside} -- {SMALLER...} {list...}").run()?;
    let listed = fs::read(aside.join("stub/restart-stub"))?;

    let words = stub_words::check(&bytes, &listed)?;
    let bytes = without_sections(&bytes)?;
    println!("{name}, {} bytes:", bytes.len());
    let mut properties = elf_check::stub(&bytes, most)?;
    properties.push(words);
    elf_check::report(name, &properties)?;
    let shipped = built.with_file_name(format!("{name}.shipped"));
    fs::write(&shipped, bytes)?;
    fs::set_permissions(&shipped, fs::metadata(&built)?.permissions())?;
    ws.publish(&shipped, name)
}

/// The program without the table of its sections, which only linkers and debuggers read: half a kibibyte.
fn without_sections(bytes: &[u8]) -> Result<Vec<u8>> {
    type Header = FileHeader64<Endianness>;
    let file: ElfFile64<'_, Endianness> = ElfFile64::parse(bytes)?;
    let ends = file.elf_program_headers().iter().map(|ph| ph.file_range(file.endian()));
    let end = ends.map(|(offset, len)| offset + len).max().context("the stub has no segments")?;
    let mut program = bytes.get(..usize::try_from(end)?).context("the stub's segments are cut off")?.to_vec();
    for field in
        [offset_of!(Header, e_shoff)..offset_of!(Header, e_flags), offset_of!(Header, e_shentsize)..size_of::<Header>()]
    {
        program.get_mut(field).context("the stub has no header")?.fill(0);
    }
    Ok(program)
}
