//! A checked image: the type that says that every rule of the format holds, so that reading cannot fail any more.
//!
//! Must never be made without the checks: [`Checked::new`] runs them, [`Checked::again`] is for a copy of one that was.

use crate::check::description::{KINDS, Kind, Table};
use crate::check::records;
use crate::record::content::Content;
use crate::record::frame::Frame;
use crate::record::header::Header;
use crate::rows::Rows;
use crate::segment::{Segment, Segments};
use crate::word::word;
use crate::{Fault, Image, NoteType, Record, StrRef};
use zerocopy::little_endian::U64;

/// An image whose every record was checked: what follows can read it without asking again.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a>(Image<'a>, Renames<'a>);

/// Other beginnings of paths: what the image says is found elsewhere here.
#[derive(Clone, Copy, Debug)]
pub struct Renames<'a> {
    /// Old and new ones; the first that fits counts.
    pub pairs: &'a [Option<(&'a [u8], &'a [u8])>],
    /// Room for a new path.
    pub room: fn(usize) -> &'a mut [u8],
}

impl Renames<'_> {
    /// None.
    pub const NONE: Self = Self { pairs: &[], room: |_| &mut [] };
}

impl<'a> Checked<'a> {
    /// Checks an image whose seal was checked.
    ///
    /// # Errors
    /// As [`records`].
    pub fn new(image: Image<'a>) -> Result<Self, Fault> {
        records(&image).map(|()| Self(image, Renames::NONE))
    }

    /// The same image, whose paths begin otherwise.
    #[must_use]
    pub fn renamed(self, renames: Renames<'a>) -> Self {
        Self(self.0, renames)
    }

    /// The same image in a copy of its prefix: checked before, so that only the headers are looked at again.
    ///
    /// # Errors
    /// The copy is not one.
    pub fn again(prefix: &'a [u8], file_len: u64) -> Result<Self, Fault> {
        Image::parse(prefix, file_len).map(|image| Self(image, Renames::NONE))
    }

    /// The image itself.
    #[must_use]
    pub fn image(&self) -> &Image<'a> {
        &self.0
    }

    /// Each record of one type.
    #[must_use]
    pub fn each<R: Record>(&self) -> Rows<'a, R> {
        self.0.each()
    }

    /// All records of one type, for whoever needs them by their places: dearer than [`Checked::each`].
    #[must_use]
    pub fn table<R: Record>(&self) -> &'a [R] {
        self.0.rows()
    }

    /// The record of a type that an image has exactly one of.
    #[must_use]
    pub fn single<R: Record>(&self) -> R {
        self.each().next().copied().unwrap_or_else(R::new_zeroed)
    }

    /// The header record.
    #[must_use]
    pub fn header(&self) -> &'a Header {
        self.0.header()
    }

    /// The full frame of the thread at this place in their table, when the image has full frames.
    #[must_use]
    pub fn frame(&self, thread: usize) -> Option<&'a Frame> {
        self.table().get(thread)
    }

    /// The bytes of a frame's XSAVE area; empty when it has none.
    #[must_use]
    pub fn xstate(&self, frame: &Frame) -> &'a [u8] {
        self.0.xstate(frame).unwrap_or_default()
    }

    /// The bytes that a reference means.
    #[must_use]
    #[inline(never)]
    pub fn string(&self, reference: StrRef) -> &'a [u8] {
        self.rename(self.0.string(reference).unwrap_or_default(), 0)
    }

    /// Bytes in which a path begins at `at`, and ends at the end or at a NUL, with the path that it has here.
    #[must_use]
    pub fn rename(&self, bytes: &'a [u8], at: usize) -> &'a [u8] {
        for (old, new) in self.1.pairs.iter().flatten() {
            let end = at + old.len();
            let fits = bytes.get(at..end) == Some(old) && matches!(bytes.get(end), None | Some(b'/' | 0));
            if fits {
                let room = (self.1.room)(bytes.len() - old.len() + new.len());
                let (lead, rest) = (bytes.get(..at).unwrap_or_default(), bytes.get(end..).unwrap_or_default());
                let mut to = room.iter_mut();
                for part in [lead, new, rest] {
                    part.iter().zip(&mut to).for_each(|(from, to)| *to = *from);
                }
                return room;
            }
        }
        bytes
    }

    /// The bytes that a reference means, any bytes.
    #[must_use]
    pub fn contents(&self, reference: StrRef) -> &'a [u8] {
        self.0.bytes(reference).unwrap_or_default()
    }

    /// The open file description with this id.
    #[must_use]
    #[inline(never)]
    pub fn open_file(&self, id: u32) -> Option<OpenFile<'a>> {
        let find = |kind: &'static Kind| {
            let record = Table::of(&self.0, kind).find(id)?;
            Some(OpenFile { kind: kind.note, record })
        };
        KINDS.iter().find_map(find)
    }

    /// The image of the process at this place of the tree, as the root's image tells it: where it lies and the checksum of its seal.
    #[must_use]
    pub fn member(&self, place: usize, sums: &[U64]) -> Option<(Segment, u64)> {
        let at = place.checked_sub(1)?;
        let before = self.0.segments().len() + self.0.content_segments().len();
        Some((self.processes().get(at)?, sums.get(before + at)?.get()))
    }

    /// The contents of the first note of this owner and type; empty when there is none.
    #[must_use]
    pub fn note_of(&self, owner: &[u8], kind: u32) -> &'a [u8] {
        self.0.note_of(owner, kind).unwrap_or_default()
    }

    /// Runs of saved pages, ascending.
    #[must_use]
    pub fn segments(&self) -> Segments<'a> {
        self.0.segments()
    }

    /// The images of the tree's other processes.
    #[must_use]
    pub fn processes(&self) -> Segments<'a> {
        self.0.processes()
    }

    /// The segments of contents, in the order of the table.
    #[must_use]
    pub fn content_segments(&self) -> Segments<'a> {
        self.0.content_segments()
    }

    /// Those of these contents.
    #[must_use]
    pub fn segments_of(&self, content: &Content) -> Segments<'a> {
        self.0.segments_of(content)
    }
}

/// An open file description of any kind.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile<'a> {
    /// The type of its note.
    pub kind: NoteType,
    record: &'a [u8],
}

impl<'a> OpenFile<'a> {
    /// Its record, when it is of this kind.
    #[must_use]
    pub fn of<R: Record>(&self) -> Option<&'a R> {
        if self.kind == R::TYPE { R::ref_from_bytes(self.record).ok() } else { None }
    }

    /// Its `O_*` flags.
    #[must_use]
    pub fn flags(&self) -> u32 {
        word(self.record, 4)
    }
}
