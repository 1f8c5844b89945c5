//! A program that is saved and restarted for the clock. Must never be compared with a peer that was measured in
//! another run: each figure stands beside its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::guest::{Guest, TIMEOUT};
use crate::watch::{self, Watch};
use crate::workspace::Workspace;

const IMAGE: &str = "bench.ckpt";

/// A program under the preload library, in a directory of its own.
pub struct Subject<'w> {
    ws: &'w Workspace,
    dir: PathBuf,
    guest: Guest,
    watch: Watch,
    /// What there was to save when it was ready.
    pub held: Held,
}

impl<'w> Subject<'w> {
    /// Starts `program` in `dir` and waits for its first line.
    ///
    /// # Errors
    /// It cannot be started, or says nothing.
    pub fn start(ws: &'w Workspace, program: &Path, args: &[&str], dir: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(args).current_dir(dir);
        command.env("LD_PRELOAD", ws.dist("libckpt.so")).env("CKPT_IMAGE", IMAGE).env("CKPT_SIGNAL", "USR1");
        // A file of its own: one that the caller writes to would have grown by the restart.
        command.stderr(File::create(dir.join("stderr"))?);
        let mut guest = piped(command)?;
        guest.line()?.context("the program said nothing")?;
        let held = Held::by(guest.pid())?;
        Ok(Self { ws, dir: dir.into(), guest, watch: Watch::new(dir)?, held })
    }

    /// Its image.
    pub fn image(&self) -> PathBuf {
        self.dir.join(IMAGE)
    }

    /// Saves it once: from the signal to the image's rename.
    ///
    /// # Errors
    /// No image appears.
    pub fn save(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.guest.signal(Signal::USR1)?;
        if !self.watch.wait(IMAGE, TIMEOUT)? {
            bail!("no image appeared: {}", fs::read_to_string(self.dir.join("stderr"))?.trim());
        }
        Ok(start.elapsed())
    }

    /// The image's size in bytes.
    ///
    /// # Errors
    /// It was not saved.
    pub fn image_size(&self) -> Result<u64> {
        watch::size(&self.image())
    }

    /// Ends the program; the image stays.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        self.guest.signal(Signal::KILL)
    }

    /// Restarts the image once: from the start of the stub to the program's first line. With `ask`, the program
    /// has then to say that its memory's sum is the same.
    ///
    /// # Errors
    /// The restart fails, or the sum differs.
    pub fn restart(&self, ask: bool) -> Result<Duration> {
        let mut command = Command::new(self.ws.dist("restart-stub"));
        command.arg(self.image());
        let mut guest = piped(command)?;
        guest.line()?.context("the restarted program said nothing")?;
        let took = guest.started.elapsed();
        if ask {
            guest.signal(Signal::USR2)?;
            let answer = guest.line()?.unwrap_or_default();
            ensure!(answer == "sum equal", "after the restart the memory is another: {answer}");
        }
        Ok(took)
    }
}

/// A program with a pipe for what it prints.
///
/// # Errors
/// It cannot be started.
pub fn piped(mut command: Command) -> Result<Guest> {
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer);
    Guest::start(command, reader.into())
}

/// What a process holds, in bytes.
pub struct Held {
    /// Resident pages.
    pub touched: u64,
    /// Pages of mapped files that it has not touched: saved too, so that an upgraded library is no obstacle.
    pub files: u64,
}

impl Held {
    fn by(pid: u32) -> Result<Self> {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        let (mut held, mut of_file, mut size) = (Self { touched: 0, files: 0 }, false, 0);
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            match first {
                "Size:" => size = second.parse::<u64>()? * 1024,
                "Rss:" => {
                    let resident = second.parse::<u64>()? * 1024;
                    held.touched += resident;
                    held.files += if of_file { size - resident } else { 0 };
                }
                // A mapping's first line: range, rights, offset, device, inode, name.
                _ if !first.ends_with(':') => of_file = words.nth(3).is_some_and(|name| name.starts_with('/')),
                _ => {}
            }
        }
        Ok(held)
    }
}
