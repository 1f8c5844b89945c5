//! The shortest story: a program that nobody prepared, `ckpt save PID --kill`, `ckpt restart`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{PROGRESS, Product, STEPS, Subject, start, steps, undisturbed};
use crate::guest::Guest;
use crate::pty::Pty;

/// Where Yama says who may look into a process; there is none in many kernels.
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Three commands, and what came of each.
///
/// # Errors
/// One of them failed, or the program went on in another way than undisturbed.
pub fn tell(product: &Product, subject: &Subject) -> Result<()> {
    if let Some(scope) = restricted()? {
        println!(
            "  left out: only root may save a process that it did not start (kernel.yama.ptrace_scope = {scope}); others \
             use `ckpt run`"
        );
        return Ok(());
    }
    let scratch = tempfile::Builder::new().prefix("ckpt-demo-").tempdir()?;
    let [work, calm] = ["work", "undisturbed"].map(|name| scratch.path().join(name));
    fs::create_dir(&work)?;
    fs::create_dir(&calm)?;

    let mut guest = start(subject, &work, &[])?;
    let mut lines = steps(&mut guest, subject, STEPS / 4)?;
    let pid = guest.pid().to_string();
    line(
        "./threads progress.txt",
        &format!("process {pid} on a terminal, {} threads: {}", subject.threads, last(&lines)?),
    );

    let saved = Command::new(&product.ckpt).args(["save", &pid, "--kill"]).current_dir(&work).output()?;
    ensure!(saved.status.success(), "ckpt save {pid} --kill: {}", String::from_utf8_lossy(&saved.stderr).trim());
    let (rest, status) = guest.finish()?;
    ensure!(!status.success(), "ckpt save --kill has not ended the program");
    lines.extend(rest);
    let said = String::from_utf8(saved.stdout)?;
    line(&format!("ckpt save {pid} --kill"), &format!("{}; it ended after {}", said.trim(), last(&lines)?));

    let image = format!("{pid}.ckpt");
    let (rest, threads) = restart(product, &work, &image)?;
    ensure!(threads == subject.threads, "it came back with {threads} threads, not {}", subject.threads);
    let first = rest.first().context("restarted, it printed nothing")?.clone();
    lines.extend(rest);
    line(&format!("ckpt restart {image}"), &format!("{} … {}, status 0", name(&first), name(&last(&lines)?)));

    let measure = undisturbed(subject, &calm)?;
    ensure!(lines == measure.lines, "before and after together it printed other lines than undisturbed");
    ensure!(fs::read_to_string(work.join(PROGRESS))? == measure.file, "its file is not that of the undisturbed run");
    println!("  Before and after it printed the {STEPS} lines of an undisturbed run, and so did it write its file.");
    Ok(())
}

/// Runs it to its end; returns its lines and the number of its threads.
fn restart(product: &Product, work: &Path, image: &str) -> Result<(Vec<String>, usize)> {
    let pty = Pty::new()?;
    let mut command = pty.command(&product.ckpt)?;
    command.args(["restart", image]).current_dir(work);
    let mut guest = Guest::start(command, pty.into_master())?;
    let first = guest.line()?.context("restarted, it printed nothing")?;
    let threads = guest.threads()?;
    let (rest, status) = guest.finish()?;
    let lines = [vec![first], rest].concat();
    ensure!(status.success(), "restarted, it ended with {status}: {}", lines.join(" / "));
    Ok((lines, threads))
}

fn line(command: &str, seen: &str) {
    println!("  $ {command:<26} {seen}");
}

fn last(lines: &[String]) -> Result<String> {
    lines.last().cloned().context("it printed nothing")
}

/// The step that a line tells of.
fn name(line: &str) -> &str {
    line.split_once(':').map_or(line, |(step, _)| step)
}

/// What keeps this user from saving a process from outside, if anything does.
fn restricted() -> Result<Option<u32>> {
    let text = match fs::read_to_string(YAMA) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.context(YAMA)?,
    };
    let scope: u32 = text.trim().parse().with_context(|| format!("{YAMA} says {text:?}"))?;
    let may = scope == 0 || (scope < 3 && rustix::process::geteuid().is_root());
    Ok((!may).then_some(scope))
}
