//! `cargo xtask bench`: sizes and times, each beside what it is to be compared with, in one run.
//!
//! Must never fail because a figure is bad: it measures. What is missed is for the reader of the table.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};

use crate::dist;
use crate::elf_check::STUB_MAX;
use crate::workspace::Workspace;
use peer::Peer;
use samples::{Samples, millis};
use subject::Subject;

mod criu;
mod growth;
mod peer;
mod remote;
mod samples;
mod stream;
mod subject;

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The stub's size.
    Stub,
    /// The small program.
    Small,
    /// Reserved memory.
    Sparse,
    /// Saves by pid: pause and whole.
    Pid,
    /// Migration through a pipe.
    Pipe,
    /// Random memory of some sizes.
    Memory,
    /// Many of each kernel object: how the time grows.
    Growth,
}

/// What `cargo xtask bench` accepts.
#[derive(clap::Args)]
pub struct Options {
    /// What is measured; all by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// How often each step is measured.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The sizes of random memory, in MiB.
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    mib: Vec<u64>,
    /// Where images are written (repeatable); by default the target directory, and /dev/shm, where a disk plays no part.
    #[arg(long)]
    dir: Vec<PathBuf>,
}

/// One line of the table.
struct Row {
    what: String,
    min: String,
    median: String,
    beside: String,
    ratio: String,
    aim: &'static str,
}

/// Measures and prints.
///
/// # Errors
/// A save or restart fails, or a restarted program's memory is not what it was.
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    ensure!(options.runs > 0, "--runs must be at least 1");
    dist::run(ws)?;
    let peer = Peer::build(ws)?;
    let memory = ws.compile(&ws.root.join("xtask/bench/memory.c"))?;
    let counter = ws.compile(&ws.root.join("tests/programs/counter.c"))?;
    let criu = criu::command();
    for place in places(ws, options)? {
        let scratch = tempfile::Builder::new().prefix("ckpt-bench-").tempdir_in(&place)?;
        let bench = Bench { ws, options, peer: &peer, criu: criu.as_deref(), dir: scratch.path() };
        let mut rows = Vec::new();
        let wanted = |part| options.only.is_empty() || options.only.contains(&part);
        if wanted(Part::Stub) {
            rows.push(stub_size(ws)?);
        }
        if wanted(Part::Small) {
            bench.small(&counter, &mut rows)?;
        }
        if wanted(Part::Sparse) {
            bench.sparse(&memory, &mut rows)?;
        }
        if wanted(Part::Pid) {
            bench.by_pid(&counter, &mut rows)?;
        }
        if wanted(Part::Pipe) {
            bench.through_a_pipe(&mut rows)?;
        }
        for mib in options.mib.iter().filter(|_| wanted(Part::Memory)) {
            bench.memory(&memory, *mib, &mut rows)?;
        }
        if wanted(Part::Growth) {
            bench.growth(&mut rows)?;
        }
        println!("\nImages in {} ({} runs after one to warm up; ratios of the medians)", place.display(), options.runs);
        print(&rows);
    }
    if criu.is_none() {
        println!("CRIU was left out: CKPT_BENCH_CRIU names no criu command.");
    }
    Ok(())
}

fn places(ws: &Workspace, options: &Options) -> Result<Vec<PathBuf>> {
    if !options.dir.is_empty() {
        return Ok(options.dir.clone());
    }
    let target = ws.target.join("bench");
    fs::create_dir_all(&target)?;
    let shm = PathBuf::from("/dev/shm");
    Ok(if shm.is_dir() { vec![target, shm] } else { vec![target] })
}

fn stub_size(ws: &Workspace) -> Result<Row> {
    let size = fs::metadata(ws.dist("restart-stub"))?.len();
    let most = STUB_MAX as u64;
    Ok(Row::sizes("restart-stub", size, &format!("limit {most} bytes"), most, "≤ 1"))
}

/// What all measurements need.
struct Bench<'b> {
    ws: &'b Workspace,
    options: &'b Options,
    peer: &'b Peer,
    criu: Option<&'b [String]>,
    dir: &'b Path,
}

impl Bench<'_> {
    /// The small program: it fills its pipe and waits there, so that its next line comes at once after a restart.
    fn small(&self, counter: &Path, rows: &mut Vec<Row>) -> Result<()> {
        let args = ["4000000000", "/dev/null", "0"];
        let mut subject = Subject::start(self.ws, counter, &args, self.dir).context("the counter")?;
        let save = Samples::take(self.runs(), || subject.save())?;
        rows.push(Row::image("counter", &subject)?);
        subject.kill()?;
        let restart = Samples::take(self.runs(), || subject.restart(false)).context("the counter")?;
        rows.push(Row::time("counter: save", &save, "≤ 5 ms"));
        let (plain, mib) = (self.dir.join("plain"), subject.image_size()?.div_ceil(1 << 20));
        let synced = Samples::take(self.runs(), || self.peer.write(&plain, mib, true))?;
        rows.push(Row::times("counter: save", &save, &format!("write + fsync of {mib} MiB"), &synced, ""));
        rows.push(Row::time("counter: restart", &restart, "≤ 3 ms"));
        // CRIU cannot take the pipe along: it gets a counter that writes to a file.
        self.criu("counter", counter, &["4000000000", "/dev/null", "10"], &save, &restart, rows)
    }

    /// Reserved memory must cost nothing.
    fn sparse(&self, memory: &Path, rows: &mut Vec<Row>) -> Result<()> {
        let mut subject = Subject::start(self.ws, memory, &["sparse"], self.dir).context("the sparse memory")?;
        subject.save()?;
        rows.push(Row::image("1 TiB reserved, 3 pages touched", &subject)?);
        subject.kill()?;
        subject.restart(false).context("the sparse memory").map(drop)
    }

    fn memory(&self, memory: &Path, mib: u64, rows: &mut Vec<Row>) -> Result<()> {
        let name = format!("{mib} MiB random");
        let arg = mib.to_string();
        let plain = self.dir.join("plain");
        let mut subject = Subject::start(self.ws, memory, &[&arg], self.dir).with_context(|| name.clone())?;
        let runs = self.options.runs;
        let save = Samples::take(runs, || self.warm(mib).and_then(|()| subject.save()))?;
        rows.push(Row::image(&name, &subject)?);
        subject.kill()?;
        let synced = Samples::take(runs, || self.warm(mib).and_then(|()| self.peer.write(&plain, mib, true)))?;
        let written = Samples::take(runs, || self.warm(mib).and_then(|()| self.peer.write(&plain, mib, false)))?;
        rows.push(Row::times(&format!("{name}: save"), &save, "write + fsync", &synced, "≤ 1.15"));
        rows.push(Row::times(&format!("{name}: save"), &save, "write alone", &written, ""));

        subject.restart(true).with_context(|| name.clone())?;
        let image = subject.image();
        let restart = Samples::take(runs, || self.warm_file(&image, mib).and_then(|()| subject.restart(false)))?;
        let read = Samples::take(runs, || self.warm_file(&plain, mib).and_then(|()| self.peer.read(&plain, mib)))?;
        rows.push(Row::times(&format!("{name}: restart"), &restart, "pread into anonymous", &read, "≤ 1.15"));
        fs::remove_file(&plain)?;
        fs::remove_file(&image)?;
        self.criu(&name, memory, &[&arg], &save, &restart, rows)
    }

    fn criu(
        &self,
        name: &str,
        program: &Path,
        args: &[&str],
        save: &Samples,
        restart: &Samples,
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        let Some(criu) = self.criu else { return Ok(()) };
        let mut restores = Vec::new();
        let dump = Samples::take(self.options.runs, || {
            let (saved, restored) = criu::once(criu, program, args, self.dir).context("criu")?;
            restores.push(restored);
            Ok(saved)
        })?;
        let mut restores = restores.into_iter();
        let restore = Samples::take(self.options.runs, || restores.next().context("as many restores as dumps"))?;
        rows.push(Row::times(&format!("{name}: save"), save, "criu dump (no fsync)", &dump, ""));
        rows.push(Row::times(&format!("{name}: restart"), restart, "criu restore", &restore, ""));
        Ok(())
    }

    /// Small steps are short: measure them more often.
    fn runs(&self) -> usize {
        self.options.runs * 4
    }

    /// Room for the memory and for the file in the page cache.
    fn warm(&self, mib: u64) -> Result<()> {
        self.peer.touch(mib * 5 / 2)
    }

    /// The same, and the file in the page cache: machines drop what lies idle.
    fn warm_file(&self, file: &Path, mib: u64) -> Result<()> {
        self.peer.read(file, mib)?;
        self.warm(mib)
    }
}

impl Row {
    fn sizes(what: &str, size: u64, beside: &str, other: u64, aim: &'static str) -> Self {
        let ratio = format!("{:.3}", size as f64 / other as f64);
        Self {
            what: what.into(),
            min: String::new(),
            median: format!("{size} bytes"),
            beside: beside.into(),
            ratio,
            aim,
        }
    }

    fn image(name: &str, subject: &Subject<'_>) -> Result<Self> {
        let held = &subject.held;
        let beside = format!("touched {} + untouched of files {}", held.touched, held.files);
        Ok(Self::sizes(&format!("{name}: image"), subject.image_size()?, &beside, held.touched + held.files, "≤ 1.01"))
    }

    fn time(what: &str, samples: &Samples, aim: &'static str) -> Self {
        let (min, median) = (millis(samples.min()), millis(samples.median()));
        Self { what: what.into(), min, median, beside: String::new(), ratio: String::new(), aim }
    }

    fn times(what: &str, samples: &Samples, name: &str, other: &Samples, aim: &'static str) -> Self {
        let beside = format!("{name}: {} / {}", millis(other.min()), millis(other.median()));
        Self { beside, ratio: format!("{:.2}", samples.ratio(other)), ..Self::time(what, samples, aim) }
    }
}

fn print(rows: &[Row]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["what", "min", "median", "beside (min / median)", "ratio", "aim"]);
    for row in rows {
        table.add_row([&row.what, &row.min, &row.median, &row.beside, &row.ratio, row.aim]);
    }
    println!("{table}");
}
