//! A job by the very text of `examples/htcondor/` under HTCondor's contract for jobs that save themselves. Debian has no HTCondor: what it does is done
//! here by a stand-in, as <https://htcondor.readthedocs.io/en/lts/users-manual/self-checkpointing-applications.html> tells: each execution has a directory
//! with another name, which begins with what was last taken to the submit machine, and is lost with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::steps::{JOB, STEPS, allow, expected};
use ckpt_tests::{Job, Place, User, proc, wait};
use rustix::process::{Pid, Signal, kill_process};

const SUBMIT: &str = include_str!("../../examples/htcondor/job.sub");
const SCRIPT: &str = include_str!("../../examples/htcondor/job.sh");

/// The value of a line of the submit file.
fn submitted(name: &str) -> Result<&'static str> {
    let mut lines = SUBMIT.lines().filter_map(|line| line.split_once('='));
    let value = lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    value.with_context(|| format!("no {name}"))
}

/// The submit machine: the job's files, and what was taken from the machines that it ran on.
struct Submitted {
    place: Place,
    executions: u32,
}

/// A machine that runs it.
struct Execution<'a> {
    place: &'a Place,
    sandbox: PathBuf,
    job: Job,
}

impl Submitted {
    fn new(user: User) -> Result<Self> {
        tool("python3", "python3")?;
        let place = Place::new(user)?;
        let pass = place.write("pass", "")?;
        for dir in ["submit", "spool"] {
            fs::create_dir(place.file(dir))?;
            place.give(&place.file(dir))?;
        }
        place.write("submit/job.sh", SCRIPT)?;
        place.write("submit/job", JOB)?;
        place.write("submit/input.dat", format!("4711 {}\n", pass.display()))?;
        fs::copy(place.bin().join("ckpt"), place.file("submit/ckpt"))?;
        Ok(Self { place, executions: 0 })
    }

    /// Starts it on another machine.
    fn execute(&mut self) -> Result<Execution<'_>> {
        self.executions += 1;
        let place = &self.place;
        let sandbox = place.file(format!("dir_{}", self.executions));
        fs::create_dir(&sandbox)?;
        place.give(&sandbox)?;
        for name in submitted("transfer_input_files")?.split(',').chain([submitted("executable")?]) {
            transfer(place, &place.file("submit").join(name.trim()), &sandbox)?;
        }
        for entry in fs::read_dir(place.file("spool"))? {
            transfer(place, &entry?.path(), &sandbox)?;
        }
        let job = start(place, &sandbox)?;
        Ok(Execution { place, sandbox, job })
    }
}

fn start(place: &Place, sandbox: &Path) -> Result<Job> {
    let mut command = place.command(sandbox.join(submitted("executable")?));
    Job::start(command.current_dir(sandbox).env("_CONDOR_SCRATCH_DIR", sandbox))
}

/// Copies a file, which is executable there.
fn transfer(place: &Place, from: &Path, to: &Path) -> Result<()> {
    let to = to.join(from.file_name().context("no name")?);
    fs::copy(from, &to)?;
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    place.give(&to)
}

impl Execution<'_> {
    /// Takes what it has written to the submit machine.
    fn take(&self) -> Result<()> {
        for entry in fs::read_dir(&self.sandbox)? {
            let path = entry?.path();
            let own = path.file_name().context("no name")?;
            if !self.place.file("submit").join(own).exists() {
                transfer(self.place, &path, &self.place.file("spool"))?;
            }
        }
        Ok(())
    }

    /// Lets the job make its steps up to this one, and waits until it has.
    fn go_on(&self, step: u64) -> Result<()> {
        allow(self.place, step)?;
        let done = || {
            Ok(fs::read_to_string(self.sandbox.join("job.out")).is_ok_and(|out| out == expected(step)).then_some(()))
        };
        wait::until(done, || {
            let err = fs::read_to_string(self.sandbox.join("job.err")).unwrap_or_default();
            format!("not at step {step}: {}{err}", self.job.story())
        })
    }

    /// Sends a signal to the job's process, once `ckpt` reads its signals, and takes what the job has written by its end.
    fn ends_by(&mut self, signal: Signal) -> Result<()> {
        let reads = || {
            let ckpt = proc::children(self.job.process()).first().copied();
            Ok(ckpt.is_some_and(|ckpt| proc::blocks(ckpt, Signal::TERM.as_raw())).then_some(()))
        };
        wait::until(reads, || self.job.story())?;
        kill_process(Pid::from_raw(self.job.process().cast_signed()).context("a pid")?, signal)?;
        let ended = self.job.end()?;
        ended.expect_code(submitted("checkpoint_exit_code")?.parse()?)?;
        self.take()
    }

    /// Half an hour is over, which `timeout` learns by a signal: the job saves itself, and is started again in the same directory.
    fn checkpoint(&mut self) -> Result<()> {
        self.ends_by(Signal::ALARM)?;
        self.job = start(self.place, &self.sandbox)?;
        Ok(())
    }

    /// It is to leave this machine.
    fn vacate(mut self) -> Result<()> {
        self.ends_by(Signal::TERM)?;
        Ok(fs::remove_dir_all(&self.sandbox)?)
    }

    /// The machine fails.
    fn fail(self) -> Result<()> {
        self.job.kill_session()?;
        Ok(fs::remove_dir_all(&self.sandbox)?)
    }
}

#[test]
fn it_goes_on_wherever_it_is_started() -> Result<()> {
    ensure!(submitted("when_to_transfer_output")? == "ON_EXIT_OR_EVICT");
    User::each(|user| {
        let mut submitted = Submitted::new(user)?;
        let mut machine = submitted.execute()?;
        machine.go_on(4)?;
        machine.checkpoint()?;
        machine.go_on(8)?;
        machine.vacate()?;

        let mut machine = submitted.execute()?;
        machine.go_on(12)?;
        machine.checkpoint()?;
        // These it has to make again, elsewhere.
        machine.go_on(16)?;
        machine.fail()?;

        let mut machine = submitted.execute()?;
        machine.go_on(STEPS)?;
        machine.job.end()?.expect_code(0)?;
        ensure!(machine.sandbox.join("job.ckpt.done").exists(), "it is not done");
        Ok(())
    })
}
