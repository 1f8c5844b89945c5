//! The records of a table, one after the other: a walk that needs no count of them, which would be a division.

use core::marker::PhantomData;

use crate::Record;
use crate::word::word;

/// Iterator over the records of one table.
#[derive(Clone, Debug)]
pub struct Rows<'a, R> {
    rest: &'a [u8],
    kind: PhantomData<&'a R>,
}

impl<'a, R> Rows<'a, R> {
    pub(crate) fn new(table: &'a [u8]) -> Self {
        Self { rest: table, kind: PhantomData }
    }
}

impl<'a, R: Record> Rows<'a, R> {
    /// Of records that ascend by the number that each begins with: those with this one.
    pub fn with(mut self, number: u32) -> impl Iterator<Item = &'a R> {
        (_, self.rest) = from(self.rest, size_of::<R>(), number);
        self.take_while(move |row| word(row.as_bytes(), 0) == number)
    }

    /// Of such records the place of the first one with this number.
    #[must_use]
    pub fn place(self, number: u32) -> Option<usize> {
        let (place, rest) = from(self.rest, size_of::<R>(), number);
        (word(rest, 0) == number && !rest.is_empty()).then_some(place)
    }
}

/// The place of the first row that begins with this number or a greater one, and all from there on.
#[inline(never)]
fn from(table: &[u8], row: usize, number: u32) -> (usize, &[u8]) {
    let behind = |place: usize| table.get(place.saturating_mul(row)..).unwrap_or_default();
    let (mut low, mut high) = (0, table.len().checked_div(row).unwrap_or(0));
    while low < high {
        let middle = low.midpoint(high);
        if word(behind(middle), 0) < number {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    (low, behind(low))
}

impl<'a, R: Record> Iterator for Rows<'a, R> {
    type Item = &'a R;

    fn next(&mut self) -> Option<&'a R> {
        let (row, rest) = R::ref_from_prefix(self.rest).ok()?;
        self.rest = rest;
        Some(row)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rest.len() / size_of::<R>();
        (left, Some(left))
    }
}

impl<R: Record> ExactSizeIterator for Rows<'_, R> {}
