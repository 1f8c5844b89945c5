//! Which process and thread ids a restarted program gets, and by which way.
//!
//! Ids are kept wherever they can be had: runtimes keep their own and compare them later. The ways are tried in this order: by right
//! (clone3(2) with `set_tid`), by counting up to them, new ones where the saver has found no trace of the old ones, in a pid namespace of the
//! program's own; else the restart is refused. Decides only: whoever asks must not have changed anything yet.

pub mod system;
pub mod words;

use core::time::Duration;

use image_format::record::header::Traces;
use sys::Errno;

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// The first way that works.
    #[default]
    Auto,
    /// The saved ids, in this pid namespace, for as long as counting takes.
    Keep,
    /// New ids.
    New,
    /// The saved ids, in a namespace.
    Namespace,
}

/// How the program gets its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The saved ones are chosen: clone3(2) with `set_tid`.
    Right,
    /// Ids are used up until the kernel gives out the saved ones.
    Counting,
    /// New ones. `traces`: the program's memory may hold the old ones.
    New {
        /// What the saver has found.
        traces: Traces,
    },
    /// The saved ones, in a pid namespace of the program's own.
    Namespace,
}

/// Why there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody has this id.
    Taken(u32),
    /// Ids may not be chosen, and the saved ones are not within reach of counting.
    NoRight(Errno),
    /// This id is larger than any here.
    TooLarge(u32),
    /// No way: ids may not be chosen (or one is taken), and namespaces may not be made.
    NoWay {
        /// Who has an id, or why none may be chosen.
        ids: Blocked,
        /// The kernel's word about namespaces.
        namespaces: Errno,
    },
    /// A tree of processes cannot have new ids.
    Tree,
}

/// Why the saved ids cannot be had in this pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Somebody has this one.
    Taken(u32),
    /// They may not be chosen.
    Right(Errno),
}

/// What an image says of its ids.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// All ids of processes and threads but that of the restart's own process, ascending.
    pub ids: &'a [u32],
    /// Whether it is a tree of processes.
    pub tree: bool,
    /// Whether each task's id is greater than that of the process that makes it, so that counting once passes all of them.
    pub ascending: bool,
    /// What the saver has found in memory.
    pub traces: Traces,
}

/// What the restart asks of this system, each question only when the answer matters.
pub trait System {
    /// Whether this user may choose ids: EPERM, ENOSYS and the like say no.
    ///
    /// # Errors
    /// Why not.
    fn may_choose(&self) -> Result<(), Errno>;
    /// Whether a task, group or session other than the restart's own has an id.
    fn is_taken(&self, id: u32) -> bool;
    /// The largest id that a task can have.
    fn largest(&self) -> u32;
    /// The id that was given out last, and how long it takes to use one up; `next` itself is not used up when it lies ahead. `None`: that cannot
    /// be known.
    fn counter(&self, next: u32) -> Option<(u32, Duration)>;
    /// Whether the restart may make user, pid, time and mount namespaces.
    ///
    /// # Errors
    /// Why not.
    fn may_make_namespaces(&self) -> Result<(), Errno>;
}

/// How long `auto` counts at most.
pub const COUNTING_MAX: Duration = Duration::from_millis(200);

/// Decides.
///
/// # Errors
/// There is no way.
pub fn choose(wish: Wish, saved: &Saved<'_>, system: &impl System) -> Result<Way, Refusal> {
    let new = Way::New { traces: saved.traces };
    match wish {
        Wish::New if saved.tree => Err(Refusal::Tree),
        Wish::New => Ok(new),
        Wish::Namespace => match system.may_make_namespaces() {
            Ok(()) => Ok(Way::Namespace),
            Err(e) => Err(Refusal::NoWay { ids: Blocked::Right(Errno::EPERM), namespaces: e }),
        },
        Wish::Keep => here(saved, system, Duration::MAX).map_err(|blocked| match blocked {
            Blocked::Taken(id) => Refusal::Taken(id),
            Blocked::Right(_) if saved.ids.last().is_some_and(|id| *id > system.largest()) => {
                Refusal::TooLarge(saved.ids.last().copied().unwrap_or(0))
            }
            Blocked::Right(e) => Refusal::NoRight(e),
        }),
        Wish::Auto => here(saved, system, COUNTING_MAX).or_else(|ids| {
            if !saved.tree && saved.traces == Traces::None {
                return Ok(new);
            }
            system
                .may_make_namespaces()
                .map(|()| Way::Namespace)
                .map_err(|namespaces| Refusal::NoWay { ids, namespaces })
        }),
    }
}

/// The saved ids in this pid namespace, by right or by counting for so long at most.
fn here(saved: &Saved<'_>, system: &impl System, most: Duration) -> Result<Way, Blocked> {
    if let Some(taken) = saved.ids.iter().find(|id| system.is_taken(**id)) {
        return Err(Blocked::Taken(*taken));
    }
    if saved.ids.is_empty() {
        return Ok(Way::Right);
    }
    let Err(why) = system.may_choose() else {
        let fits = saved.ids.last().is_none_or(|id| *id <= system.largest());
        return if fits { Ok(Way::Right) } else { Err(Blocked::Right(Errno::EINVAL)) };
    };
    let first = saved.ids.first().copied().unwrap_or(0);
    if saved.ascending && system.counter(first).is_some_and(|counter| within(saved, system.largest(), counter, most)) {
        return Ok(Way::Counting);
    }
    Err(Blocked::Right(why))
}

/// Whether all ids are reached in so much time, the first from the last one that was given out on.
fn within(saved: &Saved<'_>, largest: u32, (last, each): (u32, Duration), most: Duration) -> bool {
    /// Ids below are given out once, to the first tasks after a boot (`RESERVED_PIDS`, kernel/pid.c).
    const RESERVED: u32 = 300;
    let (Some(first), Some(greatest)) = (saved.ids.first().copied(), saved.ids.last().copied()) else { return true };
    if greatest > largest {
        return false;
    }
    let ids = if first > last {
        greatest - last
    } else if first < RESERVED {
        return false;
    } else {
        // Beyond the largest one it begins anew.
        (largest.saturating_sub(last)).saturating_add(greatest - RESERVED)
    };
    each.saturating_mul(ids) <= most
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::vec::Vec;

    struct Fake {
        right: Result<(), Errno>,
        taken: Vec<u32>,
        last: u32,
        largest: u32,
        namespaces: Result<(), Errno>,
        asked: Cell<u32>,
    }

    impl System for Fake {
        fn may_choose(&self) -> Result<(), Errno> {
            self.right
        }
        fn is_taken(&self, id: u32) -> bool {
            self.taken.contains(&id)
        }
        fn largest(&self) -> u32 {
            self.largest
        }
        fn counter(&self, _: u32) -> Option<(u32, Duration)> {
            Some((self.last, Duration::from_micros(20)))
        }
        fn may_make_namespaces(&self) -> Result<(), Errno> {
            self.asked.set(self.asked.get() + 1);
            self.namespaces
        }
    }

    /// An ordinary user of an ordinary system, on which ids have gone far.
    fn user() -> Fake {
        Fake {
            right: Err(Errno::EPERM),
            taken: Vec::new(),
            last: 900_000,
            largest: 4_194_304,
            namespaces: Ok(()),
            asked: Cell::new(0),
        }
    }

    const TRACED: Saved<'_> = Saved { ids: &[5000, 5001], tree: false, ascending: true, traces: Traces::Found };
    const UNTRACED: Saved<'_> = Saved { traces: Traces::None, ..TRACED };
    const TREE: Saved<'_> = Saved { tree: true, ..UNTRACED };

    #[test]
    fn each_way_where_it_is_the_first() {
        let root = Fake { right: Ok(()), ..user() };
        assert_eq!(choose(Wish::Auto, &UNTRACED, &root), Ok(Way::Right));
        let young = Fake { last: 4000, ..user() };
        assert_eq!(choose(Wish::Auto, &UNTRACED, &young), Ok(Way::Counting));
        assert_eq!(choose(Wish::Auto, &TREE, &young), Ok(Way::Counting));
        assert_eq!(choose(Wish::Auto, &UNTRACED, &user()), Ok(Way::New { traces: Traces::None }));
        assert_eq!(choose(Wish::Auto, &TRACED, &user()), Ok(Way::Namespace));
        assert_eq!(choose(Wish::Auto, &TREE, &user()), Ok(Way::Namespace));
        let none = Fake { namespaces: Err(Errno::ENOSPC), ..user() };
        let ids = Blocked::Right(Errno::EPERM);
        assert_eq!(choose(Wish::Auto, &TRACED, &none), Err(Refusal::NoWay { ids, namespaces: Errno::ENOSPC }));
        assert_eq!(choose(Wish::Auto, &UNTRACED, &none), Ok(Way::New { traces: Traces::None }));
    }

    #[test]
    fn who_has_its_ids_already_needs_no_right() {
        assert_eq!(choose(Wish::Keep, &Saved { ids: &[], ..TRACED }, &user()), Ok(Way::Right));
    }

    #[test]
    fn nobody_is_asked_in_vain() {
        let root = Fake { right: Ok(()), ..user() };
        assert_eq!(choose(Wish::Auto, &TRACED, &root), Ok(Way::Right));
        assert_eq!(root.asked.get(), 0);
    }

    #[test]
    fn ids_that_are_taken_are_not_taken_again() {
        let root = Fake { right: Ok(()), taken: [5001].into(), ..user() };
        assert_eq!(choose(Wish::Auto, &TRACED, &root), Ok(Way::Namespace));
        assert_eq!(choose(Wish::Keep, &TRACED, &root), Err(Refusal::Taken(5001)));
    }

    #[test]
    fn counting_passes_the_largest_id_when_there_is_time() {
        let small = Fake { last: 30_000, largest: 32_768, ..user() };
        assert_eq!(choose(Wish::Auto, &UNTRACED, &small), Ok(Way::Counting));
        let old = Saved { ids: &[29_000], ..TRACED };
        assert_eq!(choose(Wish::Auto, &old, &small), Ok(Way::Namespace));
        assert_eq!(choose(Wish::Keep, &old, &small), Ok(Way::Counting));
        let first = Saved { ids: &[7], ..TRACED };
        assert_eq!(choose(Wish::Keep, &first, &small), Err(Refusal::NoRight(Errno::EPERM)));
        let descending = Saved { ascending: false, ..TRACED };
        assert_eq!(choose(Wish::Auto, &descending, &Fake { last: 4000, ..user() }), Ok(Way::Namespace));
    }

    #[test]
    fn ids_beyond_the_largest_are_refused() {
        let large = Saved { ids: &[40_000], ..TRACED };
        let root = Fake { right: Ok(()), largest: 32_768, ..user() };
        assert_eq!(choose(Wish::Keep, &large, &root), Err(Refusal::TooLarge(40_000)));
        assert_eq!(choose(Wish::Auto, &large, &root), Ok(Way::Namespace));
    }

    #[test]
    fn wishes_are_met_or_refused() {
        assert_eq!(choose(Wish::New, &TRACED, &user()), Ok(Way::New { traces: Traces::Found }));
        assert_eq!(choose(Wish::New, &TREE, &user()), Err(Refusal::Tree));
        assert_eq!(choose(Wish::Namespace, &UNTRACED, &user()), Ok(Way::Namespace));
        assert_eq!(choose(Wish::Keep, &TRACED, &user()), Ok(Way::Counting));
    }
}
