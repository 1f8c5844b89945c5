//! The processes and threads that a restart makes, and their ids.

use image_format::record::process::Process;
use image_format::record::thread::{Thread, ThreadFlags};
use image_format::{Checked, Fault, Rule};
use loader::options::Options;
use state::restart::{Error, Result};

use crate::heap;
use crate::prepare::Input;

/// What a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The process at this place of the tree.
    Process(u32),
    /// The thread with this index in its process's table.
    Thread(u32),
}

/// A task besides the root's first thread.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Its id.
    pub id: u32,
    /// The place of the process that makes it.
    pub maker: u32,
    /// What it is.
    pub what: What,
}

/// All tasks.
#[derive(Clone, Copy, Debug)]
pub struct Tasks {
    /// Ascending by id.
    pub all: &'static [Task],
    /// Whether each id is greater than that of the process that makes it.
    pub ascending: bool,
}

impl Tasks {
    /// Of an image: its own threads, its other processes, and their threads.
    ///
    /// # Errors
    /// The image of one of them cannot be read, or is damaged.
    pub fn of(image: &Checked<'_>, input: &Input, options: &Options<'_>) -> Result<Self> {
        let processes = image.table::<Process>();
        let mut count = image.table::<Thread>().len() + processes.len();
        for (place, process) in (0..).zip(processes) {
            if place != 0 && process.ended == 0 {
                count += input.member(options, place)?.image().table::<Thread>().len();
            }
        }
        let empty = Task { id: 0, maker: 0, what: What::Thread(0) };
        let list = heap::list(count, empty)?;
        let mut rest = list.iter_mut();
        let mut add = |id: u32, maker: u32, what: What| {
            if let Some(place) = rest.next() {
                *place = Task { id, maker, what };
            }
        };
        threads(image, 0, &mut add);
        for (place, process) in (0..).zip(processes) {
            if place == 0 {
                continue;
            }
            let parent = (0..).zip(processes).find(|(_, one)| one.pid == process.parent);
            let no_parent = Fault::malformed(Rule::ProcessWithoutParent, 0);
            let (maker, _) = parent.ok_or_else(|| Error::of_image(options.image, no_parent))?;
            add(process.pid.get(), maker, What::Process(place));
            if process.ended == 0 {
                threads(input.member(options, place)?.image(), place, &mut add);
            }
        }
        let free = rest.len();
        let used = list.len() - free;
        let all = list.get_mut(..used).unwrap_or_default();
        sort(all);
        let root = image.header().pid.get();
        let pid_of = |place: u32| processes.get(place as usize).map_or(root, |process| process.pid.get());
        let ascending = all.iter().all(|task| task.id > pid_of(task.maker));
        Ok(Self { all, ascending })
    }
}

impl Tasks {
    /// All their ids, ascending, and one more; `root` is the root's own id, behind which it belongs.
    ///
    /// # Errors
    /// No memory.
    pub fn ids(&self, more: Option<u32>, root: u32) -> Result<&'static [u32]> {
        let list = heap::list(self.all.len() + 1, 0)?;
        let before = self.all.iter().take_while(|task| task.id < root).count();
        let (first, behind) = self.all.split_at_checked(before).unwrap_or_default();
        let wanted = first.iter().map(|task| task.id).chain(more).chain(behind.iter().map(|task| task.id));
        let mut count = 0;
        for (slot, id) in list.iter_mut().zip(wanted) {
            *slot = id;
            count += 1;
        }
        Ok(list.get(..count).unwrap_or_default())
    }
}

/// The threads of a process but its first.
fn threads(image: &Checked<'_>, place: u32, add: &mut impl FnMut(u32, u32, What)) {
    for (index, thread) in (0..).zip(image.each::<Thread>()) {
        if thread.flags.get() & ThreadFlags::LEADER.bits() == 0 {
            add(thread.tid.get(), place, What::Thread(index));
        }
    }
}

/// Sorts by id, as a heap: the core library's own sorting is for far longer lists, and twice as long as all of this module.
fn sort(tasks: &mut [Task]) {
    let id = |tasks: &[Task], at: usize| tasks.get(at).map_or(0, |task| task.id);
    let swap = |tasks: &mut [Task], a: usize, b: usize| {
        // Never the same place twice.
        if let Ok([one, other]) = tasks.get_disjoint_mut([a, b]) {
            core::mem::swap(one, other);
        }
    };
    let sink = |tasks: &mut [Task], mut at: usize, end: usize| {
        loop {
            let child = 2 * at + 1;
            let greater = if child + 1 < end && id(tasks, child + 1) > id(tasks, child) { child + 1 } else { child };
            if greater >= end || id(tasks, at) >= id(tasks, greater) {
                return;
            }
            swap(tasks, at, greater);
            at = greater;
        }
    };
    for at in (0..tasks.len() / 2).rev() {
        sink(tasks, at, tasks.len());
    }
    for end in (1..tasks.len()).rev() {
        swap(tasks, 0, end);
        sink(tasks, 0, end);
    }
}
