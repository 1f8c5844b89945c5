//! Saving by pid: once, again and again with a restart after each, and at random moments.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{Ended, Job, Place};

/// A number in `0.0..1.0` that nobody knows beforehand.
#[must_use]
pub fn random() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1u64 << 53) as f64
}

/// Waits for the end of a process, but no longer than `time`; tells whether it has ended.
///
/// # Errors
/// It is no process.
pub fn ends_within(pid: u32, time: Duration) -> Result<bool> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a pid")?;
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(true) };
    let timeout = Timespec { tv_sec: time.as_secs().try_into()?, tv_nsec: time.subsec_nanos().into() };
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? > 0)
}

impl Place {
    /// `ckpt save PID -o IMAGE` with more options, to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_save(&self, pid: u32, image: &Path, options: &[&str]) -> Result<Ended> {
        let mut command = self.ckpt();
        command.arg("save").arg(pid.to_string()).arg("-o").arg(image).args(options);
        Job::start(&mut command)?.end()
    }

    /// The same, which must succeed.
    ///
    /// # Errors
    /// With what it said.
    pub fn save(&self, pid: u32, image: &Path, options: &[&str]) -> Result<Ended> {
        let ended = self.try_save(pid, image, options)?;
        ensure!(ended.code() == Some(0), "not saved: {ended:#?}");
        Ok(ended)
    }
}

/// How a program that was saved, killed and restarted several times came to its end.
#[derive(Debug)]
pub struct Chain {
    /// What all generations wrote to standard output, one after the other.
    pub out: Vec<u8>,
    /// How the last one ended.
    pub ended: Ended,
    /// How often it was restarted.
    pub generations: u32,
}

/// Runs a program, which takes about `time` undisturbed, saves it by pid at `moments` random moments, kills and restarts
/// it each time.
///
/// # Errors
/// A save or a restart failed.
pub fn chain(place: &Place, command: &mut Command, time: Duration, moments: u32) -> Result<Chain> {
    let image = place.file("chain.ckpt");
    let mut job = Job::start(command)?;
    let (mut out, mut generations) = (Vec::new(), 0);
    for _ in 0..moments {
        // Twice the mean: as long between two moments as the program's share of them.
        let pause = time.mul_f64(2.0 * random() / f64::from(moments + 1));
        if ends_within(job.pid(), pause)? {
            break;
        }
        let saved = place.try_save(job.pid(), &image, &["--kill"])?;
        if saved.code() != Some(0) {
            // It was faster than the saver.
            ensure!(ends_within(job.pid(), Duration::from_millis(200))?, "not saved: {saved:#?} {}", job.story());
            break;
        }
        let before = job.end()?;
        ensure!(before.err.is_empty(), "{before:#?}");
        out.extend(job.out_bytes());
        job = Job::start(&mut place.stub(&image))?;
        generations += 1;
    }
    let ended = job.end()?;
    out.extend(job.out_bytes());
    Ok(Chain { out, ended, generations })
}

/// Runs a program to its end, undisturbed; returns what it wrote to standard output and how long it took.
///
/// # Errors
/// It failed.
pub fn undisturbed(command: &mut Command) -> Result<(Vec<u8>, Duration)> {
    let start = Instant::now();
    let mut job = Job::start(command)?;
    let ended = job.end()?;
    ensure!(ended.status.success(), "{ended:#?}");
    Ok((job.out_bytes(), start.elapsed()))
}
