//! What the suites share: build a guest, start it as some user, save it, kill it, restart it, and see what it says.
//!
//! Every wait has a deadline, and its message shows all that the process wrote. A test ends only processes that
//! it started itself, by pid, and a [`Place`] takes its files with it. Must never wait by sleeping for a guessed time: a
//! loop with a short nap is only for states that nothing announces (`/proc`, an image that is renamed into place).

pub mod capture;
pub mod container;
pub mod dist;
pub mod forge;
pub mod image;
pub mod job;
pub mod left_out;
pub mod net;
pub mod own;
pub mod place;
pub mod proc;
pub mod programs;
pub mod pty;
pub mod relaid;
pub mod remote;
pub mod slurm;
pub mod sshd;
pub mod steps;
pub mod systemd;
pub mod table;
pub mod tmux;
pub mod traces;
pub mod user;
pub mod vms;
pub mod wait;

pub use job::{Ended, Job};
pub use place::Place;
pub use pty::Pty;
pub use user::User;

/// What a guest prints when it is set up.
pub const READY: &str = "ready";
