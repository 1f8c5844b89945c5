//! Building an image without an allocator: notes into a buffer, and where everything lies in the file.
//!
//! The layout is known before the first byte goes out, so that an image can be written to a pipe in one pass.
//! Must never write to a file itself: the caller does, with the system calls that it may use.

use zerocopy::IntoBytes;

use crate::elf::{
    PF_CONTENT, PF_INHERITED, PF_PROCESS, PT_CONTENT, PT_LOAD, PT_NOTE, PT_PROCESS, ProgramHeader, SIZEOF_EHDR,
    SIZEOF_PHDR, SIZEOF_SHDR,
};
use crate::record::{Record, StrRef};
use crate::{NoteType, PAGE, align_up, elf, note, seal};

pub use crate::fault::Full;

/// The notes of an image under construction, one after the other in a buffer of the caller.
///
/// Tables of records are written open-ended: [`Notes::begin`], any number of [`Notes::push`], [`Notes::end`].
#[derive(Debug)]
pub struct Notes<'b> {
    out: &'b mut [u8],
    len: usize,
    /// Start of the note that is open.
    open: usize,
    strings: &'b mut [u8],
    strings_len: usize,
}

impl<'b> Notes<'b> {
    /// Writes notes to `out` and keeps their strings in `strings` until [`Notes::finish`].
    #[must_use]
    pub fn new(out: &'b mut [u8], strings: &'b mut [u8]) -> Self {
        Self { out, len: 0, open: 0, strings, strings_len: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.len.checked_add(bytes.len()).ok_or(Full)?;
        self.out.get_mut(self.len..end).ok_or(Full)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Opens a note of `owner`; its length is filled in by [`Notes::end`].
    ///
    /// # Errors
    /// The buffer is full.
    pub fn open(&mut self, owner: &[u8], kind: u32) -> Result<(), Full> {
        self.open = self.len;
        let mut head = [0; 20];
        note::head_bytes(&mut head, owner, 0, kind);
        self.put(&head)
    }

    /// Opens a table of this project's own.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn begin(&mut self, kind: NoteType) -> Result<(), Full> {
        self.open(note::CKPT, kind as u32)
    }

    /// Appends bytes to the open note.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.put(bytes)
    }

    /// Appends a record to the open table.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn push<R: Record>(&mut self, record: &R) -> Result<(), Full> {
        self.put(record.as_bytes())
    }

    /// Closes the open note: length and padding.
    ///
    /// # Errors
    /// The buffer is full, or the note is 4 GiB or longer.
    pub fn end(&mut self) -> Result<(), Full> {
        let desc = self.len.checked_sub(self.open + 20).ok_or(Full)?;
        let desc_len = u32::try_from(desc).map_err(|_| Full)?;
        let at = self.open + 4;
        self.out.get_mut(at..at + 4).ok_or(Full)?.copy_from_slice(&desc_len.to_le_bytes());
        let pad = desc.next_multiple_of(4) - desc;
        self.put([0; 3].get(..pad).ok_or(Full)?)
    }

    /// A note with exactly these records.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn table<R: Record>(&mut self, records: &[R]) -> Result<(), Full> {
        self.begin(R::TYPE)?;
        self.put(records.as_bytes())?;
        self.end()
    }

    /// Keeps a string (bytes without NUL, as the kernel gives names) and returns where it will be.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn string(&mut self, bytes: &[u8]) -> Result<StrRef, Full> {
        let end = self.strings_len.checked_add(bytes.len()).ok_or(Full)?;
        self.strings.get_mut(self.strings_len..end).ok_or(Full)?.copy_from_slice(bytes);
        let at = u32::try_from(self.strings_len).map_err(|_| Full)?;
        let len = u32::try_from(bytes.len()).map_err(|_| Full)?;
        self.strings_len = end;
        Ok(StrRef { at: at.into(), len: len.into() })
    }

    /// The bytes of a string that was kept before.
    #[must_use]
    pub fn kept(&self, reference: StrRef) -> &[u8] {
        let (at, len) = (reference.at.get() as usize, reference.len.get() as usize);
        self.strings.get(at..at.saturating_add(len)).unwrap_or_default()
    }

    /// The notes and the strings so far, for [`Notes::adopt`].
    #[must_use]
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (self.out.get(..self.len).unwrap_or_default(), self.strings.get(..self.strings_len).unwrap_or_default())
    }

    /// Takes over the strings of other notes, before any of its own, so that the others' records may follow.
    ///
    /// # Errors
    /// The buffer is full, or has strings already.
    pub fn adopt(&mut self, strings: &[u8]) -> Result<(), Full> {
        if self.strings_len != 0 {
            return Err(Full);
        }
        self.strings.get_mut(..strings.len()).ok_or(Full)?.copy_from_slice(strings);
        self.strings_len = strings.len();
        Ok(())
    }

    /// Bytes of notes so far; within an open note where its next byte will be.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.len as u64
    }

    /// Writes the one record of the very first note anew, where a record of the same type was written before.
    ///
    /// # Errors
    /// There is none.
    pub fn replace_first<R: Record>(&mut self, record: &R) -> Result<(), Full> {
        let bytes = record.as_bytes();
        self.out
            .get_mut(20..20 + bytes.len())
            .filter(|_| self.len >= 20 + bytes.len())
            .ok_or(Full)?
            .copy_from_slice(bytes);
        Ok(())
    }

    /// As [`Notes::finish`], but moves the notes behind room for headers of `headers` bytes and returns all of it.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn finish_prefix(mut self, headers: u64) -> Result<&'b mut [u8], Full> {
        let out = core::mem::take(&mut self.out);
        let notes =
            Notes { out: &mut *out, len: self.len, open: 0, strings: self.strings, strings_len: self.strings_len };
        let len = notes.finish()?;
        let headers = usize::try_from(headers).map_err(|_| Full)?;
        let all = headers.checked_add(len).ok_or(Full)?;
        let out = out.get_mut(..all).ok_or(Full)?;
        out.copy_within(..len, headers);
        Ok(out)
    }

    /// Writes the note with the strings and returns the length of all notes in bytes.
    ///
    /// # Errors
    /// The buffer is full.
    pub fn finish(mut self) -> Result<usize, Full> {
        self.begin(NoteType::Strings)?;
        let end = self.len.checked_add(self.strings_len).ok_or(Full)?;
        let to = self.out.get_mut(self.len..end).ok_or(Full)?;
        to.copy_from_slice(self.strings.get(..self.strings_len).ok_or(Full)?);
        self.len = end;
        self.end()?;
        Ok(self.len)
    }
}

/// Where the parts of an image lie, in bytes from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Program headers: one for the notes, one per segment, one for the seal.
    pub phnum: u64,
    /// Program headers' offset.
    pub phoff: u64,
    /// Notes' offset.
    pub notes: u64,
    /// Notes' length.
    pub notes_len: u64,
    /// Offset of the first segment's bytes.
    pub segments: u64,
    /// The seal's offset.
    pub seal: u64,
    /// The seal's length.
    pub seal_len: u64,
}

impl Layout {
    /// The layout for `segments` segments of `bytes` bytes in all (each rounded up to whole pages) and notes of `notes_len`.
    #[must_use]
    pub const fn new(segments: u64, bytes: u64, notes_len: u64) -> Self {
        let phnum = segments + 2;
        let xnum = phnum >= elf::PN_XNUM as u64;
        let phoff = (SIZEOF_EHDR + if xnum { SIZEOF_SHDR } else { 0 }) as u64;
        let notes = phoff + phnum * SIZEOF_PHDR as u64;
        let first = align_up(notes + notes_len, PAGE);
        Self { phnum, phoff, notes, notes_len, segments: first, seal: first + bytes, seal_len: seal::size(segments) }
    }

    /// Bytes of headers before the notes; the notes follow without a gap.
    #[must_use]
    pub const fn headers_len(&self) -> u64 {
        self.notes
    }

    /// Bytes of headers and notes, without the padding to the first segment.
    #[must_use]
    pub const fn prefix_len(&self) -> u64 {
        self.notes + self.notes_len
    }

    /// Bytes of the whole file.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        self.seal + self.seal_len
    }

    /// Says where the pages of an inherited segment lie, the `index`-th of all, in bytes from the start of the outermost image.
    ///
    /// # Errors
    /// There is no such segment.
    pub fn inherit(&self, headers: &mut [u8], index: usize, offset: u64) -> Result<(), Full> {
        let header = usize::try_from(self.phoff).map_err(|_| Full)? + (1 + index) * SIZEOF_PHDR;
        let at = header + core::mem::offset_of!(ProgramHeader, p_offset);
        headers.get_mut(at..at + 8).ok_or(Full)?.copy_from_slice(&offset.to_le_bytes());
        Ok(())
    }

    /// Writes all headers to `out`, whose length is [`Layout::headers_len`]. `segments` yields address, length
    /// and `p_flags` of each segment, ascending; then those of contents, with [`PF_CONTENT`] and the offset as address; then processes' images, with
    /// [`PF_PROCESS`] and the pid as address.
    ///
    /// # Errors
    /// `out` is too small.
    pub fn write_headers(&self, out: &mut [u8], segments: impl Iterator<Item = (u64, u64, u32)>) -> Result<(), Full> {
        let mut at = 0usize;
        let mut put = |bytes: &[u8]| -> Result<(), Full> {
            out.get_mut(at..at + bytes.len()).ok_or(Full)?.copy_from_slice(bytes);
            at += bytes.len();
            Ok(())
        };
        put(&elf::header_bytes(self.phnum))?;
        if self.phnum >= u64::from(elf::PN_XNUM) {
            put(&elf::xnum_section(u32::try_from(self.phnum).map_err(|_| Full)?))?;
        }
        let note = |offset, len| ProgramHeader {
            p_type: PT_NOTE,
            p_offset: offset,
            p_filesz: len,
            p_align: 4,
            ..ProgramHeader::default()
        };
        put(&elf::program_header_bytes(&note(self.notes, self.notes_len)))?;
        let mut offset = self.segments;
        for (addr, len, flags) in segments {
            let inherited = flags & PF_INHERITED != 0;
            put(&elf::program_header_bytes(&ProgramHeader {
                p_type: match flags & (PF_CONTENT | PF_PROCESS) {
                    0 => PT_LOAD,
                    PF_CONTENT => PT_CONTENT,
                    _ => PT_PROCESS,
                },
                p_flags: flags & !(PF_CONTENT | PF_PROCESS),
                p_offset: if inherited { 0 } else { offset },
                p_vaddr: addr,
                p_paddr: 0,
                p_filesz: len,
                p_memsz: len,
                p_align: PAGE,
            }))?;
            if !inherited {
                offset = align_up(offset + len, PAGE);
            }
        }
        put(&elf::program_header_bytes(&note(self.seal, self.seal_len)))
    }
}
