//! `--every`: a process of its own that sends the save signal again and again, as long as the program lives.
//!
//! It is started twice over, so that it is no child of the program, and it knows the program by a descriptor
//! (pidfd), so that it can never hit another process of the same number. It has its own session and no
//! descriptor of the program's. Must never send a signal that the program does not catch: that would end it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image_format::ExitCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal as Sig, getpid, pidfd_open, pidfd_send_signal, setsid};

use crate::failure::{Failure, reason};
use crate::signal::Signal;

/// The hidden subcommand that runs in the process; standard input is the program's pidfd.
pub const COMMAND: &str = "save-every";

/// Save a running program periodically; started by `ckpt run --every`
#[derive(Debug, clap::Args)]
pub struct Args {
    milliseconds: u64,
    signal: Signal,
    #[arg(long)]
    detached: bool,
}

fn failed(error: impl Into<io::Error>) -> Failure {
    Failure::new(
        ExitCode::SaveFailed,
        format_args!("--every: no process that saves could be started: {}", reason(&error.into())),
    )
}

/// Starts the process for the program that this process is about to become.
pub fn start(period: Duration, signal: Signal) -> Result<(), Failure> {
    let program = pidfd_open(getpid(), PidfdFlags::empty()).map_err(failed)?;
    let milliseconds = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
    let status =
        itself(milliseconds, signal).and_then(|mut command| command.stdin(program).status()).map_err(failed)?;
    if status.success() { Ok(()) } else { Err(failed(io::Error::other("it ended at once"))) }
}

fn itself(milliseconds: u64, signal: Signal) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0("ckpt").args([COMMAND, &milliseconds.to_string(), &signal.number().to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// The process: first only to start itself again and end, so that the program has no child.
pub fn main(args: Args) -> Result<(), Failure> {
    if !args.detached {
        setsid().map_err(failed)?;
        close_inherited().map_err(failed)?;
        let mut again = itself(args.milliseconds, args.signal).map_err(failed)?;
        again.arg("--detached").current_dir("/").spawn().map_err(failed)?;
        return Ok(());
    }
    let program = io::stdin();
    watch(program.as_fd(), Duration::from_millis(args.milliseconds), args.signal).map_err(failed)
}

/// Closes what the caller left open for the program: a pipe's reader would wait for us too.
fn close_inherited() -> io::Result<()> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&fd| fd > 2)
        .collect();
    for fd in open {
        // The list itself was read through one of them, which is closed again by now.
        if fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok() {
            // SAFETY: nothing in this process has opened a descriptor above 2 that is still in use: they came with
            // the exec, so no other owner exists.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Ok(())
}

/// Sends `signal` every `period` until the program ends.
fn watch(program: impl AsFd, period: Duration, signal: Signal) -> io::Result<()> {
    let number = i32::try_from(signal.number()).unwrap_or(0);
    // SAFETY: 1 to 64 without the C library's own, as `Signal` has checked; it is only passed to the kernel.
    let sig = unsafe { Sig::from_raw_unchecked(number) };
    let mut next = Instant::now() + period;
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
        if poll(&mut [PollFd::new(&program, PollFlags::IN)], Some(&timeout))? > 0 {
            return Ok(());
        }
        if Instant::now() < next {
            continue;
        }
        next += period;
        if catches(&program, signal)? {
            match pidfd_send_signal(&program, sig) {
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                other => other?,
            }
        }
    }
}

/// Whether the program has a handler for the signal by now: at its very start it has none.
fn catches(program: &impl AsFd, signal: Signal) -> io::Result<bool> {
    let Some(pid) = pid_of(program)? else { return Ok(false) };
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    Ok(mask & (1 << (signal.number() - 1)) != 0)
}

/// The number behind a pidfd; none when the process is gone.
fn pid_of(program: &impl AsFd) -> io::Result<Option<Pid>> {
    use std::os::fd::AsRawFd;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|n| n.trim().parse().ok());
    Ok(pid.and_then(Pid::from_raw).filter(|pid| pid.as_raw_nonzero().get() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_program_by_its_pidfd() -> io::Result<()> {
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        assert_eq!(pid_of(&own)?, Some(getpid()));
        assert!(!catches(&own, "USR1".parse().map_err(io::Error::other)?)?);
        Ok(())
    }
}
