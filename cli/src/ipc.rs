//! System V semaphores and message queues that a process was the last to use: they belong to the system, are in no image, and are
//! therefore named when the process is saved.
//!
//! Must never touch them, nor make the process ask for them.

use std::collections::BTreeSet;
use std::fs;

/// Most semaphores of one set that are looked at.
const SEMAPHORES_MAX: u32 = 512;

/// A line for each set and each queue that process `pid`, or one that descends from it, has used last, as far as this user may know. A
/// process in another IPC namespace has none that are seen from here.
pub fn used(pid: i32) -> Vec<String> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/ipc")).ok();
    let (sets, queues) = (rows("sem"), rows("msg"));
    if sets.is_empty() && queues.is_empty() || namespace(&pid.to_string()) != namespace("self") {
        return Vec::new();
    }
    let all = family(pid);
    let is_ours = |pid: &i64| i32::try_from(*pid).is_ok_and(|pid| all.contains(&pid));
    let mut lines = Vec::new();
    for row in sets {
        let [key, id, _, count, ..] = row[..] else { continue };
        let Ok(id) = i32::try_from(id) else { continue };
        let count = u32::try_from(count).unwrap_or(0).min(SEMAPHORES_MAX);
        if (0..count).any(|n| sys::sysv::last_user(id, n).is_ok_and(|pid| all.contains(&pid))) {
            lines.push(told("semaphores", id.into(), key));
        }
    }
    for row in queues {
        let [key, id, _, _, _, sender, receiver, ..] = row[..] else { continue };
        if [sender, receiver].iter().any(is_ours) {
            lines.push(told("message queue", id, key));
        }
    }
    lines
}

fn told(what: &str, id: i64, key: i64) -> String {
    let key = key as u32;
    format!("System V {what} {id} (key {key:#x}): the system's, and not in the image: must be there at the restart")
}

/// The numbers of each line of a table of `/proc/sysvipc` (proc(5)).
fn rows(table: &str) -> Vec<Vec<i64>> {
    let text = fs::read_to_string(format!("/proc/sysvipc/{table}")).unwrap_or_default();
    text.lines().skip(1).map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect()).collect()
}

/// A process and all that descend from it.
fn family(pid: i32) -> BTreeSet<i32> {
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
