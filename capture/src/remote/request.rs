//! How a save is asked for, and what it tells.

use std::time::Duration;

use sys::fs::Owned;

use super::connections::Shielded;
use crate::output::{Placing, Progress};
use crate::session::Job;

/// How to save.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Let the process stand still until the image is written.
    pub freeze: bool,
    /// End the process when the image is durable; it stands still until then.
    pub kill: bool,
    /// What becomes of TCP connections to other processes.
    pub tcp: Tcp,
    /// Carry the contents of open files, too, for where they are missing.
    pub with_files: state::WithFiles,
    /// How the image takes its place, if that is a file's.
    pub placing: Placing,
    /// A signal that asked for the end, and may have been sent to the processes, too.
    pub ending: Option<Ending<'a>>,
    /// Tells that nobody wants the save any more: it is given up, and what was changed is put back.
    pub given_up: Option<fn() -> bool>,
    /// Where the save says how far it is.
    pub progress: Option<&'static Progress>,
    /// The job that the process is the root of, which the image names.
    pub job: Option<Job<'a>>,
}

/// A save after which the process ends, as somebody has asked for by a signal that may have gone to everybody at once.
#[derive(Clone, Copy, Debug)]
pub struct Ending<'a> {
    /// What has reached the processes of it is kept from them, and is not in the image.
    pub signal: i32,
    /// The process and all that descended from it and lived when the signal came. If it was sent to them, too, and one of them has ended, the
    /// save is refused: the others would go on without it.
    pub processes: &'a [i32],
    /// Whether it did go to all, as far as anybody can tell by now. Then only what cannot have made anything of it is saved: one process for
    /// which it waits still, and which has never waited for a child that it may have ended.
    pub went_to_all: fn() -> bool,
}

/// What becomes of TCP connections to other processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tcp {
    /// The save is refused.
    #[default]
    Refuse,
    /// The restarted process gets them reset.
    Reset,
    /// They are carried, where the process ends with the save.
    Keep,
}

/// What a save took.
#[derive(Debug)]
pub struct Report {
    /// Length of the image, bytes.
    pub bytes: u64,
    /// How long the process stood still.
    pub pause: Duration,
    /// From the call to the durable image.
    pub total: Duration,
    /// Threads that were saved, of all processes.
    pub threads: usize,
    /// Processes that were saved: it and all that descend from it.
    pub processes: usize,
    /// Why the process stood still all the time, although it need not have.
    pub frozen: Option<&'static str>,
    /// What keeps packets from connections that are carried, when the process has ended.
    pub shielded: Option<Shielded>,
    /// Processes that a security module (Landlock, AppArmor, …) restricts, as far as that can be known: that is in no image.
    pub confined: usize,
    /// The image that was replaced: what it occupies is freed when this is dropped, and nobody need wait for that.
    pub replaced: Option<Owned>,
}
