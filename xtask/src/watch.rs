//! Waiting for an image: a save ends when the file gets its name, which inotify tells at once.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

/// A directory in which an image will appear.
pub struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Watches `dir` for files that get a name in it when they are whole, from now on: by a link or a rename.
    ///
    /// # Errors
    /// The directory is not there, or the limit of watches is reached.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::on(dir, inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE)
    }

    /// Watches `dir` for these events.
    ///
    /// # Errors
    /// The directory is not there, or the limit of watches is reached.
    pub fn on(dir: &Path, events: inotify::WatchFlags) -> Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&inotify, dir, events).with_context(|| format!("watching {}", dir.display()))?;
        Ok(Self { inotify })
    }

    /// Waits until a watched event happens to the file `name` in the directory; false after `limit`.
    ///
    /// # Errors
    /// inotify fails.
    pub fn wait(&self, name: &str, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        loop {
            if self.arrived(name)? {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            wait_readable(&self.inotify, left)?;
        }
    }

    fn arrived(&self, name: &str) -> Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) if event.file_name().is_some_and(|n| n.to_bytes() == name.as_bytes()) => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(e) => return Err(e).context("reading inotify"),
            }
        }
    }
}

/// Waits until `fd` can be read or is at its end; false after `limit`.
///
/// # Errors
/// poll(2) fails.
pub fn wait_readable(fd: impl AsFd, limit: Duration) -> Result<bool> {
    let time = Timespec { tv_sec: limit.as_secs().try_into()?, tv_nsec: limit.subsec_nanos().into() };
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&time)) {
            Ok(n) => return Ok(n > 0),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
    }
}

/// The size of an image in bytes.
///
/// # Errors
/// It is not there.
pub fn size(image: &Path) -> Result<u64> {
    Ok(fs::metadata(image).with_context(|| format!("the image {}", image.display()))?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_seen() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let from = dir.path().join("unnamed");
        fs::write(&from, "x")?;
        let watch = Watch::new(dir.path())?;
        fs::hard_link(&from, dir.path().join("whole"))?;
        assert!(watch.wait("whole", Duration::from_secs(5))?);
        Ok(())
    }

    #[test]
    fn a_rename_is_seen_and_another_name_is_not() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("half"), "x")?;
        let watch = Watch::new(dir.path())?;
        fs::rename(dir.path().join("half"), dir.path().join("whole"))?;
        assert!(!watch.wait("half", Duration::ZERO)?);
        fs::rename(dir.path().join("whole"), dir.path().join("again"))?;
        assert!(watch.wait("again", Duration::from_secs(5))?);
        Ok(())
    }
}
