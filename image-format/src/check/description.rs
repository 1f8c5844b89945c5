//! Open file descriptions of all kinds, seen as one: id and path, in tables that ascend by id.
//!
//! Must never believe that a table ascends before [`super::records`] has found so: lookups are binary searches.

use core::cmp::Ordering;
use core::mem::offset_of;

use crate::record::content::ContentFile;
use crate::record::device::Device;
use crate::record::directory::Directory;
use crate::record::epoll::Epoll;
use crate::record::eventfd::Eventfd;
use crate::record::header::Features;
use crate::record::inotify::Inotify;
use crate::record::io_uring::IoUring;
use crate::record::pidfd::Pidfd;
use crate::record::pipe::Pipe;
use crate::record::pty::Pty;
use crate::record::regular::Regular;
use crate::record::signalfd::Signalfd;
use crate::record::size_of_type;
use crate::record::socket::Socket;
use crate::record::terminal::Terminal;
use crate::record::timerfd::Timerfd;
use crate::word::word;
use crate::{Image, NoteType, Record};

/// A kind of open file description. Each record begins with its id and its `O_*` flags.
pub(crate) struct Kind {
    pub(crate) note: NoteType,
    /// Where its path lies in the record; 0 when it has none.
    pub(super) path: u8,
    /// Where the word lies that tells, by 1, that the path must begin with `/`; 0 when it always must.
    pub(super) named: u8,
    /// What the header must require.
    pub(super) needs: Features,
}

/// All kinds, regular files first.
pub(crate) static KINDS: [Kind; 15] = [
    Kind::of::<Regular>(offset_of!(Regular, path)),
    Kind::of::<Directory>(offset_of!(Directory, path)),
    Kind::of::<Device>(offset_of!(Device, path)),
    Kind { named: offset_of!(Pipe, named) as u8, ..Kind::of::<Pipe>(offset_of!(Pipe, path)) },
    Kind::of::<Terminal>(offset_of!(Terminal, path)),
    Kind {
        named: offset_of!(Socket, reserved) as u8,
        needs: Features::SOCKETS,
        ..Kind::of::<Socket>(offset_of!(Socket, name))
    },
    Kind { needs: Features::PTYS, ..Kind::of::<Pty>(offset_of!(Pty, path)) },
    Kind::pathless::<ContentFile>(Features::CONTENTS),
    Kind::pathless::<Eventfd>(Features::EVENTS),
    Kind::pathless::<Timerfd>(Features::EVENTS),
    Kind::pathless::<Signalfd>(Features::EVENTS),
    Kind::pathless::<Inotify>(Features::NOTICES),
    Kind::pathless::<Pidfd>(Features::NOTICES),
    Kind::pathless::<Epoll>(Features::EVENTS),
    Kind::pathless::<IoUring>(Features::RINGS),
];

impl Kind {
    const fn of<R: Record>(path: usize) -> Self {
        Self { note: R::TYPE, path: path as u8, named: 0, needs: Features::empty() }
    }

    const fn pathless<R: Record>(needs: Features) -> Self {
        Self { needs, ..Self::of::<R>(0) }
    }
}

/// A table of one kind, ascending by id. Seen without its type, so that the rules for all kinds exist once.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    bytes: &'a [u8],
    /// Bytes of a record.
    size: usize,
    /// Records.
    count: usize,
    pub(super) kind: &'static Kind,
}

impl<'a> Table<'a> {
    pub(crate) fn of(image: &Image<'a>, kind: &'static Kind) -> Self {
        let (bytes, size) =
            (image.contents(kind.note.number()), size_of_type(kind.note as u32).map_or(1, |(size, _)| size));
        Self { bytes, size, count: bytes.len().checked_div(size).unwrap_or(0), kind }
    }

    fn at(&self, index: usize) -> Option<&'a [u8]> {
        self.bytes.get(index * self.size..)?.get(..self.size)
    }

    /// Each record.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.count).map_while(|index| self.at(index))
    }

    /// The record with this id: a binary search.
    pub(crate) fn find(&self, id: u32) -> Option<&'a [u8]> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let found = self.at(middle)?;
            match word(found, 0).cmp(&id) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some(found),
                Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// All tables of open file descriptions.
pub(super) struct Files<'a>([Table<'a>; KINDS.len()]);

impl<'a> Files<'a> {
    #[allow(clippy::indexing_slicing, reason = "by the compiler, which would say so")]
    pub(super) fn of(image: &Image<'a>) -> Self {
        let mut files = [Table::of(image, &KINDS[0]); KINDS.len()];
        for (table, kind) in files.iter_mut().zip(&KINDS) {
            *table = Table::of(image, kind);
        }
        Self(files)
    }

    /// Each table.
    pub(super) fn tables(&self) -> &[Table<'a>] {
        &self.0
    }

    /// The record of this kind with this id.
    #[inline(never)]
    pub(super) fn find(&self, kind: NoteType, id: u32) -> Option<&'a [u8]> {
        self.0.iter().find(|table| table.kind.note == kind)?.find(id)
    }

    /// Whether there is one.
    pub(super) fn has(&self, kind: NoteType, id: u32) -> bool {
        self.find(kind, id).is_some()
    }

    /// How many tables know an id: one, in a sound image.
    #[inline(never)]
    pub(super) fn holders(&self, id: u32) -> usize {
        self.0.iter().filter(|table| table.find(id).is_some()).count()
    }
}
