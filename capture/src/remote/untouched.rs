//! What a signal that went to all of a job has made of it before it was stopped: nobody can ask the kernel whether a handler has run, or a child has ended by it.
//!
//! Must never let an image be of a job that is on its way to its end: it would go on to that end as if that were its result.

use state::process::Stat;
use state::{Error, Result, Target};

use super::Ending;
use super::stopped_tree::StoppedTree;

/// Fields of `/proc/PID/stat`: page faults of the children that it has waited for. None lives without one.
const FAULTS: [usize; 2] = [11, 13];

/// Refuses a job to which the signal went, too, unless it cannot have made anything of it. `others`: processes besides the root.
///
/// # Errors
/// It may have.
pub fn check(ending: Option<Ending<'_>>, stopped: &StoppedTree, others: usize) -> Result<()> {
    if !ending.is_some_and(|ending| (ending.went_to_all)()) {
        return Ok(());
    }
    let proc = stopped.proc();
    let had_children = Stat::read(proc).map_or(true, |stat| FAULTS.iter().any(|field| stat.field(*field) != 0));
    let why = match (others, had_children, stopped.has_withheld()) {
        // It waits still.
        (0, false, true) => return Ok(()),
        (0, false, false) => "may have handled the signal, which went to all",
        (0, true, _) => "has had children, and the signal went to all",
        _ => "has children, and the signal went to all",
    };
    Err(Error::refused(format_args!("process {}", stopped.pid()), why, "send it to `ckpt run` alone"))
}
