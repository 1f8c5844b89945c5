//! One save, made by a child of its own: signals are handed on meanwhile, and the saver's waiting for the program's threads is not mixed
//! up with this command's for its child.
//!
//! Must never save a program that is not itself yet.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use ckpt::output::Placing;
use ckpt::remote::{Ending, Options, Tcp};
use sys::abi::signal::SIGTERM;
use sys::child::Change;

use super::job::Job;
use super::witness;
use crate::apart;
use crate::command::save::milliseconds;
use crate::compress::Compression;
use crate::failure::{Failure, errno};
use crate::saver::{self, To};
use crate::supervise::pipe;
use crate::text;

/// What happens to the program after a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum After {
    /// It goes on.
    GoOn,
    /// It is ended.
    End,
}

/// How the program is saved.
#[derive(Clone, Debug)]
pub struct How {
    /// Where to.
    pub image: PathBuf,
    /// What it is.
    pub job: Job,
    /// How often it was restarted.
    pub generation: u32,
    /// How many images are kept, that one among them.
    pub keep: u32,
    /// TCP connections to other processes do not block a save.
    pub tcp: Tcp,
    /// Which open files' contents are carried.
    pub with_files: state::WithFiles,
    /// How the image is compressed.
    pub compression: Option<Compression>,
}

impl How {
    /// How a program is saved that was restarted: this often, with these files in the place of standard streams, see [`Job::reopened`].
    pub fn after(&self, generation: u32, reopened: [(u64, u64); 3]) -> Self {
        let mut how = Self { generation, ..self.clone() };
        how.job.reopened = reopened;
        how
    }
}

/// A save under way.
#[derive(Debug)]
pub struct Attempt {
    /// The child that makes it.
    pub pid: i32,
    /// What becomes of the program.
    pub after: After,
    /// What the child has to say.
    says: File,
}

impl Attempt {
    /// Begins one. `ending`: the program's processes when somebody asked for the end of them all.
    pub fn begin(program: i32, how: &How, after: After, ending: Option<&[i32]>) -> Result<Self, Failure> {
        let (says, tell) = pipe()?;
        let parent = sys::process::pid();
        // SAFETY: this command has one thread.
        let pid = unsafe { sys::child::fork(None) }.map_err(|e| errno("a process that saves", e))?;
        if pid == 0 {
            drop(says);
            apart::begin(parent);
            let kill = after == After::End;
            let ending = ending.filter(|_| kill).map(|processes| Ending {
                signal: SIGTERM,
                processes,
                went_to_all: witness::was_hit,
            });
            let job = Some(how.job.record(how.generation));
            let (tcp, with_files) = (how.tcp, how.with_files);
            let placing = Placing { older: how.keep - 1, ..Placing::default() };
            let given_up: Option<fn() -> bool> = Some(apart::is_given_up);
            let options = Options { kill, tcp, with_files, job, ending, placing, given_up, ..Options::default() };
            let saved = saver::save(program, To::File(&how.image), options, how.compression);
            let failed = saved.is_err();
            let words = match saved {
                Ok(report) => {
                    let (pause, total) = (milliseconds(report.pause), milliseconds(report.total));
                    format!("{}, paused {pause}, total {total}", text::size(report.bytes))
                }
                Err(failure) => failure.into_parts().1,
            };
            // Whoever would read it may be gone.
            let _ = File::from(tell).write_all(words.as_bytes());
            sys::process::exit(i32::from(failed))
        }
        Ok(Self { pid, after, says: says.into() })
    }

    /// What it took, or why it has failed, once its child has ended so.
    pub fn outcome(mut self, end: Change) -> Result<String, String> {
        let mut words = String::new();
        let _ = self.says.read_to_string(&mut words);
        match end {
            Change::Exited(0) => Ok(words),
            _ if words.is_empty() => Err("the process that saves has ended early".to_owned()),
            _ => Err(words),
        }
    }

    /// The same, waited for.
    pub fn finish(self) -> Result<String, String> {
        match sys::child::wait(self.pid, true) {
            Ok(Some((_, end @ (Change::Exited(_) | Change::Killed(_))))) => self.outcome(end),
            _ => Err("the process that saves is not there any more".to_owned()),
        }
    }
}
