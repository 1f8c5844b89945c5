//! A job by the very command line of `examples/container/Dockerfile`, in one container after the other: `ckpt` is PID 1 of a PID namespace, in a user
//! namespace. There is no container engine here: unshare(1) makes them. Under an engine's seccomp filter the save is refused by name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::steps::{allow, expected};
use ckpt_tests::{Job, Place, User, proc, wait};
use rustix::process::{Pid, Signal, kill_process};

const DOCKERFILE: &str = include_str!("../../examples/container/Dockerfile");

/// Before each step it waits until the file `pass` has as many bytes.
const JOB: &str = "#!/usr/bin/python3
import os, sys, time
sum = int(open(sys.argv[1]).read())
for step in range(1, 21):
    while step > os.stat('pass').st_size: time.sleep(0.02)
    sum = (sum * 31 + step) % 1000003
    open('results', 'a').write(f'step {step} {sum}\\n')
";

/// Steps of the job.
const STEPS: u64 = 20;

/// The words of a line of the file.
fn words(instruction: &str) -> Result<Vec<String>> {
    let line = DOCKERFILE.lines().find_map(|line| line.strip_prefix(instruction));
    Ok(serde_json::from_str(line.with_context(|| format!("no {instruction}"))?)?)
}

/// Starts a container, by this command first; its PID 1, as seen from here.
fn start(place: &Place, before: &[PathBuf]) -> Result<(Job, u32)> {
    let mut command = place.command(tool("unshare", "util-linux")?);
    command.args(["--user", "--map-current-user", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.args(before).args(words("ENTRYPOINT ")?).args(words("CMD ")?);
    let job = Job::start(command.env("PATH", format!("{}:/usr/bin:/bin", place.bin().display())))?;
    let init = || {
        let found = proc::children(job.process()).first().copied();
        Ok(found.filter(|init| proc::blocks(*init, Signal::TERM.as_raw())))
    };
    let init = wait::until(init, || job.story())?;
    Ok((job, init))
}

/// Lets the job make its steps up to this one, and waits until it has.
fn go_on(place: &Place, job: &Job, step: u64) -> Result<()> {
    allow(place, step)?;
    let done = || Ok(fs::read_to_string(place.file("results")).is_ok_and(|text| text == expected(step)).then_some(()));
    wait::until(done, || format!("not at step {step}: {}", job.story()))
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(pid.cast_signed()).context("a pid")?, signal)?)
}

#[test]
fn it_goes_on_in_the_next_container() -> Result<()> {
    tool("python3", "python3")?;
    User::each(|user| {
        let place = Place::new(user)?;
        let program = place.bin().join("job");
        fs::write(&program, JOB)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        place.write("input.dat", "4711\n")?;
        for step in [4, 8, 12] {
            let (mut job, init) = start(&place, &[])?;
            go_on(&place, &job, step)?;
            send(init, Signal::TERM)?;
            job.end()?.expect_code(85)?;
        }
        let (job, _) = start(&place, &[])?;
        go_on(&place, &job, 16)?;
        job.kill_session()?;
        // Four steps are lost, and made again.
        fs::write(place.file("results"), expected(12))?;
        let (mut job, _) = start(&place, &[])?;
        go_on(&place, &job, STEPS)?;
        job.end()?.expect_code(0)?;
        ensure!(place.file("job.ckpt.done").exists(), "it is not done");
        fs::remove_file(place.file("results"))?;
        place.write("pass", "")?;
        let (mut job, init) = start(&place, &[place.guest("container")?])?;
        go_on(&place, &job, 1)?;
        send(init, Signal::TERM)?;
        let ended = job.end()?;
        ensure!(ended.code() == Some(143) && ended.err.contains("not saved: seccomp filter"), "{ended:#?}");
        Ok(())
    })
}
