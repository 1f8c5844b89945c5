//! `cargo xtask test`: the set-up that tests need, then all of them, whoever runs it.
//!
//! What cannot run here is left out, and named at the end with what it needs; all suites run although one fails. Nothing is left out silently.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::workspace::Workspace;
use crate::{dist, objects};
use report::{Reason, Report};

pub mod packages;
mod report;

/// What `cargo xtask test` accepts.
#[derive(clap::Args)]
pub struct Options {
    /// Play the kernel objects only, and print what became of each in each way.
    #[arg(long)]
    objects: bool,
    /// Fail where a test is left out for want of a package.
    #[arg(long)]
    complete: bool,
    /// Passed on to `cargo test`; `--workspace` unless they name a package.
    #[arg(last = true)]
    cargo_args: Vec<String>,
}

/// Sets up, builds `dist/`, runs the tests.
///
/// # Errors
/// The build fails, or a test fails; with `--complete` also when a package is missing.
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let start = Instant::now();
    let sh = ws.shell()?;
    let missing = packages::set_up(&sh, ws)?;
    if !missing.is_empty() {
        println!("Not installed, so some tests will be left out: {}", missing.join(" "));
        ensure!(!options.complete, "--complete: these Debian packages are needed: {}", missing.join(" "));
    }
    dist::run(ws)?;
    sh.set_var("CKPT_STUB", ws.stub());
    if options.objects {
        return objects::run(&sh, ws, &options.cargo_args);
    }
    let report = play(&sh, ws, &options.cargo_args)?;
    tell(&report, start.elapsed());
    if !report.failures.is_empty() {
        let (names, log) = (report.failures.join("\n  "), ws.target.join("test.log"));
        bail!("{} failed (all that was printed: {}):\n  {names}", report.failures.len(), log.display());
    }
    let needed = needed(&report);
    ensure!(
        !options.complete || needed.is_empty(),
        "--complete: these Debian packages are needed: {}",
        needed.join(" ")
    );
    Ok(())
}

/// Builds the tests, then runs them and reads what they print.
fn play(sh: &Shell, ws: &Workspace, args: &[String]) -> Result<Report> {
    let (cargo, tests) = match args.iter().position(|arg| arg == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &[][..]),
    };
    let named = cargo.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    let all = if named { &[][..] } else { &["--workspace"] };
    println!("\nBuilding the tests:");
    cmd!(sh, "cargo test --no-run {all...} {cargo...}").run()?;

    // As a shell gives them: signals that nohup(1) or a CI's runner ignores would stay ignored in the tests' programs.
    let mut command = Command::new("env");
    command.args(["--default-signal", "cargo", "test", "--no-fail-fast"]).args(all).args(cargo);
    // What passed tests print is read, too: they say there which part they left out.
    command.args(["--", "--show-output"]).args(tests);
    command.current_dir(&ws.root).env("CKPT_STUB", ws.stub());
    let (from, to) = io::pipe()?;
    command.stdout(Stdio::from(to.try_clone()?)).stderr(Stdio::from(to));
    let mut child = command.spawn().context("starting cargo test")?;
    // It holds the pipe's other end.
    drop(command);
    let mut report = Report::default();
    let log = ws.target.join("test.log");
    let mut log_file = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    for line in BufReader::new(from).split(b'\n') {
        let line = line?;
        log_file.write_all(&[&line[..], b"\n"].concat())?;
        for shown in report.line(&String::from_utf8_lossy(&line)) {
            println!("{shown}");
        }
    }
    report.finish(child.wait()?.success());
    Ok(report)
}

fn needed(report: &Report) -> Vec<&str> {
    let mut packages: Vec<_> = report.reasons.keys().filter_map(Reason::package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn tell(report: &Report, time: Duration) {
    let minutes = time.as_secs() / 60;
    println!(
        "\n{} tests passed, {} failed, {} were left out, in {minutes} min {} s, as uid {}.",
        report.passed,
        report.failures.len(),
        report.left_out,
        time.as_secs() % 60,
        rustix::process::geteuid().as_raw()
    );
    let left_out = report.left_out();
    if !left_out.is_empty() {
        println!("Left out, by what they need:\n{}", left_out.join("\n"));
    }
    let packages = needed(report);
    if !packages.is_empty() {
        println!("To run those that need packages: apt-get install {}", packages.join(" "));
    }
}
