//! Segments: runs of saved pages, as the program headers tell of them.

use crate::elf::{PF_FILE_BYTES, ProgramHeader};

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
}

impl Segment {
    fn new(ph: &ProgramHeader) -> Self {
        Self { addr: ph.p_vaddr, len: ph.p_filesz, offset: ph.p_offset, file_bytes: ph.p_flags & PF_FILE_BYTES != 0 }
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
