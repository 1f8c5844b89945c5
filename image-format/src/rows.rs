//! The records of a table, one after the other: a walk that needs no count of them, which would be a division.

use core::marker::PhantomData;

use crate::Record;

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
