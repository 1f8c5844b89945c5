//! The stub moves itself by correcting the words that hold addresses (loader/src/commit/relocate.rs). This checks that
//! it knows all of them: the linker is asked for its own list, by a second link of the same program.
//!
//! Must never judge another program than the one that ships: code and data of both links are compared.

use anyhow::{Context, Result, ensure};
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, Rela, SectionHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol};

use crate::elf_check::Property;

/// Types of relocations whose value does not depend on where the program lies, as code and target move together.
const RELATIVE: [elf::RelocationType; 7] = [
    elf::R_X86_64_PC32,
    elf::R_X86_64_PLT32,
    elf::R_X86_64_GOTPCREL,
    elf::R_X86_64_GOTPCRELX,
    elf::R_X86_64_REX_GOTPCRELX,
    elf::R_X86_64_PC64,
    elf::R_X86_64_NONE,
];

/// Checks `listed`, the stub linked with `--emit-relocs`, and that `shipped` is the same program.
///
/// # Errors
/// Not the same program, or no ELF files.
pub fn check(shipped: &[u8], listed: &[u8]) -> Result<Property> {
    let shipped: ElfFile64<'_, Endianness> = ElfFile64::parse(shipped)?;
    let file: ElfFile64<'_, Endianness> = ElfFile64::parse(listed)?;
    for name in [".text", ".rodata", ".data"] {
        let bytes = |file: &ElfFile64<'_, Endianness>| -> Result<Vec<u8>> {
            Ok(file.section_by_name(name).with_context(|| format!("the stub has no {name}"))?.data()?.to_vec())
        };
        ensure!(bytes(&shipped)? == bytes(&file)?, "two links of the stub differ in {name}");
    }
    let (mut words, mut wrong) = (0, Vec::new());
    let part = symbol(&file, "__relocatable_start")?..symbol(&file, "__relocatable_end")?;
    let endian = file.endian();
    let is_mips64el = file.elf_header().is_mips64el(endian);
    let table = file.elf_section_table();
    for section in table.iter() {
        let Some((relocations, _)) = section.rela(endian, listed)? else { continue };
        let target = table.section(object::SectionIndex(section.sh_info(endian) as usize))?;
        if !target.sh_flags(endian).contains(elf::SHF_ALLOC) {
            continue; // Debug information is not loaded.
        }
        for relocation in relocations {
            let (kind, at) = (relocation.r_type(endian, is_mips64el), relocation.r_offset(endian));
            if RELATIVE.contains(&kind) {
                continue;
            }
            words += 1;
            if kind != elf::R_X86_64_64 || at % 8 != 0 || !part.contains(&at) {
                wrong.push(format!("{at:#x} (type {})", kind.0));
            }
        }
    }
    let seen = if wrong.is_empty() {
        Ok(format!("{words}, all aligned words of the part that is corrected when the stub moves"))
    } else {
        Err(format!("would stay wrong when the stub moves: {}", wrong.join(", ")))
    };
    Ok(("absolute addresses", seen))
}

fn symbol(file: &ElfFile64<'_, Endianness>, name: &str) -> Result<u64> {
    let found = file.symbols().find(|symbol| symbol.name() == Ok(name));
    Ok(found.with_context(|| format!("linker.ld defines {name}"))?.address())
}
