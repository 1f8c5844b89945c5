//! The processes of a tree, a row each: whose child it is, and how large.

use super::layout::table;
use super::report::Process;
use crate::text::size;

/// Characters of a command that are shown here; all of it stands below.
const COMMAND: usize = 36;

/// One row for each process, children below their parents.
pub fn render(processes: &[Process]) -> String {
    let all = in_order(processes);
    let mut rows = Vec::new();
    for (place, (depth, one)) in all.iter().enumerate() {
        let command = if one.command.is_empty() { &one.executable } else { &one.command };
        let mut short: String = command.chars().take(COMMAND).collect();
        if short.len() < command.len() {
            short.push('…');
        }
        let behind = all.get(place + 1..).unwrap_or_default();
        rows.push(vec![
            format!("{}{}", branches(*depth, behind), one.pid),
            one.threads.len().to_string(),
            one.descriptors.len().to_string(),
            size(one.memory.saved),
            short,
        ]);
    }
    table(&["PROCESS", "THREADS", "FILES", "SAVED", "COMMAND"], &[1, 2, 3], rows)
}

/// The processes, each in front of its children, with how many ancestors it has here.
pub fn in_order(processes: &[Process]) -> Vec<(usize, &Process)> {
    // An image has each process behind its parent: so no circle is among them.
    let is_child = |one: &Process, of: &Process| one.parent == Some(of.pid) && one.pid != of.pid;
    let roots = processes.iter().filter(|one| !processes.iter().any(|other| is_child(one, other)));
    let mut left: Vec<_> = roots.map(|root| (0, root)).collect();
    left.reverse();
    let mut all = Vec::new();
    while let Some((depth, one)) = left.pop() {
        all.push((depth, one));
        left.extend(processes.iter().rev().filter(|child| is_child(child, one)).map(|child| (depth + 1, child)));
    }
    all
}

/// What stands before a process of this depth: lines from its ancestors to their later children.
fn branches(depth: usize, behind: &[(usize, &Process)]) -> String {
    let goes_on = |level: usize| behind.iter().map(|(depth, _)| *depth).take_while(|d| *d >= level).any(|d| d == level);
    let mut out = String::new();
    for level in 1..=depth {
        out += match (level == depth, goes_on(level)) {
            (true, true) => "├─",
            (true, false) => "└─",
            (false, true) => "│ ",
            (false, false) => "  ",
        };
    }
    out
}
