//! `cargo xtask demo`: the shortest story first; then two real programs are saved, killed, and restarted three times each from one image.
//!
//! It needs nothing but Rust and gcc; where there is no python3 the second program is left out, and that is said. Every sentence that it prints is checked first: where one is false the demonstration fails and says which.
//! Must never leave a process or a file behind.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::guest::{Guest, TIMEOUT};
use crate::product::{self, Library};
use crate::pty::Pty;
use crate::watch::{Watch, size};
use crate::workspace::{Workspace, on_path, put};

mod story;

/// The lines that each program prints; it is saved after half of them.
const STEPS: usize = 40;
const PROGRESS: &str = "progress.txt";
const IMAGE: &str = "job.ckpt";

/// A program that is shown.
struct Subject {
    what: String,
    program: PathBuf,
    args: Vec<PathBuf>,
    threads: usize,
}

/// What the undisturbed run said: the measure for all others.
struct Measure {
    lines: Vec<String>,
    file: String,
    time: Duration,
}

/// What the demonstration runs: the files that users get.
struct Product {
    ckpt: PathBuf,
    stub: PathBuf,
    library: PathBuf,
}

impl Product {
    /// Builds it, step by step, into a directory of the demonstration's own.
    fn build(ws: &Workspace) -> Result<Self> {
        let dir = ws.target.join("demo");
        let step = |n: u8, what: &str| println!("Step {n} of 3: {what}");
        step(1, "the stub, which becomes the saved program");
        let stub = put(&product::stub(ws)?, &dir, "restart-stub")?;
        step(2, "the library, for programs that are saved by a signal");
        let library = put(&product::library(ws, Library::Shared)?, &dir, "libckpt.so")?;
        step(3, "the command");
        let ckpt = put(&product::quick_command(ws)?, &dir, "ckpt")?;
        Ok(Self { ckpt, stub, library })
    }
}

/// Builds what it needs, and shows it at work.
///
/// # Errors
/// Something does not build, or a claim is false.
pub fn run(ws: &Workspace) -> Result<()> {
    let building = Instant::now();
    let product = Product::build(ws)?;
    let source = ws.root.join("xtask/demo");
    let threads = Subject {
        what: "a C program with 5 threads (xtask/demo/threads.c)".into(),
        program: ws.compile(&source.join("threads.c"))?,
        args: vec![],
        threads: 5,
    };
    println!("Built in {}.", seconds(building.elapsed()));
    let start = Instant::now();
    println!("\nThe shortest story: {}, which was not prepared in any way", threads.what);
    story::tell(&product, &threads)?;
    let mut subjects = vec![threads];
    let python = find_python();
    if let Some(python) = &python {
        subjects.push(Subject {
            what: format!("a Python script (xtask/demo/chain.py) in {}", python.display()),
            program: python.clone(),
            args: vec![source.join("chain.py")],
            threads: 1,
        });
    }
    for subject in &subjects {
        println!("\nSaved by a signal, restarted three times: {}", subject.what);
        show(&product, subject).with_context(|| format!("the demonstration with {}", subject.what))?;
    }
    if python.is_none() {
        println!("\nLeft out: the same with a Python script, as there is no python3 here (Debian's package python3).");
    }
    println!(
        "\nAll of this was checked and held, in {}, as uid {}.",
        seconds(start.elapsed()),
        rustix::process::geteuid().as_raw()
    );
    Ok(())
}

/// Debian's own, which every user may run; else the first that works.
fn find_python() -> Option<PathBuf> {
    let debian = Path::new("/usr/bin/python3").to_path_buf();
    let candidates = [Some(debian), on_path("python3"), on_path("python")];
    candidates.into_iter().flatten().find_map(|candidate| {
        // A version manager's python3 is a script that finds the real one: ask which that is.
        let asked = Command::new(&candidate).args(["-c", "import hashlib, sys; print(sys.executable)"]).output();
        let output = asked.ok().filter(|output| output.status.success())?;
        Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    })
}

fn show(product: &Product, subject: &Subject) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("ckpt-demo-").tempdir()?;
    let calm = scratch.path().join("undisturbed");
    let work = scratch.path().join("work");
    fs::create_dir(&calm)?;
    fs::create_dir(&work)?;

    let measure = undisturbed(subject, &calm)?;
    println!("  undisturbed   all {STEPS} steps in {}", seconds(measure.time));

    let printed = save_and_kill(product, subject, &work)?;
    ensure!(measure.lines.starts_with(&printed), "before the kill it printed other lines than undisturbed");

    let Product { stub, ckpt, .. } = product;
    let ways: [(&str, &Path, &[&str]); 3] = [
        ("restart-stub", stub, &["--files", "rollback"]),
        ("restart-stub", stub, &["--files", "rollback"]),
        ("ckpt restart", ckpt, &["restart", "--files", "rollback"]),
    ];
    let mut resumed_at = Vec::new();
    for (name, program, args) in ways {
        let first = restart(subject, &measure, scratch.path(), &work, name, program, args)?;
        ensure!(first <= printed.len() + 1, "it went on with step {first}, later than where it was killed");
        resumed_at.push(first);
    }
    ensure!(
        resumed_at.iter().all(|at| *at == resumed_at[0]),
        "the restarts went on at different steps: {resumed_at:?}"
    );
    ensure!(resumed_at[0] > STEPS / 2, "the restarts went on before the step at which it was saved");
    Ok(())
}

fn undisturbed(subject: &Subject, dir: &Path) -> Result<Measure> {
    let mut guest = start(subject, dir, &[])?;
    let (lines, status) = guest.finish()?;
    let time = guest.started.elapsed();
    ensure!(status.success(), "undisturbed, it ended with {status}: {}", lines.join(" / "));
    ensure!(lines.len() == STEPS, "undisturbed, it printed {} lines, not {STEPS}", lines.len());
    Ok(Measure { lines, file: fs::read_to_string(dir.join(PROGRESS))?, time })
}

/// Starts it on a terminal of its own, with these variables besides.
fn start(subject: &Subject, dir: &Path, env: &[(&str, &OsStr)]) -> Result<Guest> {
    let pty = Pty::new()?;
    let mut command = pty.command(&subject.program)?;
    command.args(&subject.args).arg(PROGRESS).current_dir(dir).envs(env.iter().copied());
    Guest::start(command, pty.into_master())
}

/// Its first lines, as many as are wanted; it has all its threads then.
fn steps(guest: &mut Guest, subject: &Subject, wanted: usize) -> Result<Vec<String>> {
    let mut printed = Vec::new();
    while printed.len() < wanted {
        let Some(line) = guest.line()? else { bail!("it ended early: {}", printed.join(" / ")) };
        printed.push(line);
    }
    let threads = guest.threads()?;
    ensure!(threads == subject.threads, "it has {threads} threads, not {}", subject.threads);
    Ok(printed)
}

/// Runs it under the preload library up to half of its steps, saves it by SIGUSR1, kills it by SIGKILL.
/// Returns the lines that it had printed by then.
fn save_and_kill(product: &Product, subject: &Subject, dir: &Path) -> Result<Vec<String>> {
    let preload = ("LD_PRELOAD", product.library.as_os_str());
    let mut guest = start(subject, dir, &[preload, ("CKPT_IMAGE", IMAGE.as_ref()), ("CKPT_SIGNAL", "USR1".as_ref())])?;
    let mut printed = steps(&mut guest, subject, STEPS / 2)?;
    let threads = subject.threads;
    println!(
        "  running       process {}, {threads} thread(s), under LD_PRELOAD=libckpt.so, on a terminal",
        guest.pid()
    );

    let watch = Watch::new(dir)?;
    let asked = Instant::now();
    guest.signal(Signal::USR1)?;
    if !watch.wait(IMAGE, TIMEOUT)? {
        printed.extend(guest.kill()?);
        bail!("no image appeared; its last line: {}", printed.last().map_or("none", String::as_str));
    }
    let took = asked.elapsed();
    println!(
        "  saved         by SIGUSR1 after step {} of {STEPS}: {IMAGE}, {} KiB, in {}",
        printed.len(),
        size(&dir.join(IMAGE))? / 1024,
        millis(took)
    );
    // It goes on after the save: let it, so that its file is longer than the image knows.
    printed.extend(guest.line()?);
    printed.extend(guest.line()?);
    printed.extend(guest.kill()?);
    ensure!(printed.len() < STEPS, "it ended before it could be killed");
    println!("  killed        by SIGKILL after step {}; its file has {} steps", printed.len(), steps_in(dir)?);
    Ok(printed)
}

fn restart(
    subject: &Subject,
    measure: &Measure,
    elsewhere: &Path,
    work: &Path,
    name: &str,
    program: &Path,
    args: &[&str],
) -> Result<usize> {
    let pty = Pty::new()?;
    let mut command = pty.command(program)?;
    // From another directory: where it works is in the image.
    command.args(args).arg(work.join(IMAGE)).current_dir(elsewhere);
    let tails_before = tails(work)?;
    let mut guest = Guest::start(command, pty.into_master())?;
    let first = guest.line()?.context("it printed nothing")?;
    let after = guest.started.elapsed();
    let Some(at) = measure.lines.iter().position(|line| *line == first) else {
        bail!("{name}: its first line is none of the undisturbed run's: {first}");
    };
    let threads = guest.threads()?;
    let (rest, status) = guest.finish()?;
    ensure!(threads == subject.threads, "{name}: it came back with {threads} threads, not {}", subject.threads);
    ensure!(status.success(), "{name}: it ended with {status}: {}", rest.join(" / "));
    ensure!(rest == measure.lines[at + 1..], "{name}: it printed other lines than undisturbed");
    ensure!(tails(work)? == tails_before + 1, "{name}: the tail that its file had grown by was not kept");
    let file = fs::read_to_string(work.join(PROGRESS))?;
    ensure!(file == measure.file, "{name}: its file is not that of the undisturbed run");
    println!(
        "  {name:<13} its first line, step {}, came after {}; {threads} thread(s) on a new terminal; file cut back to \
         the save, its tail kept; ended with status 0, its lines and file as undisturbed",
        at + 1,
        millis(after)
    );
    Ok(at + 1)
}

/// How many cut tails of the progress file lie beside it (`--files rollback` keeps them).
fn tails(work: &Path) -> Result<usize> {
    let tail = format!("{PROGRESS}.after-restart.");
    let mut count = 0;
    for entry in fs::read_dir(work)? {
        count += usize::from(entry?.file_name().to_string_lossy().starts_with(&tail));
    }
    Ok(count)
}

fn steps_in(dir: &Path) -> Result<usize> {
    Ok(fs::read_to_string(dir.join(PROGRESS))?.lines().count())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
