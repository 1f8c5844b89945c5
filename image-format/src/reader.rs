//! Reading an image: every number in it is an allegation until it is checked here.
//!
//! The order is: identity (ELF, machine), version, structure of headers, seal and checksum, then the tables.
//! Must never hand out anything of an image whose prefix checksum does not match.

mod headers;

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use crate::elf::{self, PT_CONTENT, PT_LOAD, PT_NOTE, ProgramHeader, SIZEOF_EHDR, SIZEOF_PHDR, SIZEOF_SHDR};
use crate::note::{self, NoteIter};
pub use crate::note::{NOTE_LEAD, is_first_note};
use crate::record;
use crate::record::content::Content;
use crate::record::frame::Frame;
use crate::record::header::{Features, Header, MAGIC, VERSION};
use crate::record::memory::{Vma, VmaKind};
use crate::rows::Rows;
use crate::segment::Segments;
use crate::{Fault, NoteType, PAGE, PREFIX_MAX, Part, Record, Rule, StrRef, USER_END, seal};

/// How many bytes [`Need::probe`] wants to see: ELF header, section header 0, first program header.
pub const PROBE_LEN: usize = SIZEOF_EHDR + SIZEOF_SHDR + SIZEOF_PHDR;

/// What must be read before an image can be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Bytes from the start of the file.
    pub prefix_len: u64,
    /// Program headers' offset.
    pub phoff: u64,
    /// Program headers' count.
    pub phnum: u64,
}

impl Need {
    /// Where the first note lies.
    #[must_use]
    pub const fn notes(&self) -> u64 {
        self.phoff + self.phnum * SIZEOF_PHDR as u64
    }

    /// Reads the ELF header in the first bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// Not an image, of another machine, or a count that the file cannot hold.
    pub fn probe(first: &[u8], file_len: u64) -> Result<Self, Fault> {
        let header = elf::header(first)?;
        let phoff = header.e_phoff;
        let mut phnum = u64::from(header.e_phnum);
        if header.e_phnum == elf::PN_XNUM {
            phnum = xnum(first, header.e_shoff)?;
        }
        let expected = SIZEOF_EHDR + if header.e_phnum == elf::PN_XNUM { SIZEOF_SHDR } else { 0 };
        if phoff != expected as u64 || usize::from(header.e_phentsize) != SIZEOF_PHDR {
            return Err(Fault::NotCheckpoint);
        }
        if phnum < 2 {
            return Err(Fault::NotCheckpoint);
        }
        let table = phnum.checked_mul(SIZEOF_PHDR as u64).and_then(|n| n.checked_add(phoff)).unwrap_or(u64::MAX);
        if table > PREFIX_MAX {
            return Err(Fault::malformed(Rule::AbsurdNumberProgramHeaders, 56));
        }
        if table > file_len {
            return Err(Fault::truncated(table, file_len));
        }
        let short = Fault::truncated(PROBE_LEN as u64, first.len() as u64);
        let mut notes = ProgramHeader::default();
        let at = usize::try_from(phoff).map_err(|_| short)?;
        plain::copy_from_bytes(&mut notes, first.get(at..).ok_or(short)?).map_err(|_| short)?;
        if notes.p_type != PT_NOTE || notes.p_offset != table {
            return Err(Fault::NotCheckpoint);
        }
        let prefix_len = notes.p_offset.saturating_add(notes.p_filesz);
        if prefix_len > PREFIX_MAX {
            return Err(Fault::malformed(Rule::AbsurdLengthNotes, phoff + 32));
        }
        if prefix_len > file_len {
            return Err(Fault::truncated(prefix_len, file_len));
        }
        Ok(Self { prefix_len, phoff, phnum })
    }
}

fn xnum(first: &[u8], shoff: u64) -> Result<u64, Fault> {
    if shoff != SIZEOF_EHDR as u64 {
        return Err(Fault::NotCheckpoint);
    }
    let short = Fault::truncated(PROBE_LEN as u64, first.len() as u64);
    let section = first.get(SIZEOF_EHDR..SIZEOF_EHDR + SIZEOF_SHDR).ok_or(short)?;
    let info = section.get(44..48).and_then(|b| b.try_into().ok()).ok_or(Fault::NotCheckpoint)?;
    Ok(u64::from(u32::from_le_bytes(info)))
}

/// A parsed image over the prefix's bytes. Headers are checked, tables are found; [`Image::check_seal`] comes next.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    prefix: &'a [u8],
    header: &'a Header,
    /// All headers of segments: of memory, of contents, of processes.
    all: &'a [ProgramHeader],
    /// How many are of memory; and of these two.
    of_memory: u32,
    of_both: u32,
    seal: (u64, u64),
    notes: &'a [u8],
    notes_at: u64,
    places: record::Places,
    strings: &'a [u8],
    file_len: u64,
}

impl<'a> Image<'a> {
    /// Parses and checks headers. `prefix` holds the first [`Need::prefix_len`] bytes, 8-byte aligned.
    ///
    /// # Errors
    /// The first rule that the headers break.
    pub fn parse(prefix: &'a [u8], file_len: u64) -> Result<Self, Fault> {
        let need = Need::probe(prefix, file_len)?;
        let len = usize::try_from(need.prefix_len).unwrap_or(usize::MAX);
        let prefix = prefix.get(..len).ok_or(Fault::truncated(need.prefix_len, prefix.len() as u64))?;
        let table = elf::program_headers(prefix, need.phoff, need.phnum)?;
        let at = need.phoff;
        let [notes, all @ .., last] = table else {
            return Err(Fault::malformed(Rule::TooFewProgramHeaders, at));
        };
        let start = usize::try_from(notes.p_offset).unwrap_or(usize::MAX);
        let body = prefix.get(start..).ok_or(Fault::malformed(Rule::NotesDoNotFollowHeaders, at))?;
        // The first of another kind; a wrong order is found with the headers' other rules.
        let kinds = || all.iter().map(|ph| ph.p_type);
        let of_memory = kinds().take_while(|kind| *kind == PT_LOAD).count() as u32;
        let of_both = kinds().take_while(|kind| matches!(*kind, PT_LOAD | PT_CONTENT)).count() as u32;
        let mut image = Self {
            prefix,
            header: first_header(NoteIter::new(body, notes.p_offset))?,
            all,
            of_memory,
            of_both,
            seal: (last.p_offset, last.p_filesz),
            notes: body,
            notes_at: notes.p_offset,
            places: record::Places::NONE,
            strings: &[],
            file_len,
        };
        image.check_version()?;
        image.check_headers(last, need.phoff)?;
        // A broken note is left to `check_tables`: a wrong checksum is the better message for it.
        for note in image.notes().map_while(Result::ok).filter(|note| note.owner == note::CKPT) {
            let at = (note.desc.as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
            image.places.put(note.kind, at, note.desc.len());
        }
        image.strings = image.contents(NoteType::Strings.number());
        Ok(image)
    }

    fn check_version(&self) -> Result<(), Fault> {
        let header = self.header;
        if header.major.get() > VERSION.0 {
            return Err(Fault::Newer(header.major.get()));
        }
        let unknown = header.required.get() & !Features::all().bits();
        if unknown == 0 { Ok(()) } else { Err(Fault::Feature(unknown)) }
    }

    /// Where the seal lies: offset and length in bytes.
    #[must_use]
    pub fn seal_span(&self) -> (u64, u64) {
        self.seal
    }

    /// Checks the prefix against the seal's bytes and every table's structure; returns the segments' checksums.
    ///
    /// # Errors
    /// Not sealed, damaged, or the first rule that a table breaks.
    #[inline(never)] // A smaller frame has shorter addresses.
    pub fn check_seal<'s>(&self, bytes: &'s [u8]) -> Result<&'s [U64], Fault> {
        let (seal, sums) = seal::read(bytes, self.seal.0)?;
        let lengths = (seal.file_len.get(), seal.prefix_len.get(), sums.len());
        if lengths != (self.file_len, self.prefix.len() as u64, self.all.len()) {
            return Err(Fault::Checksum(Part::Seal));
        }
        if crate::seal::sum(self.prefix) != seal.prefix_sum.get() {
            return Err(Fault::Checksum(Part::Prefix));
        }
        self.check_tables()?;
        Ok(sums)
    }

    fn check_tables(&self) -> Result<(), Fault> {
        self.check_notes()?;
        let vmas = self.rows::<Vma>();
        let mut end = 0;
        for vma in vmas {
            let (start, stop) = (vma.start.get(), vma.end.get());
            let bad = |what| Err(Fault::address(what, start));
            if start % PAGE != 0 || stop % PAGE != 0 || stop <= start {
                return bad(Rule::MappingNotPageAlignedEmpty);
            }
            if start < end {
                return bad(Rule::MappingOutOrderOverlapsAnother);
            }
            if stop > USER_END {
                return bad(Rule::MappingReachesIntoKernelSpace);
            }
            if VmaKind::from_number(vma.kind.get()).is_none() {
                return bad(Rule::MappingUnknownKind);
            }
            end = stop;
        }
        let mut rest = vmas.iter().peekable();
        for segment in self.segments() {
            while rest.next_if(|vma| vma.end.get() <= segment.addr).is_some() {}
            let end = segment.addr + segment.len;
            if !rest.peek().is_some_and(|v| v.start.get() <= segment.addr && end <= v.end.get()) {
                return Err(Fault::address(Rule::SegmentLiesNoMapping, segment.addr));
            }
        }
        Ok(())
    }

    /// Every note fits, every table is one of whole records, and none stands twice: it would be read once, and nothing
    /// is dropped silently.
    fn check_notes(&self) -> Result<(), Fault> {
        let mut seen = 0u64;
        for note in self.notes() {
            let note = note?;
            let Some((size, bit)) = record::size_of_type(note.kind).filter(|_| note.owner == note::CKPT) else {
                continue;
            };
            let bad = |what| Err(Fault::malformed(what, self.offset_of(note.desc.as_ptr().addr())));
            if !note.desc.len().is_multiple_of(size) {
                return bad(Rule::TableLengthNoMultipleRecords);
            }
            if seen & bit != 0 {
                return bad(Rule::TwoNotesSameType);
            }
            seen |= bit;
        }
        Ok(())
    }

    #[inline(never)]
    fn part(&self, from: u32, to: u32) -> Segments<'a> {
        Segments::new(self.all.get(from as usize..(to as usize).min(self.all.len())).unwrap_or_default())
    }

    /// Runs of saved pages, ascending.
    #[must_use]
    pub fn segments(&self) -> Segments<'a> {
        self.part(0, self.of_memory)
    }

    /// The segments of contents, in the order of the table. Their checksums follow those of the others.
    #[must_use]
    pub fn content_segments(&self) -> Segments<'a> {
        self.part(self.of_memory, self.of_both)
    }

    /// Those of these contents.
    pub(crate) fn segments_of(&self, content: &Content) -> Segments<'a> {
        let first = self.of_memory.saturating_add(content.first.get());
        self.part(first, first.saturating_add(content.segments.get()))
    }

    /// The images of the tree's other processes: pid as address, length, offset. Their checksums, of their seals, follow those of
    /// contents.
    #[must_use]
    pub fn processes(&self) -> Segments<'a> {
        self.part(self.of_both, u32::MAX)
    }

    /// The bytes of a frame's XSAVE area; `None` when they lie outside the notes.
    #[must_use]
    pub fn xstate(&self, frame: &Frame) -> Option<&'a [u8]> {
        let at = usize::try_from(frame.xstate_at.get()).ok()?;
        self.notes.get(at..at.checked_add(frame.xstate_len.get() as usize)?)
    }

    /// All notes, the standard ones too.
    #[must_use]
    pub fn notes(&self) -> NoteIter<'a> {
        NoteIter::new(self.notes, self.notes_at)
    }

    /// Bytes before the first segment's page: headers and notes.
    #[must_use]
    pub fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// The header record.
    #[must_use]
    pub fn header(&self) -> &'a Header {
        self.header
    }

    /// The contents of this project's note of type `kind`; empty when there is none.
    ///
    /// # Errors
    /// A note does not fit.
    pub fn note(&self, kind: NoteType) -> Result<&'a [u8], Fault> {
        let (at, len) = self.places.of(kind.number()).unwrap_or_default();
        let note = self.notes.get(at..at.saturating_add(len));
        note.ok_or(Fault::malformed(Rule::NoteDoesNotFitIntoSegment, self.notes_at))
    }

    /// The contents of the first note of this owner and type; empty when there is none.
    ///
    /// # Errors
    /// A note does not fit.
    #[inline(never)]
    pub fn note_of(&self, owner: &[u8], kind: u32) -> Result<&'a [u8], Fault> {
        for note in self.notes() {
            let note = note?;
            if note.owner == owner && note.kind == kind {
                return Ok(note.desc);
            }
        }
        Ok(&[])
    }

    /// All records of one type; none when the image has no such note.
    ///
    /// # Errors
    /// The note's length is no multiple of the record's.
    pub fn table<R: Record>(&self) -> Result<&'a [R], Fault> {
        let bytes = self.note(R::TYPE)?;
        <[R]>::ref_from_bytes(bytes)
            .map_err(|_| Fault::malformed(Rule::TableLengthNoMultipleRecords, self.offset_of(bytes.as_ptr().addr())))
    }

    /// Each record of one type, of an image whose notes were checked: there is nothing left to go wrong.
    pub(crate) fn each<R: Record>(&self) -> Rows<'a, R> {
        Rows::new(self.contents(R::TYPE.number()))
    }

    /// As [`Image::table`], of an image whose notes were checked. Dearer than [`Image::each`].
    pub(crate) fn rows<R: Record>(&self) -> &'a [R] {
        <[R]>::ref_from_bytes(self.contents(R::TYPE.number())).unwrap_or_default()
    }

    /// The contents of a note of an image whose notes were checked, by the [`NoteType::number`] of its type.
    #[inline(never)]
    pub(crate) fn contents(&self, number: u8) -> &'a [u8] {
        let (at, len) = self.places.of(number).unwrap_or_default();
        self.notes.get(at..at.saturating_add(len)).unwrap_or_default()
    }

    /// The record of a type that an image has exactly one of.
    ///
    /// # Errors
    /// None, or several.
    pub fn single<R: Record>(&self) -> Result<&'a R, Fault> {
        match self.table::<R>()? {
            [one] => Ok(one),
            _ => Err(Fault::malformed(Rule::RecordNotThereOnce, self.notes_at)),
        }
    }

    /// The bytes that a reference means.
    ///
    /// # Errors
    /// It points outside the strings, or the bytes contain a NUL.
    #[inline(never)]
    pub fn string(&self, reference: StrRef) -> Result<&'a [u8], Fault> {
        self.bytes(reference)
            .filter(|bytes| bytes.iter().all(|byte| *byte != 0))
            .ok_or(Fault::malformed(Rule::StringLiesOutsideNoteContainsNUL, u64::from(reference.at.get())))
    }

    /// The bytes that a reference means, any bytes; `None` when it points outside the strings.
    #[must_use]
    pub fn bytes(&self, reference: StrRef) -> Option<&'a [u8]> {
        let (at, len) = (reference.at.get() as usize, reference.len.get() as usize);
        self.strings.get(at..at.saturating_add(len))
    }

    /// Offset in the file of what was borrowed from the notes, by its address.
    pub(crate) fn offset_of(&self, address: usize) -> u64 {
        address.saturating_sub(self.prefix.as_ptr().addr()) as u64
    }
}

/// The header record of the first note.
fn first_header<'a>(mut notes: NoteIter<'a>) -> Result<&'a Header, Fault> {
    let note = notes.next().and_then(Result::ok).ok_or(Fault::NotCheckpoint)?;
    if note.owner != note::CKPT || note.kind != NoteType::Header as u32 {
        return Err(Fault::NotCheckpoint);
    }
    let (header, _) = Header::ref_from_prefix(note.desc).map_err(|_| Fault::NotCheckpoint)?;
    if header.magic != MAGIC {
        return Err(Fault::NotCheckpoint);
    }
    Ok(header)
}
