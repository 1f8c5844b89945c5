//! Moving a program through a pipe, compressed and not, beside plain bytes through the same pipe.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::remote::Forker;
use super::samples::Samples;
use super::{Bench, Row};

/// Memory of the program, MiB.
const MIB: u64 = 256;

/// How much of its memory is random, per cent: nothing to compress, and something.
const RANDOM: [u64; 2] = [100, 25];

impl Bench<'_> {
    /// Bytes on the wire, and the time from the start of the save to the running program.
    pub fn through_a_pipe(&self, rows: &mut Vec<Row>) -> Result<()> {
        let program = self.ws.compile(&self.ws.root.join("xtask/bench/forker.c"))?;
        let plain = self.dir.join("plain");
        self.peer.write(&plain, MIB, true)?;
        let runs = self.options.runs;
        for random in RANDOM {
            let forker = Forker::start(&program, MIB, random)?;
            for method in ["", "--compress zstd:1", "--compress zstd"] {
                let save = format!("\"$CKPT\" save {} -q -o - {method}", forker.pid());
                let bytes = self.shell(&format!("{save} | wc -c"), &plain)?.1;
                let bytes: u64 = bytes.trim().parse().with_context(|| format!("bytes: {bytes}"))?;
                let mut copies = Vec::new();
                let moves = Samples::take(runs, || {
                    self.warm(2 * MIB)?;
                    copies.push(self.shell("dd if=\"$PLAIN\" bs=1M | dd of=\"$PLAIN.copy\" bs=1M", &plain)?.0);
                    self.warm(2 * MIB)?;
                    Ok(self.shell(&format!("{save} | \"$CKPT\" restart - --detach"), &plain)?.0)
                })?;
                let mut next = copies.into_iter();
                let copies = Samples::take(runs, || next.next().context("as many copies as moves"))?;
                let name = format!("{MIB} MiB, {random} % random, through a pipe {method}");
                rows.push(Row::sizes(&format!("{}: bytes", name.trim()), bytes, "its memory", MIB << 20, ""));
                rows.push(Row::times(&format!("{}: goes on", name.trim()), &moves, "dd | dd", &copies, ""));
            }
        }
        std::fs::remove_file(self.dir.join("plain.copy"))?;
        Ok(std::fs::remove_file(&plain)?)
    }

    /// Runs a pipeline; the time that it took, and what it printed.
    fn shell(&self, lines: &str, plain: &Path) -> Result<(Duration, String)> {
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", lines]).env("CKPT", self.ws.dist("ckpt")).env("PLAIN", plain);
        let start = Instant::now();
        let output = command.stdin(Stdio::null()).output()?;
        let took = start.elapsed();
        ensure!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok((took, String::from_utf8_lossy(&output.stdout).into_owned()))
    }
}
