//! `ckpt migrate` through a real sshd: the program runs there and no longer here, or, whatever goes wrong, still here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ckpt_tests::left_out::Needs;
use ckpt_tests::remote::{ends_within, random};
use ckpt_tests::sshd::Sshd;
use ckpt_tests::{Ended, Job, Place, Pty, READY, User, left_out, proc, wait};
use rustix::process::{Pid, Signal, kill_process};

/// No sshd lets an account in that has no shell, as `nobody` has none; where root runs the tests, it is given one.
fn unless_locked_out() -> Result<()> {
    let own = rustix::process::geteuid().as_raw().to_string();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = accounts.lines().find(|line| line.split(':').nth(2) == Some(&own));
    let locked = account.is_none_or(|line| line.ends_with("nologin") || line.ends_with("false"));
    if locked {
        return Err(left_out::whole(Needs::Machine, "this account has no shell, so that no ssh gets in"));
    }
    Ok(())
}

/// A guest, and a way to another box, which is this one.
struct Trip {
    place: Place,
    sshd: Sshd,
}

impl Trip {
    fn new(user: User) -> Result<Self> {
        let place = Place::new(user)?;
        let sshd = Sshd::start(&place)?;
        Ok(Self { place, sshd })
    }

    fn migrate(&self, pid: u32, ssh: &str, options: &[&str]) -> Result<Job> {
        let mut command = self.place.ckpt();
        command.args(["migrate", "--ssh", ssh]);
        if !options.contains(&"--remote-ckpt") {
            command.arg("--remote-ckpt").arg(self.place.bin().join("ckpt"));
        }
        Job::start(command.args(options).arg(pid.to_string()).arg(self.sshd.host()))
    }

    fn to_its_end(&self, pid: u32, options: &[&str]) -> Result<Ended> {
        self.migrate(pid, &self.sshd.ssh(), options)?.end()
    }
}

/// Closes what whoever runs the tests has left open: sshd does so, too, and the other side has no such pipes.
const ALONE: &str = r#"for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done; "#;

/// The pid that `ckpt migrate` tells.
fn there(ended: &Ended) -> Result<u32> {
    ensure!(ended.code() == Some(0), "{ended:#?}");
    let pid = ended.out.split(" as ").nth(1).and_then(|rest| rest.split([',', ';', ' ']).next());
    Ok(pid.with_context(|| format!("{ended:#?}"))?.parse()?)
}

/// Output in the file that took the pipe's place, when the program has ended.
fn output(trip: &Trip, here: u32, there: u32) -> Result<String> {
    proc::wait_gone(there)?;
    Ok(fs::read_to_string(trip.place.file(format!("ckpt-{here}.out")))?)
}

#[test]
fn it_goes_on_there_and_ends_here() -> Result<()> {
    unless_locked_out()?;
    User::each(|user| {
        let trip = Trip::new(user)?;
        for options in [&[][..], &["--compress", "none"], &["--compress", "zstd:9", "-v"]] {
            let mut command = trip.place.command("/bin/bash");
            command.args(["-c", &format!(r#"{ALONE} exec "$0""#)]).arg(trip.place.guest("memory")?);
            let mut job = Job::start(&mut command)?;
            job.wait_line(READY)?;
            let ended = trip.to_its_end(job.pid(), options)?;
            let pid = there(&ended)?;
            ensure!(ended.out.contains("its output goes to "), "{ended:#?}");
            ensure!(job.end()?.status.code().is_none(), "it was to be killed");
            trip.place.go()?;
            let said = output(&trip, job.pid(), pid)?;
            ensure!(said.lines().last() == Some("PASS"), "{said}");
            trip.place.halt()?;
        }
        trip.sshd.stop()
    })
}

/// From a terminal here into a file there; standard output and error, which share one, stay in order.
#[test]
fn a_terminal_becomes_a_file() -> Result<()> {
    unless_locked_out()?;
    let trip = Trip::new(User::Own)?;
    let pty = Pty::new(User::Own, 24, 80)?;
    let program = trip.place.write(
        "wait.py",
        "import os, sys, time\nprint('ready', flush=True)\nwhile not os.path.exists(os.environ['GUEST_GO']): time.sleep(0.01)\n\
         print('one', flush=True)\nprint('two', file=sys.stderr, flush=True)\nprint('three', sys.stdin.read(), flush=True)\n",
    )?;
    let mut command = trip.place.bare("/bin/bash");
    command.args(["-c", &format!(r#"{ALONE} exec /usr/bin/python3 "$0""#)]).arg(program);
    let job = Job::start_on(&pty, &mut command)?;
    job.wait_line(READY)?;
    let pid = there(&trip.to_its_end(job.pid(), &["--output", "kept.log", "--pidfile", "pid"])?)?;
    ensure!(fs::read_to_string(trip.place.file("pid"))?.trim() == pid.to_string(), "another pid");
    trip.place.go()?;
    proc::wait_gone(pid)?;
    let said = fs::read_to_string(trip.place.file("kept.log"))?;
    ensure!(said == "one\ntwo\nthree \n", "{said:?}");
    trip.sshd.stop()
}

/// The other side is not there, has no ckpt, refuses; ssh dies, we die: it goes on here.
#[test]
fn whatever_goes_wrong_it_goes_on_here() -> Result<()> {
    unless_locked_out()?;
    User::each(|user| {
        let trip = Trip::new(user)?;
        trip.place.write("log", "0123456789")?;
        let mut command = trip.place.command("/bin/bash");
        command.args(["-c", &format!(r#"{ALONE} exec 5>>log; exec "$0""#)]).arg(trip.place.guest("memory")?);
        let mut job = Job::start(&mut command)?;
        job.wait_line(READY)?;
        let ssh = trip.sshd.ssh();
        let fails = |ssh: &str, options: &[&str], code: i32, says: &str| -> Result<()> {
            let ended = trip.migrate(job.pid(), ssh, options)?.end()?;
            ensure!(ended.code() == Some(code) && ended.err.contains(says), "{options:?} {says:?}: {ended:#?}");
            ensure!(!ends_within(job.pid(), Duration::ZERO)?, "{options:?}: {}", job.story());
            ensure!(proc::state(job.pid()) != Some('t'), "it stands still");
            Ok(())
        };
        fails("ssh -p 1", &[], 88, "no ckpt answers (ssh ended with 255): it could not get there, or not log in")?;
        fails("/nonexistent/ssh", &[], 127, "cannot be executed")?;
        fails(&ssh, &["--remote-ckpt", "/nonexistent/ckpt"], 88, "ended with 127): is it there?")?;
        fails("cat", &[], 88, "no ckpt answers")?;
        fails(
            &ssh,
            &["--fd", "7=/nonexistent/x", "--output", "/nonexistent/x"],
            84,
            "cannot be opened for its output",
        )?;
        // The stub there refuses.
        fails(&ssh, &["--fd", "5=/nonexistent/x"], 84, "--fd 5=/nonexistent/x: cannot be opened")?;
        fails(&format!("{ssh} -o ProxyCommand=false"), &[], 88, "no ckpt answers")?;
        for options in [&[][..], &["--compress", "none"]] {
            cut(&trip, &job, options)?;
        }
        trip.place.go()?;
        job.end()?.expect_pass()?;
        trip.sshd.stop()
    })
}

/// A connection that ends after so many bytes, and a `ckpt migrate` that is killed at any moment.
fn cut(trip: &Trip, job: &Job, options: &[&str]) -> Result<()> {
    for bytes in [0, 1000, 100_000, 400_000] {
        let script = format!("#!/bin/bash\nhead -c {bytes} | {} \"$@\"\n", trip.sshd.ssh());
        let path = trip.place.write("cut.sh", script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let ended = trip.migrate(job.pid(), &path.display().to_string(), options)?.end()?;
        let named = ended.err.contains("truncated") || ended.err.contains("connection has ended");
        ensure!(matches!(ended.code(), Some(73 | 88)) && named, "cut after {bytes}: {ended:#?}");
        ensure!(!ends_within(job.pid(), Duration::ZERO)?, "{}", job.story());
    }
    for _ in 0..6 {
        let migrate = trip.migrate(job.pid(), &trip.sshd.ssh(), &[options, &["--output", "dead"]].concat())?;
        // All of it takes some 300 ms; later it has gone, and the test would be over.
        if ends_within(migrate.pid(), Duration::from_secs_f64(random() * 0.12))? {
            break;
        }
        kill_process(Pid::from_raw(i32::try_from(migrate.pid())?).context("pid")?, Signal::KILL)?;
        drop(migrate);
        ensure!(!ends_within(job.pid(), Duration::from_millis(20))?, "{}", job.story());
        wait::until(|| Ok((proc::state(job.pid()) != Some('t')).then_some(())), || "it stands still".to_owned())?;
    }
    Ok(())
}
