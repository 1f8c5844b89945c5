//! Ids without any right: the kernel deals them in turn, so that using them up reaches each that is free and lies ahead.
//!
//! Must never go on beyond its deadline, nor keep what it has used up.

use sys::abi::CLOCK_MONOTONIC;
use sys::text::Line;
use sys::{Errno, Result};

use crate::start::tell;

/// The moment at which counting ends, on CLOCK_MONOTONIC in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub u64);

impl Deadline {
    /// In so many nanoseconds from now.
    pub fn within(nanoseconds: u64) -> Self {
        Self(sys::time::nanoseconds(CLOCK_MONOTONIC).saturating_add(nanoseconds))
    }

    /// Whether there is one.
    pub const fn is_set(self) -> bool {
        self.0 != u64::MAX
    }

    fn is_over(self) -> bool {
        sys::time::nanoseconds(CLOCK_MONOTONIC) > self.0
    }
}

/// Makes a task that has this id: counts up to it, and calls `make`, which returns the id of what it has made. When somebody else was faster it is
/// undone by `undo`, and counting goes on, a whole turn if need be. `last`: the id that was dealt last, as far as that is known.
///
/// # Errors
/// ETIMEDOUT; those of `make`.
pub fn make_with_id(
    id: u32,
    mut last: Option<u32>,
    deadline: Deadline,
    mut make: impl FnMut() -> Result<i32>,
    mut undo: impl FnMut(i32),
) -> Result<()> {
    loop {
        if !last.take().is_some_and(|last| is_next(id, last)) {
            reach(id, deadline)?;
        }
        let made = make()?;
        if made.cast_unsigned() == id {
            return Ok(());
        }
        undo(made);
        if deadline.is_over() {
            return Err(Errno::ETIMEDOUT);
        }
    }
}

/// Whether this id comes next behind the one that was dealt last: all between are taken.
fn is_next(id: u32, last: u32) -> bool {
    let is_free = |id: u32| sys::process::kill(id.cast_signed(), 0) == Err(Errno::ESRCH);
    id > last && (last + 1..id).all(|between| !is_free(between))
}

/// Uses ids up until this one comes next.
fn reach(id: u32, deadline: Deadline) -> Result<()> {
    /// How often it is said how far counting has come, in nanoseconds.
    const SAID_EVERY: u64 = 2_000_000_000;
    let mut say = sys::time::nanoseconds(CLOCK_MONOTONIC) + SAID_EVERY;
    /// Ids that are used up until the deadline is looked at.
    const STEP: u32 = 1024;
    loop {
        let last = sys::thread::next_id()?.cast_unsigned();
        // Beyond it a whole turn is to be made.
        let ahead = id.checked_sub(last).unwrap_or(STEP * 2);
        if ahead < STEP && is_next(id, last) {
            return Ok(());
        }
        if deadline.is_over() {
            return Err(Errno::ETIMEDOUT);
        }
        if sys::time::nanoseconds(CLOCK_MONOTONIC) > say {
            say += SAID_EVERY;
            let id = Line::filled("process id #", id.into(), b"", 0);
            tell(2, "@: counting, # now", last.into(), id.as_bytes(), 0);
        }
        // Half of the way, and one more by the question: where ids between are taken, each step goes further.
        for _ in 0..((ahead - 1) / 2).min(STEP) {
            sys::thread::use_up_id()?;
        }
    }
}
