//! The same programs under CRIU, where `CKPT_BENCH_CRIU` names a command that works here.
//!
//! The command is split at blanks and gets `dump -t PID -D DIR -v0` or `restore -d -D DIR …` appended. CRIU saves to a
//! directory without fsync, kills the program, and restores it under its old pid; its own wall time is taken.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::inotify::WatchFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::guest::TIMEOUT;
use crate::watch::{Watch, wait_readable};

/// The command, when there is one.
pub fn command() -> Option<Vec<String>> {
    let line = std::env::var("CKPT_BENCH_CRIU").ok()?;
    let words: Vec<String> = line.split_whitespace().map(String::from).collect();
    if words.is_empty() { None } else { Some(words) }
}

/// Dumps and restores `program` once; the times of both.
///
/// # Errors
/// CRIU fails: what it printed.
pub fn once(criu: &[String], program: &Path, args: &[&str], dir: &Path) -> Result<(Duration, Duration)> {
    let images = dir.join("criu");
    fs::create_dir_all(&images)?;
    let out = File::create(dir.join("out"))?;
    // From here on: creating the file was a change of it, too.
    let watch = Watch::on(dir, WatchFlags::MODIFY)?;
    // CRIU wants a session of the program's own, and no pipe that ends outside.
    let mut child = Command::new("setsid")
        .arg(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()?;
    let ready = watch.wait("out", TIMEOUT);
    let pid = child.id().to_string();
    let dumped = ready.and_then(|ready| {
        ensure!(ready, "the program said nothing");
        run(criu, &["dump", "-t", &pid, "-v0", "-D"], &images)
    });
    // CRIU has killed it; after a failure it still runs.
    let _ = child.kill();
    child.wait()?;
    let saved = dumped?;
    let pidfile = dir.join("pid");
    let pidfile_name = pidfile.to_str().context("a path in UTF-8")?;
    let restored = run(criu, &["restore", "-d", "-v0", "--pidfile", pidfile_name, "-D"], &images)?;
    end(&pidfile)?;
    fs::remove_dir_all(&images)?;
    fs::remove_file(&pidfile)?;
    Ok((saved, restored))
}

fn run(criu: &[String], args: &[&str], images: &Path) -> Result<Duration> {
    let (program, first) = criu.split_first().context("the criu command is empty")?;
    let start = Instant::now();
    let output = Command::new(program).args(first).args(args).arg(images).stdin(Stdio::null()).output()?;
    let took = start.elapsed();
    if !output.status.success() {
        bail!("{}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(took)
}

/// Ends the restored program, which is not our child.
fn end(pidfile: &Path) -> Result<()> {
    let pid = fs::read_to_string(pidfile)?.trim().parse().ok().and_then(Pid::from_raw).context("a pid")?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    pidfd_send_signal(&handle, Signal::KILL)?;
    ensure!(wait_readable(handle.as_fd(), TIMEOUT)?, "the restored program does not end");
    Ok(())
}
