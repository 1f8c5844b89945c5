//! The peers of the figures: plain write and pread of as much memory (xtask/bench/peer.c).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// The compiled peer.
pub struct Peer(PathBuf);

impl Peer {
    /// Compiles it.
    ///
    /// # Errors
    /// There is no compiler.
    pub fn build(ws: &Workspace) -> Result<Self> {
        Ok(Self(ws.compile(&ws.root.join("xtask/bench/peer.c"))?))
    }

    /// Writes `mib` MiB to `file`, with or without fsync.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&self, file: &Path, mib: u64, sync: bool) -> Result<Duration> {
        self.run(if sync { "sync" } else { "write" }, file, mib)
    }

    /// Writes `mib` MiB to `file`, with fsync, by two threads.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write_by_two(&self, file: &Path, mib: u64) -> Result<Duration> {
        self.run("sync2", file, mib)
    }

    /// Reads `mib` MiB of `file` into anonymous memory.
    ///
    /// # Errors
    /// The file is shorter.
    pub fn read(&self, file: &Path, mib: u64) -> Result<Duration> {
        self.run("read", file, mib)
    }

    /// Touches `mib` MiB: right before each measured step, for every contender alike, since a host takes idle
    /// memory away and gives it back slowly.
    ///
    /// # Errors
    /// There is not as much memory.
    pub fn touch(&self, mib: u64) -> Result<()> {
        let status = Command::new(&self.0).arg("touch").arg(mib.to_string()).status()?;
        ensure!(status.success(), "touching {mib} MiB: {status}");
        Ok(())
    }

    fn run(&self, what: &str, file: &Path, mib: u64) -> Result<Duration> {
        let output = Command::new(&self.0).arg(what).arg(file).arg(mib.to_string()).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "peer {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(Duration::from_nanos(said.trim().parse().with_context(|| format!("peer {what} said {said}"))?))
    }
}
