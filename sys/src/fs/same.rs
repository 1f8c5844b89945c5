//! Which descriptors are of one open file description (kcmp(2) and its like). Must never guess: the kernel tells, or not.

use core::cmp::Ordering;

use super::{Fd, arg, dup_to, duplicate, epoll, epoll_control, fcntl, fstat};
use crate::{Errno, Sysno, abi, call};

/// Whether two descriptors share one open file description. `None` when the kernel does not tell.
#[must_use]
pub fn same_description(pid: i32, a: Fd, b: Fd) -> Option<bool> {
    same_own(a, b).or_else(|| same_description_in(pid, a, b))
}

/// As [`same_description`], without kcmp(2), which container profiles forbid: by `F_DUPFD_QUERY` (Linux 6.10), or what does for it.
#[must_use]
pub fn same_own(a: Fd, b: Fd) -> Option<bool> {
    let asked = fcntl(a, abi::F_DUPFD_QUERY, arg(b)).ok().filter(|n| *n <= 1).map(|n| n == 1);
    asked.or_else(|| same_watched(a, b)).or_else(|| same_marked(a, b))
}

/// A set of epoll(7) knows what it watches by open file description and number (fs/eventpoll.c, `ep_find`): a second one under the same number is there
/// already, or is not. `None`: of a kind that cannot be watched.
fn same_watched(a: Fd, b: Fd) -> Option<bool> {
    let (set, own) = (epoll().ok()?, duplicate(a).ok()?);
    let add = || epoll_control(set.fd(), abi::EPOLL_CTL_ADD, own.fd(), 0, 0);
    add().ok()?;
    // SAFETY: the number is this function's own.
    unsafe { dup_to(b, own.fd(), true) }.ok()?;
    match add() {
        Ok(()) => Some(false),
        Err(Errno::EEXIST) => Some(true),
        Err(_) => None,
    }
}

/// What cannot be watched has no news: a regular file's signal for that is never sent, but by one that has a lease, and can be another for a moment.
/// `None`: it is none.
fn same_marked(a: Fd, b: Fd) -> Option<bool> {
    const MARKS: [usize; 2] = [63, 64];
    const UNLOCKED: usize = 2;
    let is_plain = |fd| fstat(fd).is_ok_and(|stat| stat.mode & abi::S_IFMT == abi::S_IFREG);
    let signal = |fd| fcntl(fd, abi::F_GETSIG, 0).ok();
    if !is_plain(a) || !is_plain(b) || fcntl(a, abi::F_GETLEASE, 0) != Ok(UNLOCKED) {
        return None;
    }
    let before = signal(a)?;
    if signal(b)? != before {
        return Some(false);
    }
    let mark = MARKS.into_iter().find(|mark| *mark != before)?;
    fcntl(a, abi::F_SETSIG, mark).ok()?;
    let marked = signal(b);
    fcntl(a, abi::F_SETSIG, before).ok()?;
    marked.map(|signal| signal == mark)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_say_the_same() {
        let [a, other] = [(); 2].map(|()| crate::fs::open(c"/proc/self/exe", abi::O_RDONLY, 0).unwrap());
        let [end, second] = crate::fs::pipe(0).unwrap();
        let copies = [duplicate(a.fd()).unwrap(), duplicate(end.fd()).unwrap()];
        let [same_file, same_end] = [copies[0].fd(), copies[1].fd()];
        for way in [same_marked, same_own] {
            assert_eq!([way(a.fd(), same_file), way(a.fd(), other.fd())], [Some(true), Some(false)]);
        }
        for way in [same_watched, same_own] {
            assert_eq!([way(end.fd(), same_end), way(end.fd(), second.fd())], [Some(true), Some(false)]);
        }
        assert_eq!([same_watched(a.fd(), same_file), same_marked(end.fd(), same_end)], [None; 2]);
        assert_eq!(fcntl(a.fd(), abi::F_GETSIG, 0), Ok(0));
    }
}
