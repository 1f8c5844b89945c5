//! What System V objects of a process no image holds: message queues, what `SEM_UNDO` has to undo, sets that cannot be read, and all of
//! another IPC namespace.
//! Named when the process is saved.
//!
//! Must never touch them, nor make the process ask for them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sys::sysv::{PID, semaphore};

/// `KCMP_SYSVSEM`: one list of what is to be undone, or none at all.
const UNDO: usize = 6;

/// A line for each thing that process `pid`, or one of `all` that descend from it, has used last and that is not carried, as far as this user may know.
pub fn used(pid: i32, all: BTreeSet<i32>) -> Vec<String> {
    let namespace = |pid: &str| PathBuf::from(format!("/proc/{pid}/ns/ipc"));
    let (own, its) = (namespace("self"), namespace(&pid.to_string()));
    if fs::read_link(&own).ok() == fs::read_link(&its).ok() {
        return told(&all, true);
    }
    // It is this thread's alone, which ends.
    let there = std::thread::Builder::new().spawn(move || {
        let file = File::open(its).ok()?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::InterProcessCommunication)).ok()?;
        Some(told(&all, false))
    });
    there.ok().and_then(|there| there.join().ok().flatten()).unwrap_or_else(|| {
        let what =
            "is in another IPC namespace: System V semaphores and message queues that it uses are not in the image";
        vec![format!("process {pid}: {what}")]
    })
}

/// Of the namespace that this thread is in; `carries`: semaphores are in the image.
fn told(all: &BTreeSet<i32>, carries: bool) -> Vec<String> {
    const MISSING: &str = "the system's, and not in the image: must be there at the restart";
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let is_ours = |pid: &i64| i32::try_from(*pid).is_ok_and(|pid| all.contains(&pid));
    // Whoever has never used it has no list, as this process.
    let undoes = || all.iter().any(|pid| sys::process::shares(own, *pid, UNDO) != Some(true));
    let mut lines = Vec::new();
    for row in rows("sem") {
        let [key, id, _, count, ..] = row[..] else { continue };
        let (Ok(id), Ok(count)) = (i32::try_from(id), usize::try_from(count)) else { continue };
        let is_used = (0..count).any(|n| semaphore(id, n, PID).is_ok_and(|pid| all.contains(&pid)));
        let key = key as u32;
        if is_used && !carries {
            lines.push(format!("System V semaphores {id} (key {key:#x}): {MISSING}"));
        } else if carries && !is_used && is_unread(&row) {
            let what = "cannot be read: if the process uses them, they must be there at the restart";
            lines.push(format!("System V semaphores {id} (key {key:#x}): {what}"));
        } else if is_used && undoes() {
            let what = "what SEM_UNDO may have to undo cannot be read, and is not in the image";
            lines.push(format!("System V semaphores {id} (key {key:#x}): {what}"));
        }
    }
    for row in rows("msg") {
        let [key, id, _, _, _, sender, receiver, ..] = row[..] else { continue };
        if [sender, receiver].iter().any(is_ours) {
            lines.push(format!("System V message queue {id} (key {:#x}): {MISSING}", key as u32));
        }
    }
    lines
}

/// Whether a set may be used and not be read by this user, so that nobody tells who has used it: then it may be the process's. In a
/// user namespace sets of all users that it does not know look like one user's.
fn is_unread(row: &[i64]) -> bool {
    let [_, id, mode, _, uid, _, cuid, ..] = *row else { return false };
    let (Ok(id), user) = (i32::try_from(id), i64::from(sys::process::effective_uid())) else { return false };
    // Its octal digits, read as decimal ones.
    let may_alter = (mode / 100) & 2 != 0;
    may_alter && [uid, cuid].contains(&user) && semaphore(id, 0, PID) == Err(sys::Errno::EACCES)
}

/// The numbers of each line of a table of `/proc/sysvipc` (proc(5)).
fn rows(table: &str) -> Vec<Vec<i64>> {
    let text = fs::read_to_string(format!("/proc/sysvipc/{table}")).unwrap_or_default();
    text.lines().skip(1).map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect()).collect()
}

/// A process and all that descend from it.
pub fn tree(pid: i32) -> BTreeSet<i32> {
    let (mut all, mut new) = (BTreeSet::new(), vec![pid]);
    while let Some(pid) = new.pop() {
        if !all.insert(pid) {
            continue;
        }
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            new.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    all
}
