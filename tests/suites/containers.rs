//! Jobs in containers, below the filter that an engine puts around them (Docker's default profile) and with no more rights than it leaves: by the very
//! command line of `examples/container/Dockerfile`, where `ckpt` is PID 1, and by the ids of programs, in one container after the other. There is no
//! engine here, see `ckpt_tests::container`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use ckpt_tests::container::{self, KINDS};
use ckpt_tests::image::Mark;
use ckpt_tests::programs::tool;
use ckpt_tests::steps::{allow, expected};
use ckpt_tests::{Ended, Job, Place, User, proc, wait};
use rustix::process::{Pid, Signal, kill_process};

const DOCKERFILE: &str = include_str!("../../examples/container/Dockerfile");

/// Before each step it waits until the file `pass` has as many bytes. A thread and an event loop have their parts in each.
const JOB: &str = "#!/usr/bin/python3
import asyncio, os, queue, sys, threading
given, taken = queue.Queue(), queue.Queue()
def pass_on():
    while True: taken.put(given.get())
threading.Thread(target=pass_on, daemon=True).start()
async def main():
    loop, sum = asyncio.get_running_loop(), int(open(sys.argv[1]).read())
    for step in range(1, 21):
        while step > os.stat('pass').st_size: await asyncio.sleep(0.02)
        given.put(step)
        sum = (sum * 31 + await loop.run_in_executor(None, taken.get)) % 1000003
        open('results', 'a').write(f'step {step} {sum}\\n')
asyncio.run(main())
";

/// The same in a shell, with a pipeline for each step.
const SCRIPT: &str = "#!/bin/bash
sum=4711
for step in {1..20}; do
    while [ $(stat -c %s pass) -lt $step ]; do sleep 0.02; done
    sum=$(echo $sum $step | awk '{ print ($1 * 31 + $2) % 1000003 }' | cat)
    echo step $step $sum >> results
done
";

/// The same beside another command.
const MAKEFILE: &str = "all: steps other
steps:
\t@./script
other:
\t@while [ $$(wc -l < results) -lt 20 ]; do sleep 0.05; done
";

/// The same in JavaScript.
const NODE: &str = "const fs = require('fs');
let sum = 4711, step = 1;
const turn = () => {
    for (; step <= 20 && fs.statSync('pass').size >= step; step++) {
        sum = (sum * 31 + step) % 1000003;
        fs.appendFileSync('results', `step ${step} ${sum}\\n`);
    }
    if (step <= 20) setTimeout(turn, 20);
};
turn();
";

/// Steps of the jobs.
const STEPS: u64 = 20;

/// The words of a line of the file.
fn words(instruction: &str) -> Result<Vec<String>> {
    let line = DOCKERFILE.lines().find_map(|line| line.strip_prefix(instruction));
    Ok(serde_json::from_str(line.with_context(|| format!("no {instruction}"))?)?)
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

fn executable(place: &Place, name: &str, text: &str) -> Result<()> {
    let program = place.write(name, text)?;
    Ok(fs::set_permissions(program, fs::Permissions::from_mode(0o755))?)
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
        let line = [words("ENTRYPOINT ")?, words("CMD ")?].concat();
        for (step, kind) in [4, 8, 12].into_iter().zip(KINDS) {
            let (mut job, init) = container::start(&place, kind, &line)?;
            go_on(&place, &job, step)?;
            send(init, Signal::TERM)?;
            job.end()?.expect_code(85)?;
        }
        let (job, _) = container::start(&place, &[], &line)?;
        go_on(&place, &job, 16)?;
        job.kill_session()?;
        // Four steps are lost, and made again.
        fs::write(place.file("results"), expected(12))?;
        let (mut job, _) = container::start(&place, &[], &line)?;
        go_on(&place, &job, STEPS)?;
        job.end()?.expect_code(0)?;
        ensure!(place.file("job.ckpt.done").exists(), "it is not done");
        Ok(())
    })
}

/// Six generations, by SIGTERM and by kill -9 of everything after a save of `--every` in turn; the last one to its end.
fn six(command: &[&str]) -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        executable(&place, "script", SCRIPT)?;
        executable(&place, "job", JOB)?;
        for (name, text) in [("Makefile", MAKEFILE), ("job.js", NODE), ("input.dat", "4711\n"), ("results", "")] {
            place.write(name, text)?;
        }
        let image = place.file("job.ckpt");
        for generation in 1..=6 {
            let kind = KINDS.into_iter().cycle().nth(generation).unwrap_or_default();
            let every: &[&str] = if generation % 2 == 0 { &["--every", "1s"] } else { &[] };
            let line = [&["ckpt", "run", "-o", "job.ckpt"], every, &["--"], command].concat();
            let (mut job, init) = container::start(&place, kind, line)?;
            let step = 3 * generation as u64;
            go_on(&place, &job, step).with_context(|| format!("generation {generation}"))?;
            if every.is_empty() {
                send(init, Signal::TERM)?;
                job.end()?.expect_code(85).with_context(|| format!("generation {generation}"))?;
            } else {
                // The first one that comes may have begun before the step.
                for _ in 0..2 {
                    let before = Mark::of(&image);
                    let saved = || Ok((Mark::of(&image) != before).then_some(()));
                    wait::until(saved, || format!("no image: {}", job.story()))?;
                }
                send(init, Signal::KILL)?;
                job.end()?;
            }
        }
        let (mut job, _) = container::start(&place, &[], [&["ckpt", "run", "-o", "job.ckpt", "--"], command].concat())?;
        go_on(&place, &job, STEPS)?;
        job.end()?.expect_code(0)
    })
}

#[test]
fn six_generations_of_threads_and_an_event_loop() -> Result<()> {
    tool("python3", "python3")?;
    six(&["./job", "input.dat"])
}

#[test]
fn six_generations_of_a_script() -> Result<()> {
    six(&["./script"])
}

#[test]
fn six_generations_of_make() -> Result<()> {
    tool("make", "make")?;
    six(&["make", "-j2"])
}

#[test]
fn six_generations_of_node() -> Result<()> {
    tool("node", "nodejs")?;
    six(&["node", "job.js"])
}

/// Runs a shell's commands in a container, whose first process the shell is.
fn shell(place: &Place, kind: &[&str], lines: &str) -> Result<Ended> {
    let mut command = container::command(place, kind)?;
    command.args(["/bin/bash", "-c", lines]);
    Job::start(command.env("CKPT_TEST_GUEST", place.work()))?.end()
}

/// Starts a guest behind the shell, as `$P`: under an id that the first processes of the next container do not have.
fn guest(place: &Place, name: &str) -> Result<String> {
    let guest = place.guest(name)?;
    let low = "for i in {1..320}; do (:); done\n";
    Ok(format!("{low}{} > out & P=$!; until grep -q ready out; do sleep 0.02; done\n", guest.display()))
}

/// What guests with many kinds of descriptors are after a save by their ids, restarted from one image by both programs.
#[test]
fn programs_are_saved_by_their_ids() -> Result<()> {
    User::each(|user| {
        for (name, kind) in ["eventfd", "timerfd", "signalfd"].iter().zip(KINDS.into_iter().cycle()) {
            // By its id takes rights that prove that nobody has installed a filter.
            let kind = if kind == ["-n"] { &[] } else { kind };
            let place = Place::new(user)?;
            let save = guest(&place, name)?
                + "ckpt check $P && ckpt save $P -o packed --compress zstd && ckpt save $P -o image --kill; exit $?";
            shell(&place, kind, &save)?.expect_code(0).with_context(|| format!("{name} {kind:?}"))?;
            place.go()?;
            for line in ["exec ckpt restart --files rollback image", "exec restart-stub --files rollback image"] {
                shell(&place, kind, line)?.expect_code(0).with_context(|| format!("{name} {kind:?}: {line}"))?;
                let said = fs::read_to_string(place.file("out"))?;
                ensure!(said.ends_with("PASS\n"), "{name}: {said}");
            }
        }
        Ok(())
    })
}

/// Images go in and out: what was saved in a container goes on outside of it, and the other way about, and is saved there again.
#[test]
fn images_go_in_and_out() -> Result<()> {
    tool("python3", "python3")?;
    User::each(|user| {
        let place = Place::new(user)?;
        executable(&place, "job", JOB)?;
        place.write("input.dat", "4711\n")?;
        let line = ["run", "-o", "job.ckpt", "--", "./job", "input.dat"];
        for (generation, step) in (0..4).zip([3, 6, 9, 12]) {
            let (mut job, pid) = if generation % 2 == 0 {
                container::start(&place, &[], ["ckpt"].iter().chain(&line))?
            } else {
                let job = Job::start(place.ckpt().args(line))?;
                let pid = job.process();
                (job, pid)
            };
            go_on(&place, &job, step).with_context(|| format!("generation {generation}"))?;
            send(pid, Signal::TERM)?;
            job.end()?.expect_code(85)?;
        }
        let (mut job, _) = container::start(&place, &[], ["ckpt"].iter().chain(&line))?;
        go_on(&place, &job, STEPS)?;
        job.end()?.expect_code(0)
    })
}

/// A filter of the program's own on top of the container's, and one of which nobody can say whose it is.
#[test]
fn other_filters_are_refused() -> Result<()> {
    const OWN: &str = "is not only what its surroundings have";
    const UNPROVEN: &str = "may be another than that of its surroundings";
    User::each(|user| {
        let place = Place::new(user)?;
        let guarded = place.guest("guarded")?;
        let line = [
            "ckpt".as_ref(),
            "run".as_ref(),
            "-o".as_ref(),
            "job.ckpt".as_ref(),
            "--".as_ref(),
            guarded.as_os_str(),
            "filter".as_ref(),
        ];
        let (mut job, init) = container::start(&place, &[], line)?;
        let filters = |pid| {
            fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains("Seccomp_filters:\t2"))
        };
        let two = || Ok(proc::children(init).into_iter().any(filters).then_some(()));
        wait::until(two, || job.story())?;
        send(init, Signal::TERM)?;
        let ended = job.end()?;
        ensure!(ended.code() == Some(143) && ended.err.contains("not saved: seccomp filter"), "{ended:#?}");
        ensure!(ended.err.contains(OWN), "{ended:#?}");
        // Check and save say the same: of such a one, of one whose parents could have installed one, and of one that left the session.
        let own = format!(
            "{} filter > out & P=$!; until grep -q 'filters:.2' /proc/$P/status; do sleep 0.02; done\n",
            guarded.display()
        );
        let started = guest(&place, "eventfd")?;
        let away = started.replacen("\n/", "\nsetsid /", 1);
        for (start, kind, why) in [(&own, KINDS[0], OWN), (&started, KINDS[1], UNPROVEN), (&away, KINDS[0], UNPROVEN)] {
            let lines = "ckpt check $P > told; ckpt save $P -o image 2> said; echo $?; kill -9 $P";
            let ended = shell(&place, kind, &(start.clone() + lines))?;
            let [told, said] = ["told", "said"].map(|name| fs::read_to_string(place.file(name)).unwrap_or_default());
            ensure!(ended.out == "88\n" && told.contains(why), "{why}: {ended:#?} {told} {said}");
            ensure!(said == format!("ckpt: {told}"), "{told} {said}");
        }
        Ok(())
    })
}
