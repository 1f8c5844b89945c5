//! Scheduling of threads: policy, nice value, I/O priority, and the CPUs that they keep to.
//!
//! Only what the program has chosen: default values, and CPUs that the process has from its parent, are those of whoever
//! restarts it. Must never make a restart fail: what cannot be had again is said, and the thread goes on without.

use image_format::record::sched::{Affinity, CPUS_MAX, Sched};
use image_format::{Checked, NoteType};
use sys::Errno;
use sys::sched::{ATTR_LEN, CPU_WORDS};
use zerocopy::{FromZeros, IntoBytes};

use crate::target::parent;
use crate::{Error, Result, Save, Target};

/// What ioprio_get(2) says of a thread that has set nothing: no class, or what the nice value 0 means (best effort, 4).
const NO_IO_PRIORITY: [u32; 3] = [0, 4, 2 << 13 | 4];

/// Saves that of the threads with these ids.
///
/// # Errors
/// It cannot be read.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, tids: impl Iterator<Item = i32> + Clone) -> Result<()> {
    let failed = |tid: i32| move |e| Error::failed(format_args!("scheduling of thread {tid}"), "cannot be read", e);
    save.notes.begin(NoteType::Sched)?;
    for tid in tids.clone() {
        let here = save.target.tid_here(tid);
        let attr = sys::sched::attr(here).map_err(failed(tid))?;
        let mut record = Sched::new_zeroed();
        for (to, from) in record.as_mut_bytes().iter_mut().zip(attr) {
            *to = from;
        }
        record.tid = (tid as u32).into();
        let io_priority = sys::sched::io_priority(here).map_err(failed(tid))?;
        if !NO_IO_PRIORITY.contains(&io_priority) {
            record.io_priority = io_priority.into();
        }
        let chosen = record.policy.get() != 0 || record.nice.get() != 0 || record.flags.get() != 0;
        if chosen || record.io_priority.get() != 0 {
            save.notes.push(&record)?;
        }
    }
    save.notes.end()?;
    let parents = parents_cpus(save.target);
    save.notes.begin(NoteType::Affinity)?;
    for tid in tids {
        let cpus = sys::sched::affinity(save.target.tid_here(tid)).map_err(failed(tid))?;
        for (word, first) in
            cpus.iter().zip((0..CPUS_MAX).step_by(64)).filter(|(word, _)| **word != 0 && cpus != parents)
        {
            let cpus = (*word).into();
            save.notes.push(&Affinity { tid: (tid as u32).into(), first: first.into(), cpus })?;
        }
    }
    save.notes.end()?;
    Ok(())
}

/// The CPUs of the process's parent, or of that of the tree's root: those that a restart has. Where the parent cannot be seen, of the saver,
/// or, who may be a thread of the process with CPUs of its own, of its namespace's first process. None: none can be had.
fn parents_cpus<T: Target>(target: &T) -> [u64; CPU_WORDS] {
    let parent = parent(target.proc_of(0)).unwrap_or(0) as i32;
    let instead = if !T::IN_PROCESS { Some(0) } else { Some(1).filter(|first| target.pid() != *first) };
    let seen = [Some(parent).filter(|parent| *parent != 0), instead];
    seen.into_iter().flatten().find_map(|pid| sys::sched::affinity(pid).ok()).unwrap_or([0; CPU_WORDS])
}

/// Gives the calling thread what the thread `tid` had. `lost` gets each thing that cannot be had.
pub fn restore(image: &Checked<'_>, tid: u32, lost: impl Fn(&'static str, Errno)) {
    let told = |what, done: sys::Result<()>| {
        if let Err(e) = done {
            lost(what, e);
        }
    };
    for sched in image.each::<Sched>().with(tid) {
        let mut attr = *sched;
        // Its place in the kernel's structure is that of the length.
        attr.tid = (ATTR_LEN as u32).into();
        if let Some(attr) = attr.as_bytes().first_chunk() {
            told("scheduling", sys::sched::set_attr(attr));
        }
        if sched.io_priority.get() != 0 {
            told("I/O priority", sys::sched::set_io_priority(sched.io_priority.get()));
        }
    }
    let (mut cpus, mut own) = ([0; CPU_WORDS], false);
    for some in image.each::<Affinity>().with(tid) {
        if let Some(word) = cpus.get_mut(some.first.get() as usize / 64) {
            *word = some.cpus.get();
            own = true;
        }
    }
    if own {
        told("CPUs", sys::sched::set_affinity(&cpus));
    }
}
