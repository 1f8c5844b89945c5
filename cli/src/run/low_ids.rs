//! The ids that a container's first processes have: a program that is to be restarted in the next container does not start with one of these.

/// Ids up to this one are given out once, to the first tasks of a pid namespace (`RESERVED_PIDS`, kernel/pid.c).
const RESERVED: i32 = 300;

/// Uses up what is left of them. The next container's own first processes will have the same ones, this command among them, and nobody can
/// have an id that is taken.
///
/// # Errors
/// clone(2)'s: no task can be made, and so no program.
pub fn leave_behind() -> sys::Result<()> {
    let mut last = sys::thread::next_id()?;
    while last < RESERVED {
        // Others count, too: what was used up is asked for again.
        for _ in last..RESERVED {
            sys::thread::use_up_id()?;
        }
        last = sys::thread::next_id()?;
    }
    Ok(())
}
