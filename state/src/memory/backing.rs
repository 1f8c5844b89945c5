//! The files behind mappings, each once.

use image_format::record::Identity;
use image_format::record::memory::{Backing, BackingFlags};
use image_format::writer::Full;

use super::{Head, refuse};
use crate::content::{Contents, Object};
use crate::index::Index;
use crate::regular::identity;
use crate::{Result, Save, Scratch, Target};

/// The files behind the mappings so far.
pub struct Backings<'t, 'b> {
    table: &'t mut [Backing],
    /// How many there are.
    pub count: usize,
    /// By inode.
    index: Index<'b>,
}

impl<'t, 'b> Backings<'t, 'b> {
    /// None yet, with room for as many as the table is long.
    ///
    /// # Errors
    /// No room.
    pub fn new(scratch: &mut Scratch<'b>, table: &'t mut [Backing]) -> Result<Self, Full> {
        let index = Index::new(scratch, table.len())?;
        Ok(Self { table, count: 0, index })
    }

    /// Those that are there.
    pub fn as_slice(&self) -> &[Backing] {
        self.table.get(..self.count).unwrap_or_default()
    }

    /// The last one of this inode for which `is_it` holds.
    fn find(&self, ino: u64, is_it: impl Fn(&Backing) -> bool) -> Option<usize> {
        let holds = |at: &usize| self.table.get(*at).is_some_and(|b| b.identity.ino.get() == ino && is_it(b));
        self.index.under(ino).find(holds)
    }

    fn add(&mut self, backing: Backing) -> Result<usize, Full> {
        *self.table.get_mut(self.count).ok_or(Full)? = backing;
        self.index.put(backing.identity.ino.get(), self.count)?;
        self.count += 1;
        Ok(self.count - 1)
    }
}

/// The same file, open for writing: an entry of its own, as what is mapped from a descriptor that was open for
/// reading must never become writable.
pub fn writable(index: usize, backings: &mut Backings<'_, '_>) -> Result<usize> {
    let written = BackingFlags::WRITTEN.bits();
    let Some(plain) = backings.as_slice().get(index).copied() else { return Ok(index) };
    let same = |b: &Backing| b.identity == plain.identity && b.path == plain.path && b.flags.get() & written != 0;
    if let Some(found) = backings.find(plain.identity.ino.get(), same) {
        return Ok(found);
    }
    Ok(backings.add(Backing { flags: (plain.flags.get() | written).into(), ..plain })?)
}

/// The index of the io_uring instance behind a mapping: its id in the place of contents. All that is mapped of it may be written.
pub fn ring<T: Target>(
    save: &mut Save<'_, '_, T>,
    ino: u64,
    id: u32,
    backings: &mut Backings<'_, '_>,
) -> Result<usize> {
    let flags = BackingFlags::RING | BackingFlags::WRITTEN;
    let is_it = |b: &Backing| b.flags.get() == flags.bits() && b.content.get() == id;
    if let Some(found) = backings.find(ino, is_it) {
        return Ok(found);
    }
    let identity = Identity { ino: ino.into(), ..Identity::default() };
    let path = save.notes.string(super::RING)?;
    Ok(backings.add(Backing { path, identity, flags: flags.bits().into(), content: id.into() })?)
}

/// The index of the file behind a mapping, entered into the table when it is new.
pub fn backing<T: Target>(
    save: &mut Save<'_, '_, T>,
    head: &Head<'_>,
    (shared, deleted, held): (bool, bool, Option<&Object>),
    backings: &mut Backings<'_, '_>,
    contents: &Contents<'_>,
) -> Result<usize> {
    let dev = head.dev;
    let written = BackingFlags::WRITTEN.bits();
    let same = |b: &Backing| b.content.get() == dev as u32 && b.flags.get() & written == 0;
    if let Some(found) = backings.find(head.ino, same) {
        return Ok(found);
    }
    let path = head.name.strip_suffix(b" (deleted)").unwrap_or(head.name);
    let mut flags = BackingFlags::empty();
    let mut id = Identity { dev: dev.into(), ino: head.ino.into(), ..Identity::default() };
    let carried = if shared { contents.named_behind(dev, head.ino, head.name) } else { None };
    match sys::fs::stat_path(path) {
        // What is carried is what it was in the pause: its name, too.
        _ if carried.is_some() => id = carried.map_or(id, Object::identity),
        _ if held.is_some() => {
            flags |= BackingFlags::CONTENT;
            id = held.map_or(id, Object::identity);
        }
        // File systems with subvolumes give another st_dev to stat(2) than to maps; the inode must be the same.
        Ok(stat) if stat.ino == head.ino && !deleted => {
            if stat.mode & sys::abi::S_IFMT != sys::abi::S_IFREG {
                return Err(refuse(head.start, head.end, head.name, "a device's memory"));
            }
            id = contents.named(stat.dev, stat.ino).map_or_else(|| identity(&stat), Object::identity);
        }
        _ if shared => return Err(refuse(head.start, head.end, head.name, "a shared mapping of a file that is gone")),
        _ => flags |= BackingFlags::GONE,
    }
    let path = carried.map_or_else(|| save.notes.string(path), |object| Ok(object.name))?;
    // `content` remembers the device as maps prints it while the table is built.
    Ok(backings.add(Backing { path, identity: id, flags: flags.bits().into(), content: (dev as u32).into() })?)
}
