//! Kernel objects: one file each, with its `save`, `check` and `restore` side by side.
//!
//! Saving runs inside a signal handler or under ptrace, restoring in a program without libc: no allocation, no
//! panic, no lock. Saving must never change the process that is saved; what it changes for a moment (a queue of
//! pending signals) it puts back. An object that cannot be carried is refused by name, never dropped.
//!
//! To add an object: this file's list, `image-format/src/record/`, `tests/programs/`, `docs/limits.md`.
#![no_std]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod content;
pub mod credentials;
pub mod cwd;
pub mod descriptor;
pub mod device;
pub mod directory;
pub mod epoll;
pub mod error;
pub mod eventfd;
pub mod frame;
pub mod gate;
pub mod guard;
pub mod index;
pub mod inotify;
pub mod inside;
pub mod io_uring;
pub mod itimer;
pub mod lock;
pub mod memory;
pub mod mm;
pub mod owner;
pub mod pending;
pub mod pidfd;
pub mod pipe;
pub mod pkey;
pub mod policy;
pub mod posix_timer;
pub mod process;
pub mod pty;
pub mod regular;
pub mod restart;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod semaphore;
pub mod setting;
pub mod shared_file;
pub mod sigaction;
pub mod sigio;
pub mod signalfd;
pub mod socket;
pub mod sysv;
pub mod target;
pub mod terminal;
pub mod thread;
pub mod timerfd;
pub mod umask;
pub mod wait;

pub use error::{Error, Kind as ErrorKind, Object, Result};
pub use inside::{Arg, Here, Inside, Question};
pub use policy::{FilesPolicy, WithFiles};
pub use target::{Save, Scratch, Target};
