//! The shared mappings of a process, one after the other.
//!
//! Must cost nothing where there are none: most processes share nothing, and some have very many mappings.

use image_format::record::content::ContentKind;
use sys::text::Text;

use super::{Head, LINE_MAX, head};
use crate::content::{DELETED, kind_of};
use crate::regular::other_name;
use crate::{Error, Result, Save, Target};

/// As [`each`], for one process of a tree after the other.
///
/// # Errors
/// As there.
pub fn each_of_all<'b, T: Target>(
    save: &mut Save<'_, 'b, T>,
    mut f: impl FnMut(&mut Save<'_, 'b, T>, &Head<'_>) -> Result<()>,
) -> Result<()> {
    for place in (0..save.target.processes()).rev() {
        save.target.enter(place);
        each(save, &mut f)?;
    }
    Ok(())
}

/// Calls `f` for each shared mapping, ascending.
///
/// # Errors
/// They cannot be read, or what `f` returns.
pub fn each<'b, T: Target>(
    save: &mut Save<'_, 'b, T>,
    mut f: impl FnMut(&mut Save<'_, 'b, T>, &Head<'_>) -> Result<()>,
) -> Result<()> {
    if !save.target.shares_any() {
        return Ok(());
    }
    let failed = |e| Error::failed(format_args!("mappings"), "/proc/PID/maps cannot be read", e);
    let mut buffer = [0; LINE_MAX];
    let mut lines = sys::fs::Lines::open_at(save.target.proc(), c"maps", &mut buffer).map_err(failed)?;
    while let Some(line) = lines.next_line().map_err(failed)? {
        if let Some(head) = head(line).filter(|head| head.perms.last() == Some(&b's')) {
            let mut to = Text::new();
            f(save, &renamed(head, &mut to))?;
        }
    }
    Ok(())
}

/// A shared mapping of a file that was deleted under the name by which it was mapped, and has another one in the same directory: by that
/// one. Named semaphores are made so: mapped, linked to their name, and the first one deleted.
pub fn renamed<'t>(head: Head<'t>, to: &'t mut Text<4128>) -> Head<'t> {
    if !head.name.ends_with(DELETED)
        || kind_of(head.name.strip_suffix(DELETED).unwrap_or_default()) != ContentKind::Deleted
    {
        return head;
    }
    other_name(head.dev, head.ino, head.name, to).map_or(head, |name| Head { name, ..head })
}
