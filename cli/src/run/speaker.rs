//! What `ckpt run` says while its program runs: one line for each thing, on standard error.
//!
//! That may be a log which the program writes, too, and which the next restart cuts back to its size at the save. So what was said since the last
//! save is kept beside the image, and said again then. Must never wait for a reader.

use std::fmt::Display;
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::lock::Lock;
use super::notify::Notify;
use crate::text;

/// Most lines that are kept.
const KEPT_MAX: usize = 100;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only what is wrong.
    Quiet,
    /// Also where the program begins, or goes on.
    Normal,
    /// Also each save.
    Verbose,
}

/// Says it.
#[derive(Debug)]
pub struct Speaker {
    level: Level,
    /// The lock's file keeps what was said.
    lock: Option<Lock>,
    /// What was said since the last save, with its time in front.
    since: Vec<String>,
    /// How many of them were said before the save that is under way.
    mark: usize,
    /// What the service manager gets.
    pub notify: Notify,
}

impl Speaker {
    /// As much as that, about the image of this lock.
    pub fn new(level: Level, lock: Lock) -> Self {
        Self { level, lock: Some(lock), since: Vec::new(), mark: 0, notify: Notify::from_environment() }
    }

    /// What is wrong.
    pub fn trouble(&mut self, what: impl Display) {
        self.at(Level::Quiet, what);
    }

    /// What one wants to know.
    pub fn say(&mut self, what: impl Display) {
        self.at(Level::Normal, what);
    }

    /// What one may want to know.
    pub fn detail(&mut self, what: impl Display) {
        self.at(Level::Verbose, what);
    }

    fn at(&mut self, level: Level, what: impl Display) {
        let what = what.to_string();
        self.notify.status(&what);
        if self.level < level {
            return;
        }
        // Kept before it is said: whoever has read it may end everything at once.
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        self.keep(format!("{time} {what}"));
        print(&what);
    }

    fn keep(&mut self, line: String) {
        if self.since.len() < KEPT_MAX {
            self.since.push(line);
            self.write();
        }
    }

    /// The image is not gone on from, or the log has all of it still.
    pub fn forget_last(&mut self) {
        self.write();
    }

    /// Says again what the last run has said since its save, when the log was cut back to that.
    pub fn say_again(&mut self) {
        let left = self.lock.as_ref().map(|lock| lock.left().to_vec()).unwrap_or_default();
        for line in left {
            if let Some((time, words)) = line.split_once(' ') {
                print(&format!("said at {time}: {words}"));
            }
            self.keep(line);
        }
    }

    /// A save begins: what was said until now, the image's files have.
    pub fn save_begins(&mut self) {
        self.mark = self.since.len();
    }

    /// It has succeeded.
    pub fn saved(&mut self) {
        self.since.drain(..self.mark.min(self.since.len()));
        self.mark = 0;
        self.write();
    }

    fn write(&mut self) {
        if let Some(lock) = &mut self.lock {
            lock.keep(&self.since);
        }
    }

    /// Gives the image free; `done`: nobody goes on from it.
    pub fn leave(&mut self, done: bool) {
        if done {
            self.since.clear();
            self.write();
        }
        drop(self.lock.take());
    }
}

/// One line, if there is room for it.
fn print(what: &str) {
    let stderr = std::io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut fds, Some(&Timespec::default())).is_ok_and(|n| n > 0) {
        text::note(what);
    }
}
