//! Which descriptors are of one open file description (kcmp(2) and its like). Must never guess: the kernel tells, or not.

use core::cmp::Ordering;

use super::{Fd, arg, fcntl};
use crate::{Sysno, abi, call};

/// Whether two descriptors share one open file description. `None` when the kernel does not tell.
#[must_use]
pub fn same_description(pid: i32, a: Fd, b: Fd) -> Option<bool> {
    // F_DUPFD_QUERY (Linux 6.10) needs no kcmp, which container profiles forbid.
    if let Ok(n @ (0 | 1)) = fcntl(a, abi::F_DUPFD_QUERY, arg(b)) {
        return Some(n == 1);
    }
    same_description_in(pid, a, b)
}

/// As [`same_description`], of another process.
#[must_use]
pub fn same_description_in(pid: i32, a: Fd, b: Fd) -> Option<bool> {
    same_description_between((pid, a), (pid, b))
}

/// As [`same_description`], of descriptors of two processes.
#[must_use]
pub fn same_description_between(a: (i32, Fd), b: (i32, Fd)) -> Option<bool> {
    compare(a, b).map(|n| n == 0)
}

/// Which of two descriptors' open file descriptions comes first in an order that holds for all of them. `None` when the kernel does not
/// tell.
#[must_use]
pub fn order_of_descriptions(a: (i32, Fd), b: (i32, Fd)) -> Option<Ordering> {
    order(compare(a, b)?)
}

/// What kcmp(2) says, as an order.
pub(super) const fn order(told: usize) -> Option<Ordering> {
    match told {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ => None,
    }
}

/// kcmp(2): 0 for the same description, 1 and 2 for an order, 3 for different ones without an order.
fn compare(a: (i32, Fd), b: (i32, Fd)) -> Option<usize> {
    // SAFETY: compares kernel pointers, touches no memory.
    unsafe { call(Sysno::kcmp, [a.0 as usize, b.0 as usize, abi::KCMP_FILE, arg(a.1), arg(b.1)]) }.ok()
}
