//! ELF notes: `namesz, descsz, type`, the owner's name, the contents; each padded to 4 bytes (elf(5)).
//!
//! Must never trust a size: the iterator ends with a fault at the first one that does not fit.

use crate::{Fault, NoteType, Rule};

/// Owner of the notes that every core has (`NT_PRSTATUS` …).
pub const CORE: &[u8] = b"CORE";
/// Owner of Linux's own notes (`NT_X86_XSTATE`).
pub const LINUX: &[u8] = b"LINUX";
/// Owner of this project's notes.
pub const CKPT: &[u8] = b"CKPT";

/// Types of the standard notes (include/uapi/linux/elf.h).
pub mod standard {
    /// `struct elf_prstatus`, one per thread, first of its notes.
    pub const NT_PRSTATUS: u32 = 1;
    /// `struct user_i387_struct`: the FXSAVE area.
    pub const NT_FPREGSET: u32 = 2;
    /// `struct elf_prpsinfo`: state, ids, name, arguments.
    pub const NT_PRPSINFO: u32 = 3;
    /// The auxiliary vector.
    pub const NT_AUXV: u32 = 6;
    /// The XSAVE area (owner `LINUX`).
    pub const NT_X86_XSTATE: u32 = 0x202;
    /// `siginfo_t` of the signal that made the core.
    pub const NT_SIGINFO: u32 = 0x5349_4749;
    /// Mapped files: count, page size, ranges, then names.
    pub const NT_FILE: u32 = 0x4649_4c45;
}

/// Bytes of a note's three leading words.
pub const HEAD: usize = 12;

/// One note.
#[derive(Clone, Copy, Debug)]
pub struct Note<'a> {
    /// Owner, without the closing NUL.
    pub owner: &'a [u8],
    /// Type, in the owner's numbering.
    pub kind: u32,
    /// Contents, without padding.
    pub desc: &'a [u8],
}

/// Walks the notes of a `PT_NOTE` segment.
#[derive(Clone, Debug)]
pub struct NoteIter<'a> {
    rest: &'a [u8],
    /// Offset of `rest` in the file, for the faults.
    at: u64,
}

impl<'a> NoteIter<'a> {
    /// Walks `bytes`, which lie at `at` in the file.
    #[must_use]
    pub fn new(bytes: &'a [u8], at: u64) -> Self {
        Self { rest: bytes, at }
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let padded = len.checked_add(3)? & !3;
        let whole = self.rest.get(..padded)?;
        self.rest = self.rest.get(padded..)?;
        self.at = self.at.saturating_add(padded as u64);
        whole.get(..len)
    }

    fn word(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn note(&mut self) -> Option<Note<'a>> {
        let name_len = usize::try_from(self.word()?).ok()?;
        let desc_len = usize::try_from(self.word()?).ok()?;
        let kind = self.word()?;
        let name = self.take(name_len)?;
        let desc = self.take(desc_len)?;
        // By hand: `strip_suffix` brings a panic.
        let owner = match name.split_last() {
            Some((0, owner)) => owner,
            _ => name,
        };
        Some(Note { owner, kind, desc })
    }
}

impl<'a> Iterator for NoteIter<'a> {
    type Item = Result<Note<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.at;
        let note = self.note();
        if note.is_none() {
            self.rest = &[];
        }
        Some(note.ok_or(Fault::malformed(Rule::NoteDoesNotFitIntoSegment, at)))
    }
}

/// Fills `out` (20 bytes for an owner of 4 to 7 letters) with a note's head and the padded owner's name.
pub(crate) fn head_bytes(out: &mut [u8], owner: &[u8], desc_len: u32, kind: u32) {
    let name_len = u32::try_from(owner.len() + 1).unwrap_or(0);
    out.fill(0);
    for (to, word) in out.chunks_exact_mut(4).zip([name_len, desc_len, kind]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    if let Some(name) = out.get_mut(HEAD..HEAD + owner.len()) {
        name.copy_from_slice(owner);
    }
}

/// Whether [`NOTE_LEAD`] bytes at the place of the notes begin the first note of an image.
#[must_use]
pub fn is_first_note(lead: &[u8]) -> bool {
    let kind = (NoteType::Header as u32).to_le_bytes();
    lead.get(8..HEAD) == Some(&kind) && lead.get(HEAD..).is_some_and(|owner| owner.starts_with(b"CKPT\0"))
}

/// Bytes of a note's head and this project's owner name, for readers that look at raw bytes.
pub const NOTE_LEAD: usize = HEAD + 8;
