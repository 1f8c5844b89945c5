//! Open file descriptions of all kinds, seen as one: id and path, in tables that ascend by id.
//!
//! Must never believe that a table ascends before [`super::records`] has found so: lookups are binary searches.

use core::cmp::Ordering;

use zerocopy::IntoBytes;

use crate::record::device::Device;
use crate::record::directory::Directory;
use crate::record::pipe::Pipe;
use crate::record::regular::Regular;
use crate::record::terminal::Terminal;
use crate::{Image, Record, StrRef};

/// What every open file description has.
pub(super) struct Description {
    /// Its id, which descriptors name.
    pub(super) id: u32,
    /// Its path or description.
    pub(super) path: StrRef,
    /// Whether the path must begin with `/`.
    pub(super) has_path: bool,
}

/// A kind of open file description. A new one implements this and joins [`Check::files`].
pub(super) trait Kind: Record {
    fn describe(&self) -> Description;
}

macro_rules! kinds_with_paths {
    ($($kind:ident),*) => { $(
        impl Kind for $kind {
            fn describe(&self) -> Description {
                Description { id: self.id.get(), path: self.path, has_path: true }
            }
        }
    )* };
}
kinds_with_paths!(Regular, Directory, Device, Terminal);

impl Kind for Pipe {
    fn describe(&self) -> Description {
        Description { id: self.id.get(), path: self.path, has_path: self.named.get() != 0 }
    }
}

/// A table of one kind, ascending by id. Seen without its type, so that the rules for all kinds exist once.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    /// Bytes of a record.
    size: usize,
    /// Records.
    count: usize,
    describe: fn(&[u8]) -> Option<Description>,
}

impl<'a> Table<'a> {
    pub(super) fn of<K: Kind + 'a>(image: &Image<'a>) -> Self {
        let rows = image.rows::<K>();
        Self {
            bytes: rows.as_bytes(),
            size: size_of::<K>(),
            count: rows.len(),
            describe: |bytes| K::ref_from_bytes(bytes).ok().map(K::describe),
        }
    }

    /// One record, as what all kinds have and as its bytes.
    fn at(&self, index: usize) -> Option<(Description, &'a [u8])> {
        let bytes = self.bytes.get(index * self.size..)?.get(..self.size)?;
        Some(((self.describe)(bytes)?, bytes))
    }

    /// Each record.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Description, &'a [u8])> {
        (0..self.count).map_while(|index| self.at(index))
    }

    /// Whether one of them has this id: a binary search.
    pub(super) fn holds(&self, id: u32) -> bool {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let Some((found, _)) = self.at(middle) else { break };
            match found.id.cmp(&id) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return true,
                Ordering::Greater => high = middle,
            }
        }
        false
    }
}

/// How many tables know an id: one, in a sound image.
pub(super) fn holders(files: &[Table<'_>], id: u32) -> usize {
    files.iter().filter(|table| table.holds(id)).count()
}
