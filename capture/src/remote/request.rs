//! How a save is asked for, and what it tells.

use std::time::Duration;

/// How to save.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Let the process stand still until the image is written.
    pub freeze: bool,
    /// End the process when the image is durable; it stands still until then.
    pub kill: bool,
    /// What becomes of TCP connections to other processes.
    pub tcp: Tcp,
    /// Carry the contents of open files, too, for where they are missing.
    pub with_files: state::WithFiles,
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
#[derive(Clone, Copy, Debug)]
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
}
