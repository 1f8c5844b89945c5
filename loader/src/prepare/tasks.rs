//! Processes and threads that are made before the program's memory is there, so that nobody else is given their ids meanwhile: under chosen ids, or as
//! their ids come up, in ascending order over the whole tree.
//!
//! Must never make one of those whose turn has not come: its id would pass another's.

use core::cell::Cell;
use core::sync::atomic::Ordering;

use image_format::record::process::Process;
use image_format::{Checked, ExitCode};
use state::restart::{Error, Result};
use sys::Errno;
use sys::child::{self, Birth};
use sys::fs::Fd;

use super::tree::{LOOK, Meeting, Tree, fail, made, no_id, page};
use crate::launch::count::{self, Deadline};
use crate::launch::tasks::What;
use crate::launch::{HAVE_IDS, Ids, LATE, Launched, standby};

/// Threads of this process that were made before its memory is there.
#[derive(Debug, Default)]
pub struct Waiting(Option<standby::Waiting>);

impl Waiting {
    /// All of them.
    pub fn each(&self) -> impl Iterator<Item = standby::Waiting> {
        core::iter::successors(self.0, standby::Waiting::next)
    }

    fn add(&mut self, thread: standby::Waiting, place: u32) {
        self.0 = Some(thread.put_before(self.0, place));
    }

    /// Makes this process's threads, before anything that takes time: somebody else may be given one of the ids meanwhile. Those that are counted up to
    /// in a tree have their turns later.
    ///
    /// # Errors
    /// Ids that cannot be had. When there is another way to have them this process ends instead.
    pub fn make_threads(&mut self, tree: &mut Tree, image: &Checked<'_>, launched: &Launched) -> Result<()> {
        /// How often ids that were free are asked for, 10 ms each: whoever has one now may be gone at once.
        const TRIES: u32 = 100;
        let mut tries = TRIES;
        let is_alone = image.table::<Process>().is_empty() && tree.place() == 0;
        let chosen = match launched.ids {
            Ids::Counted(deadline) if is_alone => {
                return grow(tree, image.header().pid.get(), launched, deadline, self, &|_| -1);
            }
            Ids::Counted(_) => return Ok(()),
            Ids::Chosen => true,
            Ids::New => false,
        };
        for task in launched.tasks.iter().filter(|task| task.maker == tree.place()) {
            if let What::Thread(place) = task.what {
                let (thread, _) = loop {
                    match standby::Waiting::make(chosen.then_some(task.id)) {
                        Err(Errno::EEXIST) if tries != 0 => tries -= 1,
                        made => break made.map_err(|e| not_made(launched, task.id, e))?,
                    }
                    sys::time::nap();
                };
                self.add(thread, place);
            }
        }
        all_made(launched);
        Ok(())
    }

    /// In a process that was just made: its parent's are not its own.
    pub fn leave(&mut self) {
        self.0 = None;
    }

    /// Makes the thread of this place as its id comes up.
    fn make(&mut self, place: u32, id: u32, last: u32, deadline: Deadline) -> sys::Result<()> {
        let waiting = Cell::new(None);
        let make = || {
            standby::Waiting::make(None).map(|(thread, tid)| {
                waiting.set(Some(thread));
                tid
            })
        };
        let undo = |_| {
            if let Some(thread) = waiting.take() {
                thread.end();
            }
        };
        count::make_with_id(id, Some(last), deadline, make, undo)?;
        if let Some(thread) = waiting.take() {
            self.add(thread, place);
        }
        Ok(())
    }
}

/// Why a task has not got its id. When there is another way this process ends instead, and its parent tries that.
fn not_made(launched: &Launched, id: u32, e: Errno) -> Error {
    if matches!(e, Errno::ETIMEDOUT | Errno::EEXIST) && launched.counting >= 0 {
        let _ = sys::fs::write_all(launched.counting, &[LATE]);
        fail(i32::from(ExitCode::Kernel as u8));
        sys::process::exit(i32::from(ExitCode::Kernel as u8));
    }
    no_id(id, e)
}

/// All tasks have their ids: no other way need be tried, where somebody awaits that.
fn all_made(launched: &Launched) {
    let _ = sys::fs::write_all(launched.counting, &[HAVE_IDS]);
    // SAFETY: the restart's own, of no use any more.
    unsafe { sys::fs::close(launched.counting) };
}

/// Makes the tasks, each by the process that it belongs to; each new process returns from here, with its place.
///
/// # Errors
/// Ids that cannot be had. When there is another way to have them this process ends instead.
#[inline(never)] // Called twice.
pub fn grow(
    tree: &mut Tree,
    root: u32,
    launched: &Launched,
    deadline: Deadline,
    waiting: &mut Waiting,
    terminal: &dyn Fn(&Process) -> Fd,
) -> Result<()> {
    // What was dealt last: the root's own, and then each task's.
    let (mut turn, mut dealt) = (0, root);
    for task in launched.tasks {
        turn += 1;
        let last = core::mem::replace(&mut dealt, task.id);
        if task.maker != tree.place() {
            continue;
        }
        wait_for_turn(tree, turn - 1);
        let failed = |e| not_made(launched, task.id, e);
        match task.what {
            What::Thread(place) => {
                waiting.make(place, task.id, last, deadline).map_err(failed)?;
            }
            What::Process(place) => {
                let Some(process) = tree.processes().get(place as usize) else { continue };
                if make_process(process, last, deadline).map_err(failed)? {
                    waiting.leave();
                    tree.begin(place, process, terminal(process))?;
                    continue;
                }
                made(process);
            }
        }
        next_turn(tree, turn);
    }
    if tree.place() == 0 {
        wait_for_turn(tree, turn);
        all_made(launched);
    }
    Ok(())
}

/// Makes a process as its id comes up; true in it.
fn make_process(process: &Process, last: u32, deadline: Deadline) -> sys::Result<bool> {
    let id = process.pid.get();
    let birth = Birth { exit_signal: process.exit_signal.get(), ..Birth::default() };
    let mut is_child = false;
    let make = || {
        // SAFETY: other threads of this process wait, and hold nothing that the child uses.
        let pid = unsafe { child::fork_as(&birth) }?;
        is_child = pid == 0;
        if !is_child {
            return Ok(pid);
        }
        let own = sys::process::pid();
        if own.cast_unsigned() != id {
            sys::process::exit(0);
        }
        Ok(own)
    };
    count::make_with_id(id, Some(last), deadline, make, |pid| child::reap(pid.cast_unsigned()))?;
    Ok(is_child)
}

/// Waits until so many tasks have been made; ends if one cannot be.
fn wait_for_turn(tree: &Tree, turn: u32) {
    if tree.meeting() == 0 {
        return;
    }
    let Meeting { failed, turn: now, .. } = page(tree.meeting());
    loop {
        let at = now.load(Ordering::Acquire);
        match failed.load(Ordering::Acquire) {
            0 if at == turn => return,
            0 => {}
            code => sys::process::exit(code as i32),
        }
        let _ = sys::thread::wait(now, at, Some(LOOK));
    }
}

/// So many tasks have been made.
fn next_turn(tree: &Tree, turn: u32) {
    if tree.meeting() != 0 {
        let Meeting { turn: now, .. } = page(tree.meeting());
        now.store(turn, Ordering::Release);
        sys::thread::wake(now);
    }
}
