//! Saving by pid: the pause beside one fork of the same process, the whole beside a plain write of as much.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::samples::Samples;
use super::{Bench, Row};

/// Memory of the processes whose pause is measured, MiB.
const SIZES: [u64; 4] = [16, 256, 1024, 4096];

/// Up to here, MiB, what a tracer cannot do without takes as long as the copying itself, and is measured, too.
const SMALL: u64 = 16;

/// What one save took.
#[derive(Clone, Copy, Default)]
pub(super) struct Saved {
    pub(super) pause: Duration,
    /// As `ckpt` says it.
    total: Duration,
    /// From the start of `ckpt` to its end.
    wall: Duration,
}

/// A process with much memory, which forks on request.
pub(super) struct Forker {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Forker {
    pub(super) fn start(program: &Path, mib: u64, random: u64) -> Result<Self> {
        let mut command = Command::new(program);
        command.args([mib, random].map(|n| n.to_string())).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let ask = child.stdin.take().context("piped")?;
        let answers = BufReader::new(child.stdout.take().context("piped")?);
        let mut forker = Self { child, ask, answers };
        ensure!(forker.line()? == "ready", "the forking program is not ready");
        Ok(forker)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn fork(&mut self) -> Result<Duration> {
        self.ask.write_all(b"\n")?;
        Ok(Duration::from_nanos(self.line()?.parse()?))
    }
}

impl Drop for Forker {
    fn drop(&mut self) {
        // It has not been waited for, so the pid is its own.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Bench<'_> {
    /// All figures of `ckpt save PID`.
    pub fn by_pid(&self, counter: &Path, rows: &mut Vec<Row>) -> Result<()> {
        let forker = self.ws.compile(&self.ws.root.join("xtask/bench/forker.c"))?;
        for mib in SIZES {
            self.pause(&forker, mib, rows).with_context(|| format!("pause of {mib} MiB"))?;
        }
        self.least_pause(&forker, SMALL, rows).context("least pause")?;
        let mut command = Command::new(counter);
        command
            .args(["4000000000", "/dev/null", "10"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        let walls = Samples::take(self.runs(), || self.save_pid(child.id()).map(|saved| saved.wall));
        child.kill()?;
        child.wait()?;
        rows.push(Row::time("counter: save by PID, wall", &walls?, "≤ 5 ms"));
        Ok(())
    }

    fn pause(&self, program: &Path, mib: u64, rows: &mut Vec<Row>) -> Result<()> {
        let mut forker = Forker::start(program, mib, 100)?;
        let pid = forker.child.id();
        let (plain, image) = (self.dir.join("plain"), self.dir.join("pid.ckpt"));
        let (mut saves, mut next) = (Vec::new(), 0);
        let runs = if mib < 1024 { self.runs() } else { self.options.runs };
        // In turns: what changes on the machine meanwhile changes both.
        let forks = Samples::take(runs, || {
            self.warm(mib)?;
            saves.push(self.save_pid(pid)?);
            forker.fork()
        })?;
        let mut each = |part: fn(&Saved) -> Duration| {
            next = 0;
            Samples::take(runs, || {
                next += 1;
                saves.get(next - 1).map(part).context("as many saves as forks")
            })
        };
        let pauses = each(|saved| saved.pause)?;
        let name = format!("{mib} MiB by PID");
        rows.push(Row::times(&format!("{name}: pause"), &pauses, "one fork()", &forks, "≤ 1.2"));
        // Where there is no older file, and over one.
        for (how, over) in [("save", false), ("save over an image", true)] {
            let (mut totals, mut halves) = (Vec::new(), Vec::new());
            let written = Samples::take(self.options.runs, || {
                if !over {
                    [&plain, &image].map(std::fs::remove_file).into_iter().for_each(drop);
                }
                self.warm(mib)?;
                totals.push(self.save_to(pid, &image)?.total);
                self.warm(mib)?;
                halves.push(self.peer.write_by_two(&plain, mib)?);
                if !over {
                    std::fs::remove_file(&plain)?;
                }
                self.warm(mib)?;
                self.peer.write(&plain, mib, true)
            })?;
            let [totals, halves] = [totals, halves].map(|all| {
                let mut all = all.into_iter();
                Samples::take(self.options.runs, || all.next().context("as many as written"))
            });
            let (totals, halves) = (totals?, halves?);
            let two = halves.median() < written.median();
            let (beside, least) = if two { ("by two threads", &halves) } else { ("by one thread", &written) };
            rows.push(Row::times(
                &format!("{name}: {how}"),
                &totals,
                &format!("write + fsync {beside}"),
                least,
                "≤ 1.1",
            ));
        }
        [&plain, &image].map(std::fs::remove_file).into_iter().collect::<Result<(), _>>()?;
        Ok(())
    }

    /// What no saver by ptrace can beat that leaves the process without a child, beside one fork of as much.
    fn least_pause(&self, forker: &Path, mib: u64, rows: &mut Vec<Row>) -> Result<()> {
        let least = self.ws.compile(&self.ws.root.join("xtask/bench/least.c"))?;
        let (mut least, mut forker) = (Forker::start(&least, mib, 0)?, Forker::start(forker, mib, 100)?);
        let mut leasts = Vec::new();
        let forks = Samples::take(self.runs(), || {
            leasts.push(least.fork()?);
            forker.fork()
        })?;
        let mut next = leasts.into_iter();
        let leasts = Samples::take(self.runs(), || next.next().context("as many pauses as forks"))?;
        rows.push(Row::times(&format!("{mib} MiB: least pause by ptrace"), &leasts, "one fork()", &forks, ""));
        Ok(())
    }

    fn save_pid(&self, pid: u32) -> Result<Saved> {
        let image = self.dir.join("pid.ckpt");
        let saved = self.save_to(pid, &image)?;
        std::fs::remove_file(&image)?;
        Ok(saved)
    }

    /// Saves to a file that stays.
    pub(super) fn save_to(&self, pid: u32, image: &Path) -> Result<Saved> {
        let start = Instant::now();
        let output =
            Command::new(self.ws.dist("ckpt")).arg("save").arg(pid.to_string()).arg("-o").arg(image).output()?;
        let wall = start.elapsed();
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "ckpt save: {}", String::from_utf8_lossy(&output.stderr).trim());
        let time = |key: &str| -> Result<Duration> {
            let behind = said.split(key).nth(1).with_context(|| format!("no '{key}' in {said}"))?;
            let number: f64 = behind.split_whitespace().next().unwrap_or_default().parse()?;
            Ok(Duration::from_secs_f64(number / 1e3))
        };
        Ok(Saved { pause: time("paused ")?, total: time("total ")?, wall })
    }
}
