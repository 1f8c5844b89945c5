//! The shared mappings of a process, one after the other.
//!
//! Must cost nothing where there are none: most processes share nothing, and some have very many mappings.

use super::{Head, LINE_MAX, head};
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
            f(save, &head)?;
        }
    }
    Ok(())
}
