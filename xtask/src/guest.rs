//! A program that was started here, line by line. Ends with its owner: a guest that is dropped is killed and reaped.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::watch::wait_readable;

/// The longest that any step of a demonstration or measurement may take.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A running program and the end of its terminal or pipe.
pub struct Guest {
    child: Child,
    output: OwnedFd,
    buffer: Vec<u8>,
    ended: bool,
    /// When it was started.
    pub started: Instant,
}

impl Guest {
    /// Starts `command`, whose standard output is the other end of `output`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, output: OwnedFd) -> Result<Self> {
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        // The command still holds the other end: without it the output ends when the program does.
        drop(command);
        Ok(Self { child, output, buffer: Vec::new(), ended: false, started })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The number of threads of the program now: its own, or those of the one that it looks after, as a restart does that keeps the ids.
    ///
    /// # Errors
    /// It has ended.
    pub fn threads(&self) -> Result<usize> {
        let mut pid = self.pid().to_string();
        loop {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            match children.split_whitespace().collect::<Vec<_>>()[..] {
                [child] => pid = child.to_string(),
                _ => return Ok(std::fs::read_dir(format!("/proc/{pid}/task"))?.count()),
            }
        }
    }

    /// The next line of its output, or nothing at the end of it.
    ///
    /// # Errors
    /// No line for [`TIMEOUT`].
    pub fn line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_string()));
            }
            if self.ended {
                return Ok(None);
            }
            if !wait_readable(&self.output, TIMEOUT)? {
                bail!("no line from process {} for {} s", self.pid(), TIMEOUT.as_secs());
            }
            let mut chunk = [0; 4096];
            match rustix::io::read(&self.output, &mut chunk) {
                Ok(0) | Err(Errno::IO) => self.ended = true, // A terminal whose last user is gone says EIO.
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e).context("reading a program's output"),
            }
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, signal).context("sending a signal")
    }

    /// Waits for its end; what it still prints is read first.
    ///
    /// # Errors
    /// It says nothing and does not end.
    pub fn finish(&mut self) -> Result<(Vec<String>, ExitStatus)> {
        let mut lines = Vec::new();
        while let Some(line) = self.line()? {
            lines.push(line);
        }
        Ok((lines, self.child.wait()?))
    }

    /// Ends it as a power cut would: SIGKILL. Returns the lines that it had still printed.
    ///
    /// # Errors
    /// It was gone before.
    pub fn kill(&mut self) -> Result<Vec<String>> {
        self.signal(Signal::KILL)?;
        Ok(self.finish()?.0)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pty::Pty;

    fn on_terminal(script: &str) -> Result<Guest> {
        let pty = Pty::new()?;
        let mut command = pty.command(Path::new("/bin/sh"))?;
        command.args(["-c", script]);
        Guest::start(command, pty.into_master())
    }

    #[test]
    fn a_program_has_a_terminal_and_its_lines_and_status_are_seen() -> Result<()> {
        let mut guest = on_terminal("test -t 0 && test -t 1 && : > /dev/tty && echo yes; echo last; exit 7")?;
        assert_eq!(guest.line()?.as_deref(), Some("yes"));
        let (rest, status) = guest.finish()?;
        assert_eq!((rest, status.code()), (vec!["last".to_string()], Some(7)));
        Ok(())
    }

    #[test]
    fn a_killed_program_is_gone() -> Result<()> {
        let mut guest = on_terminal("echo ready; read never")?;
        guest.line()?;
        assert_eq!(guest.threads()?, 1);
        assert!(guest.kill()?.is_empty());
        Ok(())
    }
}
