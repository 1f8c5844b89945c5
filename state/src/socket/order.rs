//! Sockets in another order than the table's, to be found by a fact: looking through the whole table for each would take the square of
//! their number.

use core::cmp::Ordering;

use super::one::One;
use crate::{Result, Scratch};

/// Places in the table, ascending by some fact.
#[derive(Clone, Copy, Debug)]
pub struct Order<'b>(&'b [u32]);

/// Those of a table that `is` takes, by `key`.
///
/// # Errors
/// No room.
pub fn order_of<'b, K: Ord>(
    scratch: &mut Scratch<'b>,
    table: &[One],
    is: impl Fn(&One) -> bool,
    key: impl Fn(&One) -> K,
) -> Result<Order<'b>> {
    let places = || (0u32..).zip(table).filter(|(_, one)| is(one)).map(|(place, _)| place);
    let order = scratch.take::<u32>(places().count())?;
    for (to, place) in order.iter_mut().zip(places()) {
        *to = place;
    }
    order.sort_unstable_by_key(|place| (table.get(*place as usize).map(&key), *place));
    Ok(Order(order))
}

impl<'b> Order<'b> {
    /// All that `to` finds equal, in the order of the table; `to` compares one with what is sought.
    pub fn range<'t, F: Fn(&One) -> Ordering>(
        &self,
        table: &'t [One],
        to: F,
    ) -> impl Iterator<Item = &'t One> + use<'t, 'b, F> {
        self.places(table, to).filter_map(|place| table.get(place as usize))
    }

    /// The same, as places.
    pub fn places<'t, F: Fn(&One) -> Ordering>(
        &self,
        table: &'t [One],
        to: F,
    ) -> impl Iterator<Item = u32> + use<'t, 'b, F> {
        let at = move |place: u32| table.get(place as usize).map_or(Ordering::Greater, &to);
        let first = self.0.partition_point(|place| at(*place) == Ordering::Less);
        self.0.iter().skip(first).copied().take_while(move |place| at(*place) == Ordering::Equal)
    }

    /// The first of them.
    pub fn find(&self, table: &[One], to: impl Fn(&One) -> Ordering) -> Option<u32> {
        self.places(table, to).next()
    }

    /// All of them.
    pub fn as_slice(&self) -> &'b [u32] {
        self.0
    }
}
