//! Processes and threads that are made as their ids come up, in ascending order over the whole tree, before the program's memory is there.
//!
//! Must never make one whose turn has not come: its id would pass another's.

use core::cell::Cell;
use core::sync::atomic::Ordering;

use image_format::ExitCode;
use image_format::record::process::Process;
use state::restart::Result;
use sys::Errno;
use sys::child::{self, Birth};
use sys::fs::Fd;

use super::tree::{LOOK, Meeting, Tree, fail, made, no_id, page};
use crate::heap;
use crate::launch::count::{self, Deadline};
use crate::launch::tasks::What;
use crate::launch::{HAVE_IDS, LATE, Launched, standby};

/// Threads of this process that were made before its memory is there, by their places in the table.
#[derive(Debug, Default)]
pub struct Waiting(&'static mut [Option<standby::Waiting>]);

impl Waiting {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Each with its place.
    pub fn each(&self) -> impl Iterator<Item = (usize, standby::Waiting)> {
        self.0.iter().enumerate().filter_map(|(place, thread)| thread.map(|thread| (place, thread)))
    }

    /// Makes the thread of this place as its id comes up.
    fn make(&mut self, place: u32, id: u32, last: u32, deadline: Deadline) -> sys::Result<()> {
        let waiting = Cell::new(None);
        let make = || {
            standby::Waiting::make().map(|(thread, tid)| {
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
        *self.0.get_mut(place as usize).ok_or(Errno::E2BIG)? = waiting.take();
        Ok(())
    }
}

/// Makes the tasks, each by the process that it belongs to; each new process returns from here, with its place.
///
/// # Errors
/// Ids that cannot be had. When there is another way to have them this process ends instead.
pub fn grow(
    tree: &mut Tree,
    root: u32,
    launched: &Launched,
    deadline: Deadline,
    waiting: &mut Waiting,
    terminal: impl Fn(&Process) -> Fd,
) -> Result<()> {
    let threads = launched.tasks.iter().filter(|task| matches!(task.what, What::Thread(_))).count();
    // What was dealt last: the root's own, and then each task's.
    let (mut turn, mut dealt) = (0, root);
    for task in launched.tasks {
        turn += 1;
        let last = core::mem::replace(&mut dealt, task.id);
        if task.maker != tree.place() {
            continue;
        }
        wait_for_turn(tree, turn - 1);
        let failed = |e| {
            if e == Errno::ETIMEDOUT && launched.counting >= 0 {
                let _ = sys::fs::write_all(launched.counting, &[LATE]);
                fail(i32::from(ExitCode::Kernel as u8));
                sys::process::exit(i32::from(ExitCode::Kernel as u8));
            }
            no_id(task.id, e)
        };
        match task.what {
            What::Thread(place) => {
                if waiting.0.is_empty() {
                    waiting.0 = heap::list(threads + 1, None)?;
                }
                waiting.make(place, task.id, last, deadline).map_err(failed)?;
            }
            What::Process(place) => {
                let Some(process) = tree.processes().get(place as usize) else { continue };
                if make_process(process, last, deadline).map_err(failed)? {
                    waiting.0 = &mut [];
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
        // No other way need be tried.
        let _ = sys::fs::write_all(launched.counting, &[HAVE_IDS]);
        // SAFETY: the restart's own, of no use any more.
        unsafe { sys::fs::close(launched.counting) };
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
