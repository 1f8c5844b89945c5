//! What a save could leave behind in a process that goes on: a tracer, a child, a mask, a thread, a descriptor, a mapping.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{proc, wait};

/// A process as `/proc` shows it, without what changes by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// By thread: its mask of blocked signals and its tracer.
    threads: BTreeMap<u32, [String; 2]>,
    children: BTreeSet<u32>,
    /// Running processes of its session. One that has ended is a child of nobody but init, who takes its time.
    session: BTreeSet<u32>,
    descriptors: BTreeSet<(String, String)>,
    mappings: Vec<String>,
}

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
        let session = proc::session(pid)?.into_keys().filter(running).collect();
        let mut traces = Self { session, ..Self::default() };
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let tid = path.file_name().and_then(|name| name.to_str()?.parse().ok()).context("a thread's id")?;
            let status = fs::read_to_string(path.join("status"))?;
            let field = |name| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
            traces.threads.insert(tid, [field("SigBlk:"), field("TracerPid:")]);
            let children = fs::read_to_string(path.join("children"))?;
            traces.children.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let path = entry?.path();
            let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
            traces.descriptors.insert((name, fs::read_link(&path)?.display().to_string()));
        }
        if still == Still::All {
            traces.mappings = fs::read_to_string(format!("/proc/{pid}/maps"))?.lines().map(str::to_owned).collect();
        }
        Ok(traces)
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
        wait::until(look, || format!("process {pid} was {self:?}, is {:?}", Self::of(pid, still)))
    }
}
