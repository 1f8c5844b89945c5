//! Which descriptors share one open file description.
//!
//! The kernel tells of two at a time. Must never ask about each pair: descriptors that look alike are sorted by the kernel's own order.

use core::cmp::Ordering;

use sys::abi::S_IFMT;
use sys::fs::Fd;

use super::OpenFile;
use crate::{Error, Object, Result, Save, Target};

/// Gives each descriptor the id of the first one of its description. `table` ascends by number.
///
/// # Errors
/// Descriptors that cannot be told apart; no room.
pub(super) fn group<'b, T: Target>(save: &mut Save<'_, 'b, T>, table: &mut [OpenFile]) -> Result<()> {
    let order = save.scratch.take::<u32>(table.len())?;
    let spare = save.scratch.take::<u32>(table.len())?;
    (0..).zip(&mut *order).for_each(|(index, place)| *place = index);
    let look =
        |table: &[OpenFile], index: u32| table.get(index as usize).map(|f| (f.dev, f.ino, f.mode, f.flags, f.offset));
    sort(order, spare, |a, b| look(table, a).cmp(&look(table, b)));
    let mut rest = order;
    while let Some(first) = rest.first().map(|first| look(table, *first)) {
        let len = rest.iter().take_while(|index| look(table, **index) == first).count();
        let (alike, others) = rest.split_at_mut(len);
        if len > 1 {
            tell_apart(save, table, alike, spare.get_mut(..len).unwrap_or_default())?;
        }
        rest = others;
    }
    Ok(())
}

/// Descriptors that look alike, by ascending indices.
fn tell_apart<T: Target>(
    save: &mut Save<'_, '_, T>,
    table: &mut [OpenFile],
    alike: &mut [u32],
    spare: &mut [u32],
) -> Result<()> {
    let fd = |table: &[OpenFile], index: u32| table.get(index as usize).map_or(-1, |file| file.fd as Fd);
    let (target, mut told) = (&*save.target, true);
    sort(alike, spare, |a, b| {
        let order = if told { target.order_of_descriptions(fd(table, a), fd(table, b)) } else { None };
        told = order.is_some();
        order.unwrap_or(Ordering::Equal)
    });
    if told {
        // The first of equal ones has stayed the first.
        let mut first = None;
        for index in alike {
            let own = fd(table, *index);
            let same = first.filter(|first| target.order_of_descriptions(*first, own) == Some(Ordering::Equal));
            first = same.or(Some(own));
            if let (Some(file), Some(id)) = (table.get_mut(*index as usize), same) {
                file.id = id as u32;
            }
        }
        return Ok(());
    }
    alike.sort_unstable();
    for (place, index) in alike.iter().enumerate() {
        let before = alike.iter().take(place).filter_map(|index| table.get(*index as usize));
        let Some(file) = table.get(*index as usize) else { continue };
        let mut same = None;
        for first in before.filter(|first| first.id == first.fd) {
            match target.same_description(first.fd as Fd, file.fd as Fd) {
                Some(false) => continue,
                // What looks shared is taken for shared, as duplicates are the rule; but these all look the same.
                None if file.mode & S_IFMT == 0 && !target.shows_descriptors() => continue,
                None if file.mode & S_IFMT == 0 => {
                    return save.target.blocked(Error::refused(
                        Object::Descriptors([(first.fd, None), (file.fd, None)]),
                        "cannot be told apart, as the kernel forbids kcmp(2)",
                        "allow it, or use Linux 6.10 or newer",
                    ));
                }
                Some(true) | None => same = Some(first.fd),
            }
            break;
        }
        if let (Some(file), Some(id)) = (table.get_mut(*index as usize), same) {
            file.id = id;
        }
    }
    Ok(())
}

/// The first descriptors of all descriptions, in the kernel's order; none when it does not tell.
pub(super) fn sorted<'b, T: Target>(save: &mut Save<'_, 'b, T>, files: &[OpenFile]) -> Result<&'b [u32]> {
    let firsts = || files.iter().filter(|file| file.id == file.fd);
    let all = save.scratch.take::<u32>(firsts().count())?;
    let spare = save.scratch.take::<u32>(all.len())?;
    all.iter_mut().zip(firsts()).for_each(|(place, file)| *place = file.fd);
    let mut told = true;
    sort(all, spare, |a, b| {
        let order = save.target.order_of_descriptions(a as Fd, b as Fd).filter(|_| told);
        told = order.is_some();
        order.unwrap_or(Ordering::Equal)
    });
    Ok(if told { all } else { &[] })
}

/// Sorts; equal ones keep their order. The library's own sort may panic when the order contradicts itself, as that of a process does
/// which runs meanwhile.
fn sort(items: &mut [u32], spare: &mut [u32], mut order: impl FnMut(u32, u32) -> Ordering) {
    let mut width = 1;
    while width < items.len() {
        for (pair, to) in items.chunks(2 * width).zip(spare.chunks_mut(2 * width)) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            for place in to {
                let from = match (left.first(), right.first()) {
                    (Some(a), Some(b)) if order(*a, *b) == Ordering::Greater => &mut right,
                    (Some(_), _) => &mut left,
                    (None, _) => &mut right,
                };
                let Some((first, rest)) = from.split_first() else { break };
                (*place, *from) = (*first, rest);
            }
        }
        items.copy_from_slice(spare.get(..items.len()).unwrap_or_default());
        width *= 2;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn sorts_and_keeps_the_order_of_equals() {
        for len in [0usize, 1, 2, 3, 7, 64, 1000] {
            let key = |n: u32| n.wrapping_mul(2_654_435_761) >> 28;
            let mut items: Vec<u32> = (0..len as u32).collect();
            let mut expected = items.clone();
            expected.sort_by_key(|n| key(*n));
            sort(&mut items, &mut std::vec![0; len], |a, b| key(a).cmp(&key(b)));
            assert_eq!(items, expected);
        }
    }

    #[test]
    fn a_contradictory_order_does_no_harm() {
        let mut items: Vec<u32> = (0..500).collect();
        let mut state = 1u32;
        sort(&mut items, &mut [0; 500], |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 16 & 1 == 0 { Ordering::Less } else { Ordering::Greater }
        });
        items.sort_unstable();
        assert!(items.iter().copied().eq(0..500));
    }
}
