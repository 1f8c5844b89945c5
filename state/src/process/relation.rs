//! Who is whose parent, in which process group and session, under which terminal: as `/proc` tells, in the ids by which the
//! processes know each other.

use image_format::NoteType;
use image_format::record::process::{NO_TERMINAL, Process, STOPPED, UNTOLD};
use sys::abi::signal::Siginfo;
use sys::abi::{P_PID, WALL, WNOHANG, WNOWAIT, WSTOPPED};
use sys::fs::Fd;
use sys::text::{Shown, decimal, words};
use sys::{Errno, Sysno};

use super::stat::Stat;
use crate::descriptor::{Kind, OpenFile};
use crate::inside::Arg;
use crate::target::status_value;
use crate::{Error, Result, Save, Target};

/// In [`Process::ended`]: the process is gone, and only its group is there still.
const GROUP: u32 = 2;

/// A process as one of a tree.
#[derive(Clone, Copy, Debug)]
pub struct Relation {
    /// Its record; the terminal is still to be found among the open files.
    pub record: Process,
    /// Device number of its terminal; 0 for none.
    terminal: u64,
    /// As the saver sees it: its process group, and its terminal's foreground group.
    group: i64,
    foreground: i64,
    name: [u8; 16],
}

/// Device number of a process's terminal; 0 for none.
pub(crate) fn terminal(proc: Fd) -> u64 {
    Stat::read(proc).map_or(0, |stat| u64::from(stat.field(7) as u32))
}

impl Relation {
    /// Reads it. `parent` is the parent's own id; 0 for the root.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(proc: Fd, parent: u32) -> Result<Self> {
        let failed = |e| Error::failed(format_args!("process"), "its place in the tree cannot be read", e);
        let stat = Stat::read(proc).map_err(failed)?;
        let innermost = |key: &[u8]| {
            let mut buffer = [0; 256];
            let ids = status_value(proc, c"status", key, &mut buffer).map_err(failed)?;
            let id = ids.and_then(|ids| words(ids).last()).and_then(decimal).and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| failed(Errno::ENODATA))
        };
        let status = stat.field(52);
        let mut text = [0; 64];
        let state = status_value(proc, c"status", b"State", &mut text).map_err(failed)?;
        let ended = state.is_some_and(|state| matches!(state, [b'Z' | b'X', ..]));
        let record = Process {
            pid: innermost(b"NSpid")?.into(),
            parent: parent.into(),
            group: innermost(b"NSpgid")?.into(),
            session: innermost(b"NSsid")?.into(),
            terminal: NO_TERMINAL.into(),
            foreground: 0.into(),
            exit_signal: (stat.field(38).clamp(0, 64) as u32).into(),
            ended: u32::from(ended).into(),
            status: if ended { status as u32 & 0xffff } else { 0 }.into(),
            stopped: 0.into(),
        };
        let (group, foreground) = (stat.field(5), stat.field(8));
        Ok(Self { record, terminal: stat.field(7) as u32 as u64, group, foreground, name: stat.name })
    }

    /// The same of a process of which it is known whether a signal has stopped it.
    #[must_use]
    pub fn stopped(mut self, stopped: bool) -> Self {
        self.record.stopped = u32::from(stopped).into();
        self
    }

    /// Whether it has ended, and waits for its parent.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.record.ended.get() != 0
    }

    /// What is left of a process group whose leader is gone, for the others of it; `None`: its leader is there, or it is the root's. `root`,
    /// `parent`: these; `is_there`: whether a process, by its own id, is there, or has ended and was not waited for.
    ///
    /// # Errors
    /// Groups and sessions that came about in a way that no restart can repeat.
    pub fn group_left(
        &self,
        root: &Self,
        parent: Option<&Self>,
        is_there: impl FnOnce(u32) -> bool,
    ) -> Result<Option<Self>> {
        let own = &self.record;
        let name = self.name.split(|b| *b == 0).next().unwrap_or_default();
        if own.parent.get() != 0 && own.session != own.pid && parent.is_none_or(|p| p.record.session != own.session) {
            return Err(Error::refused(
                format_args!("process {} ({})", own.pid, Shown(name)),
                "is in another session than its parent, and leads none",
                "save it by itself",
            ));
        }
        if own.group == root.record.group || is_there(own.group.get()) {
            return Ok(None);
        }
        let record = Process {
            pid: own.group,
            parent: own.parent,
            ended: GROUP.into(),
            status: 0.into(),
            stopped: 0.into(),
            ..self.record
        };
        Ok(Some(Self { record, name: [0; 16], ..*self }))
    }

    /// Finds the terminal among the open files.
    fn complete(&self, all: &[Self], files: &[OpenFile]) -> Result<Process> {
        let (mut record, root) = (self.record, self.record.parent.get() == 0);
        let leads = record.session == record.pid;
        if self.terminal == 0 || record.ended.get() != 0 || !leads && !root {
            return Ok(record);
        }
        let is_it = |f: &&OpenFile| f.rdev == self.terminal && f.mode & sys::abi::S_IFMT == sys::abi::S_IFCHR;
        let found = files.iter().find(is_it);
        let outside = found.is_none_or(|f| f.kind == Kind::Terminal as u32);
        if outside && !root {
            let name = self.name.split(|b| *b == 0).next().unwrap_or_default();
            return Err(Error::refused(
                format_args!("process {} ({})", record.pid, Shown(name)),
                "leads a session on a terminal that is not the tree's",
                "save it by itself",
            ));
        }
        // A shell's job may have ended before the shell has taken the terminal back; then the shell has it.
        let foreground = all.iter().find(|r| r.group == self.foreground).or(leads.then_some(self));
        if let (Some(file), Some(foreground)) = (found, foreground) {
            (record.terminal, record.foreground) = (file.id.into(), foreground.record.group);
        }
        Ok(record)
    }
}

/// Whether the process that is entered has yet to be told that its child was stopped.
fn awaits<T: Target>(target: &mut T, child: u32) -> Result<bool> {
    let (options, none) = (WSTOPPED | WNOHANG | WNOWAIT | WALL, Arg::Value(0));
    let args = [Arg::Value(P_PID), Arg::Value(child as usize), Arg::Data(0), Arg::Value(options), none, none];
    let mut info = [0; size_of::<Siginfo>()];
    // SAFETY: fills the structure.
    unsafe { target.call(Sysno::waitid, args, &mut info) }.map_err(|e| {
        let object = format_args!("process {child} (stopped)");
        Error::failed(object, "its parent cannot be asked whether it knows that", e)
    })?;
    Ok(info.iter().any(|byte| *byte != 0))
}

/// Writes the table. The root is entered, and stays so.
///
/// # Errors
/// A session whose terminal cannot be carried; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, relations: &[Relation], files: &[OpenFile]) -> Result<()> {
    save.notes.begin(NoteType::Process)?;
    for one in relations {
        let mut record = one.complete(relations, files)?;
        let parent =
            relations.iter().position(|other| other.record.pid == record.parent && other.record.ended.get() == 0);
        if let Some(parent) = parent.filter(|_| record.stopped.get() != 0) {
            save.target.enter(parent);
            let untold = awaits(save.target, record.pid.get());
            save.target.enter(0);
            record.stopped = if untold? { UNTOLD } else { STOPPED }.into();
        }
        save.notes.push(&record)?;
    }
    save.notes.end()?;
    Ok(())
}
