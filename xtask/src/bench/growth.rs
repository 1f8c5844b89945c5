//! How the time of a save's pause and of a restart grows with the number of one kernel object: the exponent between two numbers of them.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::samples::{Samples, millis};
use super::subject::piped;
use super::{Bench, Row};

/// What there is many of (xtask/bench/growth.c), and how many: enough that the time of one alone does not count.
const KINDS: [(&str, [u32; 2]); 31] = [
    ("eventfd", [1000, 8000]),
    ("timerfd", [1000, 8000]),
    ("signalfd", [1000, 8000]),
    ("epoll", [1000, 8000]),
    ("inotify", [16, 120]),
    ("same-file", [1000, 8000]),
    ("duplicate", [1000, 8000]),
    ("file", [1000, 8000]),
    ("locked-file", [1000, 8000]),
    ("deleted-file", [500, 4000]),
    ("memfd", [500, 4000]),
    ("directory", [1000, 8000]),
    ("device", [1000, 8000]),
    ("pipe", [500, 4000]),
    ("full-pipe", [500, 4000]),
    ("one-pipe", [1000, 8000]),
    ("fifo", [1000, 8000]),
    ("tcp", [1000, 8000]),
    ("udp", [1000, 8000]),
    ("unix", [500, 4000]),
    ("watched", [500, 4000]),
    ("noticed", [500, 4000]),
    ("thread", [500, 4000]),
    ("process", [100, 800]),
    ("zombie", [100, 800]),
    ("mapping", [2000, 16000]),
    ("mapped-file", [1000, 8000]),
    ("shared-file", [1000, 8000]),
    ("shared-memory", [500, 4000]),
    ("page", [10000, 80000]),
    ("signal", [1000, 4000]),
];

impl Bench<'_> {
    /// All figures of growth. A kind of which limits allow too few says so and is left out.
    pub fn growth(&self, rows: &mut Vec<Row>) -> Result<()> {
        let program = self.ws.compile(&self.ws.root.join("xtask/bench/growth.c"))?;
        for (kind, numbers) in KINDS {
            let [few, many] = numbers.map(|number| self.many(&program, kind, number));
            let (few, many) = (few?, many.with_context(|| format!("{} times {kind}", numbers[1]))?);
            let (Some(few), Some(many)) = (few, many) else {
                println!("{kind}: left out, limits allow fewer");
                continue;
            };
            for ((what, few), many) in ["pause", "restart"].into_iter().zip(&few).zip(&many) {
                rows.push(Row::growth(&format!("{} × {kind}: {what}", numbers[1]), numbers, few, many));
            }
        }
        Ok(())
    }

    /// Pauses and restarts of so many.
    fn many(&self, program: &Path, kind: &str, number: u32) -> Result<Option<[Samples; 2]>> {
        let (mut pauses, mut restarts) = (Vec::new(), Vec::new());
        for _ in 0..=self.options.runs {
            let dir = tempfile::Builder::new().prefix("growth-").tempdir_in(self.dir)?;
            let Some([pause, restart]) = self.once(program, kind, number, dir.path())? else { return Ok(None) };
            pauses.push(pause);
            restarts.push(restart);
        }
        let samples = |all: Vec<Duration>| {
            let mut all = all.into_iter();
            Samples::take(self.options.runs, || all.next().context("a run"))
        };
        Ok(Some([samples(pauses)?, samples(restarts)?]))
    }

    fn once(&self, program: &Path, kind: &str, number: u32, dir: &Path) -> Result<Option<[Duration; 2]>> {
        let mut command = Command::new(program);
        command.args([kind, &number.to_string()]).current_dir(dir);
        let mut guest = piped(command)?;
        if guest.line()?.context("it said nothing")? != "ready" {
            return Ok(None);
        }
        let image = dir.join("growth.ckpt");
        let saved = self.save_to(guest.pid(), &image)?;
        // Its children end with it.
        guest.kill()?;
        fs::write(dir.join("go"), "")?;
        let mut command = Command::new(self.ws.dist("ckpt"));
        command
            .args(["restart", "--files", "ignore"])
            .arg(&image)
            .current_dir(dir)
            .stderr(File::create(dir.join("why"))?);
        let start = Instant::now();
        let mut guest = piped(command)?;
        let said = guest.line()?;
        let took = start.elapsed();
        ensure!(said.as_deref() == Some("again"), "restart: {}", fs::read_to_string(dir.join("why"))?.trim());
        Ok(Some([saved.pause, took]))
    }
}

impl Row {
    fn growth(what: &str, numbers: [u32; 2], few: &Samples, many: &Samples) -> Self {
        let exponent = many.ratio(few).ln() / (f64::from(numbers[1]) / f64::from(numbers[0])).ln();
        let beside = format!("{} of them: {} / {}", numbers[0], millis(few.min()), millis(few.median()));
        Self { beside, ratio: format!("exponent {exponent:.2}"), ..Self::time(what, many, "≤ 1.05") }
    }
}
