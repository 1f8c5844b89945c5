//! Trees: this process makes the others, which have copies of all that it has opened, and goes on as their root.
//!
//! They meet several times: when each is prepared, and none could fail any more because of the image; when groups are
//! joined; when all memory is mapped; and when all threads are ready. Whoever fails before tells the others, who end, too.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use image_format::record::credentials::Credentials;
use image_format::record::memory::Vma;
use image_format::record::process::{PROCESSES_MAX, Process};
use image_format::{Checked, ExitCode, PAGE};
use loader::options::Options;
use state::credentials;
use state::credentials::Change;
use state::restart::{Error, Result};
use state::setting::When;
use sys::abi::mm::{MAP_ANONYMOUS, MAP_SHARED, PROT_READ, PROT_WRITE};
use sys::abi::signal::SIGCHLD;
use sys::abi::{PR_SET_DUMPABLE, RLIMIT_CORE, Rlimit, TIOCSCTTY, Timespec};
use sys::child::Birth;
use sys::fs::Fd;
use sys::{Errno, child};

mod others;
pub mod stops;

use super::Input;
use super::files::Files;
use super::inherited::Inherited;
use super::region::Plan;
use super::tasks::{self, Waiting};
use crate::commit::{Stage, die, error_fd, finish};
use crate::launch::{Ids, Launched};
use crate::start::tell;

pub use others::pidfds;

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
    /// How its credentials are others than those of the restart.
    pub(super) changes: Change,
    /// Its own id, as the image has it; 0 for a process alone.
    pid: u32,
    /// Memory that is filled.
    inherited: Inherited,
    /// The root's process group of now.
    group: u32,
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

    /// The root's process group of now.
    pub const fn group(&self) -> u32 {
        self.group
    }

    /// The table; of no use once the stub's own memory is gone.
    pub(super) const fn processes(&self) -> &'static [Process] {
        self.processes
    }

    /// Who has filled the memory of a mapping, if that is done.
    pub fn filled_by(&self, vma: &Vma) -> Option<u32> {
        self.inherited.by(vma, [self.pid, self.parent])
    }

    /// Whether its credentials are of its own, and not those of the restart.
    pub const fn has_own_rights(&self) -> bool {
        !matches!(self.changes, Change::Nothing)
    }

    /// In a process of the tree that was just made: takes its place, its session or group. One that has ended ends.
    pub(super) fn begin(&mut self, place: u32, process: &'static Process, terminal: Fd) -> Result<()> {
        let pid = process.pid.get();
        let failed = |e| no_id(pid, e);
        (self.place, self.pid, self.parent, self.terminal) = (place, pid, process.parent.get(), terminal);
        if process.session.get() == pid {
            child::new_session().map_err(failed)?;
            if terminal >= 0 {
                sys::terminal::control(terminal, TIOCSCTTY, &sys::terminal::ZERO).map_err(failed)?;
            }
        } else if process.group.get() == pid {
            child::join_group(0).map_err(failed)?;
        }
        if process.ended.get() != 0 {
            end(process.status.get());
        }
        Ok(())
    }

    /// Puts the page where they meet to a place of the region.
    ///
    /// # Errors
    /// The kernel's.
    pub fn moved_to(mut self, to: u64) -> sys::Result<Self> {
        if self.meeting != 0 {
            // SAFETY: the tree's own page, of which nobody here has a reference now, to a place of the region.
            unsafe { sys::memory::move_to(self.meeting as usize, MEETING_LEN as usize, to as usize) }?;
            self.meeting = to;
        }
        Ok(self)
    }
}

/// What lies where they meet: how often somebody has come, why somebody never will, and who is whose parent.
pub(super) struct Meeting {
    came: AtomicU32,
    pub(super) failed: AtomicU32,
    /// Which of the counted tasks is made next.
    pub(super) turn: AtomicU32,
    pids: [AtomicU32; PROCESSES_MAX],
    parents: [AtomicU32; PROCESSES_MAX],
    /// [`Process::stopped`], until the parent of the process asks for that: then [`stops::STOP`].
    stopped: [AtomicU32; PROCESSES_MAX],
}

/// Bytes of that.
pub const MEETING_LEN: u64 = image_format::align_up(size_of::<Meeting>() as u64, PAGE);

/// Where this process meets the others, for [`fail`].
static MEETING: AtomicU64 = AtomicU64::new(0);

/// How long one waits before it looks whether its parent and its children are still there.
pub(super) const LOOK: Timespec = Timespec { sec: 1, nsec: 0 };

/// The page, which stays mapped as long as anybody meets there.
pub(super) fn page(at: u64) -> &'static Meeting {
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
        stops::end_all(page(at));
    }
}

/// Comes, and does not wait for the others.
pub fn come(tree: &Tree) {
    if tree.meeting == 0 {
        return;
    }
    meets_at(tree);
    let Meeting { came, .. } = page(tree.meeting);
    // Whoever is the last wakes all others: each of them would wake all of them.
    if (came.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(tree.members) {
        sys::thread::wake(came);
    }
}

/// Waits until all have come for the `round`-th time; ends if one will not.
pub fn meet(tree: &Tree, round: u32) {
    if tree.meeting == 0 {
        return;
    }
    come(tree);
    let Meeting { came, failed, pids, parents, .. } = page(tree.meeting);
    let own = sys::process::pid() as u32;
    let mut in_vain = false;
    loop {
        // Looked at first: one that all have met may go on, and end, before this process has noticed.
        let orphaned = in_vain && tree.parent != 0 && child::parent() as u32 != tree.parent;
        let mut lost = 0;
        for (pid, parent) in pids.iter().zip(parents).filter(|_| in_vain) {
            let pid = pid.load(Ordering::Relaxed);
            if parent.load(Ordering::Relaxed) == own && child::has_ended(pid, false) {
                lost = pid;
            }
        }
        let code = failed.load(Ordering::Acquire);
        let here = came.load(Ordering::Acquire);
        match code {
            _ if here >= round * tree.members => return,
            0 if lost != 0 => {
                tell(error_fd(), "process #: was killed meanwhile: nothing was run", lost.into(), b"", 0);
                fail(i32::from(ExitCode::Restore as u8));
            }
            0 if orphaned => fail(i32::from(ExitCode::Restore as u8)),
            0 => {}
            code => {
                stops::end_all(page(tree.meeting));
                sys::process::exit(code as i32)
            }
        }
        if failed.load(Ordering::Acquire) == 0 {
            in_vain = sys::thread::wait(came, here, Some(LOOK)) == Err(Errno::ETIMEDOUT);
        }
    }
}

/// Makes the other processes; each returns from here, with its place.
///
/// # Errors
/// Ids that cannot be had.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn grow(
    tree: &mut Tree,
    input: &Input,
    options: &Options<'_>,
    launched: &Launched,
    (files, waiting): (&Files, &mut Waiting),
) -> Result<()> {
    let image = input.image();
    let processes = image.table::<Process>();
    let members = 1 + image.processes().len() as u32;
    let terminal = |of: &Process| state::descriptor::now(image, files.descriptors, of.terminal.get()).unwrap_or(-1);
    (tree.members, tree.processes) = (members, processes);
    tree.group = sys::process::group() as u32;
    tree.terminal = processes.first().map_or(-1, terminal);
    if processes.is_empty() {
        return Ok(());
    }
    let how = MAP_SHARED | MAP_ANONYMOUS;
    // SAFETY: a new mapping at a free place.
    let page = unsafe { sys::memory::map(0, MEETING_LEN as usize, PROT_READ | PROT_WRITE, how, -1, 0) };
    tree.meeting = page.map_err(|e| no_id(0, e))? as u64;
    meets_at(tree);
    let Meeting { pids, parents, stopped, .. } = self::page(tree.meeting);
    let places = pids.iter().zip(parents).zip(stopped);
    for (process, ((pid, parent), stopped)) in processes.iter().zip(places).filter(|(one, _)| one.ended == 0) {
        pid.store(process.pid.get(), Ordering::Relaxed);
        parent.store(process.parent.get(), Ordering::Relaxed);
        stopped.store(process.stopped.get(), Ordering::Relaxed);
    }
    tree.pid = image.header().pid.get();
    tree.inherited.fill(input, 0);
    // Whoever ignores SIGCHLD loses children that end.
    sys::signal::set_default(SIGCHLD).map_err(|e| no_id(0, e))?;
    if let Ids::Counted(deadline) = launched.ids {
        return tasks::grow(tree, image.header().pid.get(), launched, deadline, waiting, &terminal);
    }
    let mut own = processes.first();
    for (place, process) in (0..).zip(processes) {
        if place == 0 || own.is_none_or(|own| own.pid != process.parent) {
            continue;
        }
        let pid = process.pid.get();
        let birth = Birth { id: Some(pid), exit_signal: process.exit_signal.get(), ..Birth::default() };
        // SAFETY: other threads of this process wait, and the child relies on nothing that is not in its copy of this memory.
        if unsafe { child::fork_as(&birth) }.map_err(|e| no_id(pid, e))? != 0 {
            made(process);
            continue;
        }
        waiting.leave();
        own = Some(process);
        tree.begin(place, process, terminal(process))?;
        if processes.iter().any(|one| one.parent == process.pid && one.ended == 0) {
            tree.inherited.fill(&input.member(options, place)?, tree.parent);
        }
    }
    Ok(())
}

/// In the parent of a process that was just made.
pub(super) fn made(process: &Process) {
    if process.ended.get() != 0 {
        // Here its signal is nothing yet.
        let _ = child::has_ended(process.pid.get(), true);
    }
}

pub(super) fn no_id(number: u32, e: Errno) -> Error {
    Error::about(ExitCode::Kernel, "process id #: cannot be had (!): ckpt restart --namespace", number, b"", e)
}

/// What is set before other threads are made.
pub fn settings_first(plan: &Plan) -> When {
    if plan.tree.changes == Change::Nothing { When::First } else { When::Others }
}

/// The calling thread gets its own credentials, after all that takes those of the restart.
pub fn rights(plan: &Plan, image: &Checked<'_>, leads: bool) {
    if let Some(own) = image.each::<Credentials>().next().filter(|_| plan.tree.changes != Change::Nothing) {
        let groups = (plan.tree.changes == Change::Groups).then(|| image.contents(own.groups));
        let settings = || finish::settings(image, When::Rights);
        let mut done = credentials::restore(own, groups, settings);
        if leads && own.dumpable == 1 {
            // SAFETY: writes to no memory.
            done = done.and_then(|()| unsafe { sys::process::prctl(PR_SET_DUMPABLE, 1, 0, 0) }.map(drop));
        }
        if let Err(e) = done {
            die(Stage::SettingCredentials, e)
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
        die(Stage::JoiningProcessGroup, e)
    }
    // The groups are there: whoever is one's first member has made it at once.
    for one in processes.iter().filter(|one| one.parent == own.pid && one.ended.get() == 1 && one.group != one.pid) {
        if one.group != own.group
            && one.group != root.group
            && let Err(e) = child::set_group(one.pid.get(), one.group.get())
        {
            die(Stage::PuttingProcessHasEndedGroup, e)
        }
    }
    meet(&plan.tree, 2);
    for one in processes.iter().filter(|one| one.parent == own.pid && one.ended.get() == 2) {
        child::reap(one.pid.get());
    }
    if own.foreground != root.group && plan.tree.terminal >= 0 {
        let _ = sys::terminal::set_foreground(plan.tree.terminal, own.foreground.get() as i32);
    }
}
