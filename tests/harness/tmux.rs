//! A tmux server of a test's own: full-screen programs in panes whose screen can be read.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Place, programs, wait};

/// The server; it ends with the value.
#[derive(Debug)]
pub struct Tmux<'p> {
    place: &'p Place,
    program: PathBuf,
    socket: PathBuf,
}

impl<'p> Tmux<'p> {
    /// Starts a server with one window of this size that runs `shell_command`.
    ///
    /// # Errors
    /// tmux is not installed.
    pub fn start(place: &'p Place, columns: u16, rows: u16, shell_command: &str) -> Result<Self> {
        let server = Self { place, program: programs::tool("tmux", "tmux")?, socket: place.file("tmux.socket") };
        server.run(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns.to_string(),
            "-y",
            &rows.to_string(),
            shell_command,
        ])?;
        server.run(&["set-option", "-g", "remain-on-exit", "on"])?;
        Ok(server)
    }

    /// Ends the window that there is and opens one of another size.
    ///
    /// # Errors
    /// The server is gone.
    pub fn reopen(&self, columns: u16, rows: u16, shell_command: &str) -> Result<()> {
        self.run(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()])?;
        self.run(&["respawn-pane", "-k", shell_command])?;
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = self.place.bare(&self.program);
        command.arg("-S").arg(&self.socket);
        command
    }

    /// Runs a tmux command and returns what it prints.
    ///
    /// # Errors
    /// tmux's own.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let done = self.command().args(arguments).output().context("tmux")?;
        ensure!(done.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
    }

    /// What the pane shows.
    ///
    /// # Errors
    /// The server is gone.
    pub fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as wanted, and returns it.
    ///
    /// # Errors
    /// Not in time: with the screen.
    pub fn wait_screen(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let look = || {
            let screen = self.screen()?;
            Ok(wanted(&screen).then_some(screen))
        };
        wait::until(look, || format!("the screen shows:\n{}", self.screen().unwrap_or_default()))
    }

    /// Presses keys (tmux's names; anything else is typed).
    ///
    /// # Errors
    /// The server is gone.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.run(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// The pid of the pane's program.
    ///
    /// # Errors
    /// The server is gone.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.run(&["display-message", "-p", "#{pane_pid}"])?.parse()?)
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        // Fails only for a server that has ended already.
        drop(self.command().arg("kill-server").output());
    }
}
