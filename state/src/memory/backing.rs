//! The files behind mappings, each once.

use image_format::record::Identity;
use image_format::record::memory::{Backing, BackingFlags};

use super::{Head, refuse};
use crate::content::{Contents, Object};
use crate::regular::identity;
use crate::{Result, Save, Target};

/// The same file, open for writing: an entry of its own, as what is mapped from a descriptor that was open for
/// reading must never become writable.
pub fn writable(index: usize, backings: &mut [Backing], files: &mut usize) -> Result<usize> {
    let known = backings.get(..*files).unwrap_or_default();
    let written = BackingFlags::WRITTEN.bits();
    let Some(plain) = known.get(index).copied() else { return Ok(index) };
    let same = |b: &Backing| b.identity == plain.identity && b.path == plain.path && b.flags.get() & written != 0;
    if let Some(found) = known.iter().position(same) {
        return Ok(found);
    }
    *backings.get_mut(*files).ok_or(image_format::writer::Full)? =
        Backing { flags: (plain.flags.get() | written).into(), ..plain };
    *files += 1;
    Ok(*files - 1)
}

/// The index of the file behind a mapping, entered into the table when it is new.
pub fn backing<T: Target>(
    save: &mut Save<'_, '_, T>,
    head: &Head<'_>,
    (shared, deleted, held): (bool, bool, Option<&Object>),
    backings: &mut [Backing],
    files: &mut usize,
    contents: &Contents<'_>,
) -> Result<usize> {
    let dev = head.dev;
    let known = backings.get(..*files).unwrap_or_default();
    let written = BackingFlags::WRITTEN.bits();
    let same =
        |b: &Backing| b.identity.ino.get() == head.ino && b.content.get() == dev as u32 && b.flags.get() & written == 0;
    if let Some(found) = known.iter().rposition(same) {
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
    let slot = backings.get_mut(*files).ok_or(image_format::writer::Full)?;
    let path = carried.map_or_else(|| save.notes.string(path), |object| Ok(object.name))?;
    // `content` remembers the device as maps prints it while the table is built.
    *slot = Backing { path, identity: id, flags: flags.bits().into(), content: (dev as u32).into() };
    *files += 1;
    Ok(*files - 1)
}
