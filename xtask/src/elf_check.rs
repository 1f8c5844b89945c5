//! What a built file must be, read from its bytes alone: the stub's and the library's promises.
//!
//! A property is a name and either the value that was seen or the reason why it does not hold. Must never
//! believe the linker's command line: only the result counts.

use anyhow::{Context, Result, bail};
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, Object, ObjectSymbol};
use state::process::restarting;

/// The most bytes of a stub.
pub const STUB_MAX: usize = 128 << 10;

/// A promise, and what was seen: `Err` where it is broken.
pub type Property = (&'static str, Result<String, String>);

/// Prints all properties and fails, naming the broken ones.
///
/// # Errors
/// A property does not hold.
pub fn report(file: &str, properties: &[Property]) -> Result<()> {
    let mut broken = Vec::new();
    for (name, seen) in properties {
        match seen {
            Ok(value) => println!("  ok      {name}: {value}"),
            Err(reason) => {
                println!("  BROKEN  {name}: {reason}");
                broken.push(format!("{name}: {reason}"));
            }
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("{file} is not what it must be: {}", broken.join("; ")) }
}

fn verdict(good: bool, yes: impl Into<String>, no: impl Into<String>) -> Result<String, String> {
    if good { Ok(yes.into()) } else { Err(no.into()) }
}

/// That a stub with its symbols makes its messages by patterns (`sys::text`) alone: the core library's formatter costs 5 KiB.
///
/// # Errors
/// Not an ELF64 file at all.
pub fn formatting(listed: &[u8]) -> Result<Property> {
    let file: ElfFile64<'_, Endianness> = ElfFile64::parse(listed).context("the stub is no 64-bit ELF file")?;
    let linked = file.symbols().any(|symbol| symbol.name().is_ok_and(|name| name.contains("4core3fmt5write")));
    let no = "core::fmt is linked: something that the restart reaches uses format_args!, where a pattern does";
    Ok(("messages", verdict(!linked, "made by patterns, without core::fmt", no)))
}

/// Whether an executable needs no library of the machine that it runs on.
///
/// # Errors
/// Not an ELF64 file at all.
pub fn is_static(bytes: &[u8]) -> Result<bool> {
    let file: ElfFile64<'_, Endianness> = ElfFile64::parse(bytes).context("no 64-bit ELF file")?;
    Ok(!file.elf_program_headers().iter().any(|ph| ph.p_type(file.endian()) == elf::PT_INTERP))
}

/// The stub's properties: a small static executable that asks nothing of the kernel but to be mapped. `bytes`: as it was linked;
/// `size`: bytes of what ships.
///
/// # Errors
/// Not an ELF64 file at all.
pub fn stub(bytes: &[u8], size: u64) -> Result<Vec<Property>> {
    let file: ElfFile64<'_, Endianness> = ElfFile64::parse(bytes).context("the stub is no 64-bit ELF file")?;
    let endian = file.endian();
    let header = file.elf_header();
    let (machine, kind) = (header.e_machine(endian), header.e_type(endian));
    let entry = header.e_entry(endian);
    let segment = |wanted| file.elf_program_headers().iter().any(|ph| ph.p_type(endian) == wanted);
    let loads = || file.elf_program_headers().iter().filter(|ph| ph.p_type(endian) == elf::PT_LOAD);
    let start = loads().map(|ph| ph.p_vaddr(endian)).min().unwrap_or(0);
    let end = loads().map(|ph| ph.p_vaddr(endian).saturating_add(ph.p_memsz(endian))).max().unwrap_or(0);
    let entered = loads().any(|ph| {
        let from = ph.p_vaddr(endian);
        ph.p_flags(endian).contains(elf::PF_X) && (from..from.saturating_add(ph.p_filesz(endian))).contains(&entry)
    });
    Ok(vec![
        (
            "size",
            verdict(
                size <= STUB_MAX as u64,
                format!("{size} of at most {STUB_MAX} bytes"),
                format!("{size} bytes, more than {STUB_MAX}"),
            ),
        ),
        ("machine", verdict(machine == elf::EM_X86_64, "ELF64 x86-64", format!("e_machine is {}", machine.0))),
        (
            "type",
            verdict(
                kind == elf::ET_EXEC,
                "ET_EXEC, runs where it is linked",
                format!("e_type is {}, not ET_EXEC", kind.0),
            ),
        ),
        ("interpreter", verdict(!segment(elf::PT_INTERP), "none", "there is a PT_INTERP")),
        ("dynamic section", verdict(!segment(elf::PT_DYNAMIC), "none", "there is a PT_DYNAMIC")),
        (
            "thread-local storage",
            verdict(!segment(elf::PT_TLS), "none", "there is a PT_TLS, which nothing would set up"),
        ),
        ("relocations", relocations(&file)),
        ("symbols", symbols(&file)),
        ("addresses", verdict(start != 0 && end > start, format!("{start:#x} to {end:#x}"), "no PT_LOAD")),
        ("entry", verdict(entered, format!("{entry:#x}"), format!("{entry:#x} lies in no executable segment"))),
        ("mark", mark(&file, bytes, start)),
        ("stack", stack(&file)),
        ("memory protection", protection(&file)),
    ])
}

/// Those who save find what the stub does by its address, and by what its second segment begins with.
fn mark(file: &ElfFile64<'_, Endianness>, bytes: &[u8], start: u64) -> Result<String, String> {
    let endian = file.endian();
    let data = file.elf_program_headers().get(1).map(|ph| ph.file_range(endian));
    let found = data.and_then(|(at, len)| bytes.get(at as usize..(at + len) as usize));
    let marked = found.is_some_and(|data| data.starts_with(&restarting::MAGIC));
    let what = format!("begins the second segment, and the stub lies at {start:#x}");
    verdict(marked && start == restarting::WINDOW, what.clone(), format!("not found where it {what}"))
}

/// The preload library's properties: it must load into any program without bringing in more than libc.
///
/// # Errors
/// Not an ELF64 file at all.
pub fn library(bytes: &[u8], calls: &[&str]) -> Result<Vec<Property>> {
    let file: ElfFile64<'_, Endianness> = ElfFile64::parse(bytes).context("the library is no 64-bit ELF file")?;
    let endian = file.endian();
    let table = file.elf_section_table().dynamic_table(endian, bytes)?;
    let mut needed = Vec::new();
    let (mut textrel, mut now) = (false, false);
    for entry in &table {
        match entry.tag {
            elf::DT_NEEDED => needed.push(String::from_utf8_lossy(table.string(entry)?).into_owned()),
            elf::DT_TEXTREL => textrel = true,
            elf::DT_BIND_NOW => now = true,
            elf::DT_FLAGS => {
                textrel |= entry.val & elf::DF_TEXTREL.0 != 0;
                now |= entry.val & elf::DF_BIND_NOW.0 != 0;
            }
            elf::DT_FLAGS_1 => now |= entry.val & elf::DF_1_NOW.0 != 0,
            _ => {}
        }
    }
    let more: Vec<_> = needed.iter().filter(|name| *name != "libc.so.6").cloned().collect();
    let exported: Vec<_> = file.dynamic_symbols().filter(|s| s.is_definition()).filter_map(|s| s.name().ok()).collect();
    let missing: Vec<_> = calls.iter().filter(|call| !exported.contains(call)).copied().collect();
    Ok(vec![
        ("size", Ok(format!("{} bytes", bytes.len()))),
        (
            "needs",
            verdict(
                more.is_empty(),
                if needed.is_empty() { "nothing".into() } else { needed.join(", ") },
                format!("more than libc.so.6: {}", more.join(", ")),
            ),
        ),
        ("text relocations", verdict(!textrel, "none", "DT_TEXTREL is set")),
        ("binding", verdict(now, "all at load time", "no BIND_NOW: a signal handler could run the dynamic linker")),
        (
            "calls",
            verdict(
                missing.is_empty(),
                format!("all {} of ckpt.h", calls.len()),
                format!("not exported: {}", missing.join(", ")),
            ),
        ),
        ("stack", stack(&file)),
        ("memory protection", protection(&file)),
    ])
}

fn relocations(file: &ElfFile64<'_, Endianness>) -> Result<String, String> {
    let endian = file.endian();
    let kinds = [elf::SHT_REL, elf::SHT_RELA, elf::SHT_RELR];
    let left =
        file.elf_section_table().iter().filter(|s| kinds.contains(&s.sh_type(endian)) && s.sh_size(endian) > 0).count();
    verdict(left == 0, "none left to do", format!("{left} relocation sections"))
}

fn symbols(file: &ElfFile64<'_, Endianness>) -> Result<String, String> {
    let endian = file.endian();
    let undefined = |table: &object::read::elf::SymbolTable<'_, elf::FileHeader64<Endianness>>| {
        table.iter().skip(1).filter(|s| s.is_undefined(endian)).count()
    };
    let left = undefined(file.elf_symbol_table()) + undefined(file.elf_dynamic_symbol_table());
    if left > 0 {
        return Err(format!("{left} undefined symbols"));
    }
    let count = file.elf_symbol_table().len();
    verdict(count == 0, "stripped, none undefined", format!("not stripped: {count} symbols"))
}

fn stack(file: &ElfFile64<'_, Endianness>) -> Result<String, String> {
    let endian = file.endian();
    let stack = file.elf_program_headers().iter().find(|ph| ph.p_type(endian) == elf::PT_GNU_STACK);
    let stack = stack.ok_or("no PT_GNU_STACK: some kernels would make it executable")?;
    verdict(!stack.p_flags(endian).contains(elf::PF_X), "not executable", "PT_GNU_STACK asks for an executable stack")
}

fn protection(file: &ElfFile64<'_, Endianness>) -> Result<String, String> {
    let endian = file.endian();
    let both = file.elf_program_headers().iter().find(|ph| {
        let flags = ph.p_flags(endian);
        ph.p_type(endian) == elf::PT_LOAD && flags.contains(elf::PF_W) && flags.contains(elf::PF_X)
    });
    match both {
        None => Ok("no segment is writable and executable".into()),
        Some(ph) => Err(format!("the segment at {:#x} is writable and executable", ph.p_vaddr(endian))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(properties: &[Property]) -> Vec<&str> {
        properties.iter().filter(|(_, seen)| seen.is_err()).map(|(name, _)| *name).collect()
    }

    /// A program of the hosted world breaks most of the stub's promises, and each one by its name.
    #[test]
    fn a_dynamic_program_is_no_stub() -> Result<()> {
        let own = std::fs::read("/proc/self/exe")?;
        let seen = stub(&own, own.len() as u64)?;
        for name in ["size", "type", "interpreter", "dynamic section", "relocations", "symbols"] {
            assert!(broken(&seen).contains(&name), "{name} should be broken");
        }
        assert!(report("this test", &seen).is_err());
        Ok(())
    }

    #[test]
    fn text_is_no_stub() {
        assert!(stub(b"#!/bin/sh\n", 10).is_err());
    }

    #[test]
    fn a_library_without_the_calls_is_refused() -> Result<()> {
        let seen = library(&std::fs::read("/proc/self/exe")?, &["ckpt_save"])?;
        assert!(broken(&seen).contains(&"calls"));
        Ok(())
    }
}
