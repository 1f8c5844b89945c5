//! Segments: runs of saved pages, as the program headers tell of them.

use crate::elf::{PF_FILE_BYTES, PF_INHERITED, ProgramHeader};

/// One run of saved pages, of memory or of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address of the first byte; of contents the offset in them.
    pub addr: u64,
    /// Bytes; a multiple of a page.
    pub len: u64,
    /// Where they lie in the file; a multiple of a page.
    pub offset: u64,
    /// They are the mapped file's own bytes: the file may be mapped instead.
    pub file_bytes: bool,
    /// They are the parent's pages, and `offset` counts from the start of the outermost image.
    pub inherited: bool,
}

impl Segment {
    fn new(ph: &ProgramHeader) -> Self {
        let has = |flag| ph.p_flags & flag != 0;
        let (file_bytes, inherited) = (has(PF_FILE_BYTES), has(PF_INHERITED));
        Self { addr: ph.p_vaddr, len: ph.p_filesz, offset: ph.p_offset, file_bytes, inherited }
    }

    /// Where they lie in the file, of an image that begins there.
    #[must_use]
    pub const fn place(&self, base: u64) -> u64 {
        if self.inherited { self.offset } else { base + self.offset }
    }
}

/// Iterator over [`Segment`]s.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    loads: &'a [ProgramHeader],
    at: usize,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(loads: &'a [ProgramHeader]) -> Self {
        Self { loads, at: 0 }
    }

    /// The segment of memory that begins at an address: these ascend.
    #[must_use]
    pub fn at(&self, addr: u64) -> Option<Segment> {
        let index = self.loads.binary_search_by_key(&addr, |ph| ph.p_vaddr).ok()?;
        self.get(index)
    }

    /// The segment with this index, without walking.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Segment> {
        self.loads.get(index).map(Segment::new)
    }
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let segment = self.get(self.at)?;
        self.at += 1;
        Some(segment)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.loads.len().saturating_sub(self.at);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Segments<'_> {}
