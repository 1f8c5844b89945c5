//! What a save waits for while the process runs: it passes by itself, or the save is refused.
//!
//! Must never be waited for while the process stands still.

use std::time::{Duration, Instant};

use state::{Error, Result};

/// How long a restart may take that is under way.
const RESTART_MAX: Duration = Duration::from_secs(10);

/// How long a program may take to read what inotify tells it.
const READER_MAX: Duration = Duration::from_secs(1);

/// How long exec may take to map a program.
const EXEC_MAX: Duration = Duration::from_millis(500);

/// Time that has passed since a save began.
#[derive(Clone, Copy, Debug)]
pub struct Waits(Instant);

impl Waits {
    /// With a save that began then.
    pub fn since(start: Instant) -> Self {
        Self(start)
    }

    /// A moment for the restart stub, which is at work in the process.
    pub fn for_restart(self, pid: i32) -> Result<()> {
        if self.0.elapsed() > RESTART_MAX {
            let why = "is still being restarted from an image";
            return Err(Error::refused(format_args!("process {pid}"), why, "save it when it goes on"));
        }
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    }

    /// A moment for a process that has no room for calls: it is calling exec perhaps. Else the refusal.
    pub fn for_exec(self, refusal: Error) -> Result<()> {
        if self.0.elapsed() > EXEC_MAX {
            return Err(refusal);
        }
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    }

    /// A moment for a program that is to read what was told to it: perhaps of the image's own temporary file, in a directory
    /// that it watches. Else the refusal.
    pub fn for_reader(self, refusal: Error) -> Result<()> {
        if self.0.elapsed() > READER_MAX {
            return Err(refusal);
        }
        std::thread::sleep(Duration::from_millis(10));
        Ok(())
    }
}
