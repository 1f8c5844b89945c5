//! The ELF numbers that an image uses, and goblin's structures read with bounds checked.
//!
//! goblin's own parser is not used: it does not read `PN_XNUM` and costs the stub 40 KiB.

pub use goblin::elf64::header::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_CORE, Header, SIZEOF_EHDR,
};
pub use goblin::elf64::program_header::{PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE, ProgramHeader, SIZEOF_PHDR};
pub use goblin::elf64::section_header::{SIZEOF_SHDR, SectionHeader};

use crate::{Fault, Rule};

/// `e_phnum` when the real count is in `sh_info` of section header 0 (elf(5)).
pub const PN_XNUM: u16 = 0xffff;

/// In `p_flags` (of `PF_MASKOS`): these bytes are those of the mapped file; the original may be mapped instead.
pub const PF_FILE_BYTES: u32 = 0x0010_0000;

/// `p_type` of a segment with a part of some [`crate::record::content::Content`] (between `PT_LOOS` and `PT_HIOS`): debuggers
/// pass it over. `p_vaddr` is the offset in it.
pub const PT_CONTENT: u32 = 0x6443_4b01;

/// To the writer: the segment is of [`PT_CONTENT`]. Stands in no file.
pub const PF_CONTENT: u32 = 0x0020_0000;

/// `p_type` of a segment with the whole image of another process of the tree (as [`PT_CONTENT`]). `p_vaddr` is its pid,
/// `p_filesz` its length, which need not be of whole pages.
pub const PT_PROCESS: u32 = 0x6443_4b02;

/// In `p_flags` (of `PF_MASKOS`): the process shares these pages, copy-on-write, with its parent, which has them at the same addresses.
/// They are in the file once: `p_offset` counts from the start of the file, and lies before this process's own image.
pub const PF_INHERITED: u32 = 0x0080_0000;

/// To the writer: the segment is of [`PT_PROCESS`]. Stands in no file.
pub const PF_PROCESS: u32 = 0x0040_0000;

/// The machine that this build writes and accepts.
pub const MACHINE: u16 = EM_X86_64;

/// What a zstd stream begins with (RFC 8878).
pub const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Copies the ELF header out of the first bytes of a file.
///
/// # Errors
/// Empty, too short, no ELF, no core, or of another machine.
pub fn header(first: &[u8]) -> Result<Header, Fault> {
    if first.is_empty() {
        return Err(Fault::Empty);
    }
    let magic = first.get(..4.min(first.len())).unwrap_or_default();
    if !ELFMAG.starts_with(magic) {
        return Err(if magic == ZSTD_MAGIC { Fault::Compressed } else { Fault::NotElf });
    }
    let mut header = Header::default();
    let short = Fault::truncated(SIZEOF_EHDR as u64, first.len() as u64);
    plain::copy_from_bytes(&mut header, first).map_err(|_| short)?;
    let class = header.e_ident.get(EI_CLASS).copied();
    let data = header.e_ident.get(EI_DATA).copied();
    if class != Some(ELFCLASS64) || data != Some(ELFDATA2LSB) || header.e_machine != MACHINE {
        return Err(Fault::WrongMachine(header.e_machine));
    }
    if header.e_type != ET_CORE {
        return Err(Fault::NotCore(header.e_type));
    }
    Ok(header)
}

/// Views `count` program headers at byte `off` of an 8-byte aligned buffer.
///
/// # Errors
/// The buffer ends before them, or is not aligned.
pub fn program_headers(bytes: &[u8], off: u64, count: u64) -> Result<&[ProgramHeader], Fault> {
    let bad = Fault::malformed(Rule::ProgramHeadersDoNotFitNotAligned, off);
    let len = count.checked_mul(SIZEOF_PHDR as u64).ok_or(bad)?;
    let end = off.checked_add(len).ok_or(bad)?;
    let range = usize::try_from(off).map_err(|_| bad)?..usize::try_from(end).map_err(|_| bad)?;
    let table = bytes.get(range).ok_or(bad)?;
    plain::slice_from_bytes(table).map_err(|_| bad)
}

/// The ELF header of an image with `phnum` program headers, as it lies in the file.
///
/// With [`PN_XNUM`] or more of them the count moves to section header 0, which then follows at offset 64
/// ([`xnum_section`]) and pushes the program headers behind it.
#[must_use]
pub fn header_bytes(phnum: u64) -> [u8; SIZEOF_EHDR] {
    let xnum = phnum >= u64::from(PN_XNUM);
    let phoff = if xnum { SIZEOF_EHDR + SIZEOF_SHDR } else { SIZEOF_EHDR } as u64;
    let mut out = [0; SIZEOF_EHDR];
    let mut put = Put { out: &mut out, at: 0 };
    put.bytes(ELFMAG);
    put.bytes(&[ELFCLASS64, ELFDATA2LSB, 1, 0]);
    put.bytes(&[0; 8]);
    put.bytes(&ET_CORE.to_le_bytes());
    put.bytes(&MACHINE.to_le_bytes());
    put.bytes(&1u32.to_le_bytes());
    put.bytes(&0u64.to_le_bytes());
    put.bytes(&phoff.to_le_bytes());
    put.bytes(&if xnum { SIZEOF_EHDR as u64 } else { 0 }.to_le_bytes());
    put.bytes(&0u32.to_le_bytes());
    put.bytes(&(SIZEOF_EHDR as u16).to_le_bytes());
    put.bytes(&(SIZEOF_PHDR as u16).to_le_bytes());
    put.bytes(&u16::try_from(phnum).unwrap_or(PN_XNUM).to_le_bytes());
    put.bytes(&(SIZEOF_SHDR as u16).to_le_bytes());
    put.bytes(&u16::from(xnum).to_le_bytes());
    put.bytes(&0u16.to_le_bytes());
    out
}

/// Section header 0 of an image with [`PN_XNUM`] program headers or more: the count lies in `sh_info`.
#[must_use]
pub fn xnum_section(phnum: u32) -> [u8; SIZEOF_SHDR] {
    let mut out = [0; SIZEOF_SHDR];
    // sh_info: after name, type (4 each), flags, addr, offset, size (8 each) and link (4).
    let mut put = Put { out: &mut out, at: 44 };
    put.bytes(&phnum.to_le_bytes());
    out
}

/// One program header as it lies in the file.
#[must_use]
pub fn program_header_bytes(ph: &ProgramHeader) -> [u8; SIZEOF_PHDR] {
    let mut out = [0; SIZEOF_PHDR];
    let mut put = Put { out: &mut out, at: 0 };
    put.bytes(&ph.p_type.to_le_bytes());
    put.bytes(&ph.p_flags.to_le_bytes());
    for word in [ph.p_offset, ph.p_vaddr, ph.p_paddr, ph.p_filesz, ph.p_memsz, ph.p_align] {
        put.bytes(&word.to_le_bytes());
    }
    out
}

/// A cursor that fills a fixed structure; what does not fit is left out (the callers' sizes are constants).
struct Put<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Put<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        if let Some(to) = self.out.get_mut(self.at..end) {
            to.copy_from_slice(bytes);
        }
        self.at = end;
    }
}
