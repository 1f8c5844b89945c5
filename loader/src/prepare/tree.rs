//! Trees: this process makes the others, which have copies of all that it has opened, and goes on as their root.
//!
//! They meet several times: when each is prepared, and none could fail any more because of the image; when groups are
//! joined; when all memory is mapped; and when all threads are ready. Whoever fails before tells the others, who end, too.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use image_format::record::credentials::Credentials;
use image_format::record::process::Process;
use image_format::record::sigio::Sigio;
use image_format::{Checked, ExitCode, PAGE};
use loader::options::Options;
use state::setting::When;
use state::{Error, Result, credentials};
use sys::abi::mm::{MAP_ANONYMOUS, MAP_SHARED, PROT_READ, PROT_WRITE};
use sys::abi::signal::{SIGCHLD, Sigaction};
use sys::abi::{PR_SET_DUMPABLE, RLIMIT_CORE, Rlimit, TIOCSCTTY, TIOCSPGRP, Timespec};
use sys::fs::Fd;
use sys::{Errno, child, packed};

use super::files::Files;
use super::region::Plan;
use crate::commit::{die, finish};

/// A process's place in its tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tree {
    /// Its place in the table; 0 for the root, and for a process alone.
    place: u32,
    /// How many live.
    members: u32,
    /// Where they meet: a page that all share; 0 for a process alone.
    meeting: u64,
    /// The table; of no use once the stub's own memory is gone.
    processes: &'static [Process],
    /// The terminal of the session that it leads, or that the root has; or -1.
    terminal: Fd,
    /// Its parent's id; 0 for the root.
    parent: u32,
    /// Whether its credentials are others than those of the restart.
    changes: bool,
}

impl Tree {
    /// Its place in the table; 0 for the root, and for a process alone.
    pub const fn place(&self) -> u32 {
        self.place
    }

    /// Where they meet; 0: nobody else is there.
    pub const fn meeting(&self) -> u64 {
        self.meeting
    }

    /// Looks at the credentials that this process is to have.
    ///
    /// # Errors
    /// It may not have them.
    pub fn with_rights(mut self, image: &Checked<'_>) -> Result<Self> {
        if let Some(own) = image.each::<Credentials>().next() {
            self.changes = credentials::check(image.header().pid.get(), own, image.contents(own.groups))?;
        }
        Ok(self)
    }

    /// Puts the page where they meet to a place of the region.
    ///
    /// # Errors
    /// The kernel's.
    pub fn moved_to(mut self, to: u64) -> sys::Result<Self> {
        if self.meeting != 0 {
            // SAFETY: the tree's own page, of which nobody here has a reference now, to a place of the region.
            unsafe { sys::memory::move_to(self.meeting as usize, PAGE as usize, to as usize) }?;
            self.meeting = to;
        }
        Ok(self)
    }
}

/// What lies in the page: how often somebody has come, and why somebody never will.
struct Meeting {
    came: AtomicU32,
    failed: AtomicU32,
}

/// Where this process meets the others, for [`fail`].
static MEETING: AtomicU64 = AtomicU64::new(0);

/// How long one waits before it looks whether its parent is still there.
const LOOK: Timespec = Timespec { sec: 1, nsec: 0 };

/// The page, which stays mapped as long as anybody meets there.
fn page(at: u64) -> &'static Meeting {
    // SAFETY: a page of this restart's own, zeroed when it was mapped, and never unmapped before the last meeting.
    unsafe { &*(at as usize as *const Meeting) }
}

/// Remembers the page for [`fail`].
pub fn meets_at(tree: &Tree) {
    MEETING.store(tree.meeting, Ordering::Relaxed);
}

/// Tells the others, if there are any, that this process does not come.
pub fn fail(code: i32) {
    let at = MEETING.load(Ordering::Relaxed);
    if at != 0 {
        page(at).failed.store(code as u32, Ordering::Release);
        sys::thread::wake(&page(at).came);
    }
}

/// Waits until all have come for the `round`-th time; ends if one will not.
pub fn meet(tree: &Tree, round: u32) {
    if tree.meeting == 0 {
        return;
    }
    meets_at(tree);
    let Meeting { came, failed } = page(tree.meeting);
    came.fetch_add(1, Ordering::AcqRel);
    sys::thread::wake(came);
    loop {
        // Looked at first: a parent that all have met may go on, and end, before this process has noticed.
        let orphaned = tree.parent != 0 && child::parent() as u32 != tree.parent;
        let code = failed.load(Ordering::Acquire);
        let here = came.load(Ordering::Acquire);
        match code {
            _ if here >= round * tree.members => return,
            0 if orphaned => sys::process::exit(i32::from(ExitCode::Restore as u8)),
            0 => {}
            code => sys::process::exit(code as i32),
        }
        let _ = sys::thread::wait(came, here, Some(LOOK));
    }
}

/// Makes the other processes; each returns from here, with its place.
///
/// # Errors
/// Ids that cannot be had.
pub fn grow(image: &Checked<'static>, options: &Options<'_>, files: &Files) -> Result<Tree> {
    let processes = image.table::<Process>();
    let members = 1 + image.processes().len() as u32;
    let terminal = |of: &Process| state::descriptor::now(image, files.descriptors, of.terminal.get()).unwrap_or(-1);
    let terminal_of_root = processes.first().map_or(-1, terminal);
    let mut tree = Tree { members, processes, terminal: terminal_of_root, ..Tree::default() };
    if processes.is_empty() {
        return Ok(tree);
    }
    let failed = |number: u32, e| {
        let what = packed!("process id #: cannot be had (!): ckpt restart --namespace");
        Error::about(what, number, b"", e).code(ExitCode::Kernel)
    };
    if !options.keep_pid {
        return Err(failed(image.header().pid.get(), Errno::EPERM));
    }
    let how = MAP_SHARED | MAP_ANONYMOUS;
    // SAFETY: a new mapping at a free place.
    let page = unsafe { sys::memory::map(0, PAGE as usize, PROT_READ | PROT_WRITE, how, -1, 0) };
    tree.meeting = page.map_err(|e| failed(0, e))? as u64;
    meets_at(&tree);
    // Whoever ignores SIGCHLD loses children that end.
    // SAFETY: the default action is no code.
    let _ = unsafe { sys::signal::set_action(SIGCHLD, &Sigaction::default()) };
    let mut own = processes.first();
    for (place, process) in (0..).zip(processes).skip(1) {
        if own.is_none_or(|own| own.pid != process.parent) {
            continue;
        }
        let pid = process.pid.get();
        // SAFETY: one thread, and the child relies on nothing that is not in its copy of this memory.
        let made = unsafe { child::fork_as(pid, process.exit_signal.get()) };
        if made.map_err(|e| failed(pid, e))? != 0 {
            if process.ended.get() != 0 {
                // Here its signal is nothing yet.
                let _ = child::has_ended(pid, true);
            }
            continue;
        }
        (tree.place, tree.parent, own) = (place, process.parent.get(), Some(process));
        tree.terminal = terminal(process);
        if process.session.get() == pid {
            child::new_session().map_err(|e| failed(pid, e))?;
            if tree.terminal >= 0 {
                sys::terminal::control(tree.terminal, TIOCSCTTY, &[0; 8]).map_err(|e| failed(pid, e))?;
            }
        } else if process.group.get() == pid {
            child::join_group(0).map_err(|e| failed(pid, e))?;
        }
        if process.ended.get() != 0 {
            end(process.status.get());
        }
    }
    Ok(tree)
}

/// What is set before other threads are made.
pub fn settings_first(plan: &Plan) -> When {
    if plan.tree.changes { When::Others } else { When::First }
}

/// The calling thread gets its own credentials, after all that takes those of the restart; behind them what they are kept with.
pub fn rights(plan: &Plan, image: &Checked<'_>, leads: bool) {
    if let Some(own) = image.each::<Credentials>().next().filter(|_| plan.tree.changes) {
        let settings = || finish::settings(image, When::Rights);
        let mut done = credentials::restore(own, image.contents(own.groups), settings);
        if leads && own.dumpable == 1 {
            // SAFETY: writes to no memory.
            done = done.and_then(|()| unsafe { sys::process::prctl(PR_SET_DUMPABLE, 1, 0, 0) }.map(drop));
        }
        if let Err(e) = done {
            die(packed!("setting credentials"), e)
        }
    }
    for driven in image.each::<Sigio>().filter(|_| leads) {
        if let Some(fd) = finish::first(plan, image, driven.id)
            && let Err(e) = state::sigio::restore(driven, fd)
        {
            die(packed!("making a socket signal-driven"), e)
        }
    }
}

/// Ends as the process of that place had ended.
fn end(status: u32) -> ! {
    // A core would be another one.
    let _ = sys::process::set_rlimit(RLIMIT_CORE, &Rlimit { soft: 0, hard: 0 });
    let signal = (status & 0x7f) as i32;
    if signal != 0 {
        let _ = sys::process::kill(sys::process::pid(), signal);
    }
    sys::process::exit((status >> 8) as i32)
}

/// All are prepared: joins the group, waits for children that have ended, gives the terminal to whom it was given. All signals
/// are blocked: it may be one of the background.
pub fn join(plan: &Plan) {
    let Tree { processes, place, .. } = plan.tree;
    let (Some(own), Some(root)) = (processes.get(place as usize), processes.first()) else { return };
    if own.group != root.group
        && own.group != own.pid
        && let Err(e) = child::join_group(own.group.get())
    {
        die(packed!("joining a process group"), e)
    }
    meet(&plan.tree, 2);
    for one in processes.iter().filter(|one| one.parent == own.pid && one.ended.get() == 2) {
        child::reap(one.pid.get());
    }
    if own.foreground != root.group && plan.tree.terminal >= 0 {
        let _ = sys::terminal::control(plan.tree.terminal, TIOCSPGRP, &own.foreground.get().to_le_bytes());
    }
}
