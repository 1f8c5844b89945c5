//! A program that is saved and restarted for the clock. Must never be compared with a peer that was measured in
//! another run: each figure stands beside its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::guest::{Guest, PATIENCE};
use crate::watch::{self, Watch};
use crate::workspace::Workspace;

const IMAGE: &str = "bench.ckpt";

/// A program under the preload library, in a directory of its own.
pub struct Subject<'w> {
    ws: &'w Workspace,
    dir: PathBuf,
    guest: Guest,
    watch: Watch,
    /// Bytes that were resident when it was ready.
    pub touched: u64,
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
        let mut guest = piped(command)?;
        guest.line()?.context("the program said nothing")?;
        let touched = resident(guest.pid())?;
        Ok(Self { ws, dir: dir.into(), guest, watch: Watch::new(dir)?, touched })
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
        if !self.watch.wait(IMAGE, PATIENCE)? {
            bail!("no image appeared");
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

fn piped(mut command: Command) -> Result<Guest> {
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer);
    Guest::start(command, reader.into())
}

fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("smaps_rollup has Rss")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
