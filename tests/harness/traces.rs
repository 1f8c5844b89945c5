//! What a save could leave behind in a process that goes on: a tracer, a child, a mask, a thread, a descriptor, a mapping.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};

use crate::{proc, wait};

/// A process as `/proc` shows it, without what changes by itself: a line for each thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

/// How much of a process stays the same when nobody touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Still {
    /// All of it.
    All,
    /// Not its mappings: it takes memory and gives it back.
    AllButMemory,
}

impl Traces {
    /// What there is now.
    ///
    /// # Errors
    /// It has ended.
    pub fn of(pid: u32, still: Still) -> Result<Self> {
        let running = |pid: &u32| proc::state(*pid).is_some_and(|state| state != 'Z' && state != 'X');
        ensure!(running(&pid), "process {pid} has ended");
        let mut lines = BTreeSet::new();
        // One that has ended is a child of nobody but init, who takes its time.
        let session = proc::session(pid)?.into_keys().filter(running);
        lines.extend(session.map(|pid| format!("process {pid} in its session")));
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let status = fs::read_to_string(path.join("status"))?;
            for name in ["Pid:", "SigBlk:", "TracerPid:"] {
                lines
                    .extend(status.lines().filter(|l| l.starts_with(name)).map(|l| format!("{}: {l}", path.display())));
            }
            let children = fs::read_to_string(path.join("children"))?;
            lines.extend(children.split_whitespace().map(|pid| format!("child {pid}")));
        }
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let path = entry?.path();
            lines.insert(format!("{} is {}", path.display(), fs::read_link(&path)?.display()));
        }
        if still == Still::All {
            lines.extend(fs::read_to_string(format!("/proc/{pid}/maps"))?.lines().map(str::to_owned));
        }
        Ok(Self(lines))
    }

    /// Waits until the process is again as it was; a saver that is killed is not waited for by what it leaves.
    ///
    /// # Errors
    /// It does not become so.
    pub fn wait_again(&self, pid: u32, still: Still) -> Result<()> {
        let look = || {
            // A thread that ends while it is looked at is an error for a moment, and the process's end one for ever.
            let now = Self::of(pid, still);
            ensure!(!matches!(proc::state(pid), None | Some('Z' | 'X')), "process {pid} has ended");
            Ok(now.is_ok_and(|now| now == *self).then_some(()))
        };
        let otherwise = || match Self::of(pid, still) {
            Ok(now) => {
                let missing = self.0.difference(&now.0).collect::<Vec<_>>();
                format!("process {pid} lacks {missing:#?}, has {:#?}", now.0.difference(&self.0).collect::<Vec<_>>())
            }
            Err(error) => format!("process {pid}: {error}"),
        };
        wait::until(look, otherwise)
    }
}
