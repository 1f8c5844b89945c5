//! `ckpt run`: the parent that saves its program from outside, on signals, every so often, and at the end.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use ckpt_tests::image::Mark;
use ckpt_tests::programs::tool;
use ckpt_tests::steps::allow;
use ckpt_tests::{Job, Place, READY, User, proc, wait};
use rustix::process::Signal;

/// `ckpt run -o IMAGE OPTIONS -- PROGRAM ARGUMENTS`.
fn run(place: &Place, image: &Path, options: &[&str], program: &Path, arguments: &[&str]) -> Command {
    let mut command = place.ckpt();
    command.args(["run", "-o"]).arg(image).args(options).arg("--").arg(program).args(arguments);
    command
}

/// Waits for another image than this one.
fn wait_new(job: &Job, image: &Path, before: Mark) -> Result<()> {
    wait::until(|| Ok((Mark::of(image) != before).then_some(())), || format!("no new image: {}", job.story()))
}

#[test]
fn it_saves_and_exits_when_asked_to() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut command = run(&place, &image, &[], &place.guest("counter")?, &["300", "count.txt", "10"]);
        let mut job = Job::start(&mut command)?;
        job.wait_line("count 3")?;
        job.send(Signal::TERM)?;
        let ended = job.end()?;
        ended.expect_code(85)?;
        ensure!(ended.err.lines().count() == 1 && ended.err.contains("job.ckpt: starts `"), "{ended:#?}");
        // The same command line restarts now.
        let ended = Job::start(&mut command)?.end()?;
        ended.expect_pass()?;
        ensure!(!ended.out.contains("count 1\n"), "it began anew: {ended:#?}");
        let file = std::fs::read_to_string(place.file("count.txt"))?;
        let whole: String = (1..=300).map(|i| format!("count {i}\n")).collect();
        ensure!(file == whole, "the file holds {file:?}");
        Ok(())
    })
}

#[test]
fn it_saves_again_and_again_and_the_program_goes_on() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let options = ["-q", "--signal", "USR1", "--signal", "USR2", "--exit-code", "3"];
        let mut command = run(&place, &image, &options, &place.guest("counter")?, &["100000", "count.txt", "10"]);
        // First the program that was started, then the one that goes on from the image of the first.
        for _ in 0..2 {
            let job = Job::start(&mut command)?;
            job.wait_text("count ")?;
            for signal in [Signal::USR1, Signal::USR2] {
                let before = Mark::of(&image);
                job.send(signal)?;
                wait_new(&job, &image, before)?;
            }
            ensure!(job.err().is_empty(), "{}", job.story());
            job.kill()?;
        }
        let mut job = Job::start(&mut command)?;
        job.wait_text("count ")?;
        job.send(Signal::TERM)?;
        job.end()?.expect_code(3)
    })
}

#[test]
fn it_saves_every_so_often() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let guest = place.guest("counter")?;
        let job = Job::start(&mut run(&place, &image, &["--every", "1s"], &guest, &["100000", "count.txt", "10"]))?;
        for _ in 0..2 {
            wait_new(&job, &image, Mark::of(&image))?;
        }
        job.kill().map(drop)
    })
}

#[test]
fn what_cannot_be_saved_is_told_once_and_goes_on() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        // A file that is open, and has another name in another directory alone.
        let script = "mkdir aside; exec 7>held; ln held aside; rm held; sleep 1000 & trap 'kill $!; echo last words; exit 9' TERM; echo ready; wait $!";
        let mut job = Job::start(&mut run(&place, &image, &["-q"], &tool("bash", "bash")?, &["-c", script]))?;
        job.wait_line(READY)?;
        job.send(Signal::USR1)?;
        job.wait_err("the program goes on; there is no image yet\n")?;
        job.send(Signal::USR1)?;
        job.send(Signal::TERM)?;
        let ended = job.end()?;
        ended.expect_code(9)?;
        let lines: Vec<&str> = ended.err.lines().collect();
        let told = lines.iter().all(|line| line.starts_with("ckpt: not saved: descriptor 7"));
        ensure!(
            lines.len() == 2 && told && lines[1].contains(": SIGTERM is passed on to the program; there"),
            "{ended:#?}"
        );
        ensure!(ended.out.ends_with("last words\n") && !image.exists(), "{ended:#?}");
        Ok(())
    })
}

#[test]
fn a_program_that_ends_meanwhile_has_its_own_status() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut run(&place, &image, &[], &place.guest("counter")?, &["3", "count.txt", "1"]))?;
        job.wait_line("count 1")?;
        // At whatever moment of its life: before, while and after it ends.
        while !matches!(proc::state(job.pid()), None | Some('Z' | 'X')) {
            job.send(Signal::USR1)?;
        }
        let ended = job.end()?;
        ensure!(ended.code() == Some(0) && ended.out.ends_with("PASS\n"), "{ended:#?}");
        Ok(())
    })
}

#[test]
fn a_restart_that_fails_is_the_end() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        // Larger than what is in the image without being asked for.
        place.write("count.txt", vec![b'x'; 2 << 20])?;
        let mut command = run(&place, &image, &["-q"], &place.guest("counter")?, &["100000", "count.txt", "10"]);
        let mut job = Job::start(&mut command)?;
        job.wait_line("count 3")?;
        job.send(Signal::TERM)?;
        job.end()?.expect_code(85)?;
        std::fs::remove_file(place.file("count.txt"))?;
        let ended = Job::start(&mut command)?.end()?;
        ended.expect_code(81)?;
        ensure!(ended.err.starts_with("restart-stub: ") && ended.err.lines().count() == 1, "{ended:#?}");
        Ok(())
    })
}

#[test]
fn a_static_program_is_as_good() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let source = ckpt_tests::programs::sources();
        let guest = place.bin().join("counter");
        let mut cc = Command::new(tool("cc", "gcc")?);
        let cc = cc.args(["-std=gnu11", "-O2", "-static", "-I"]).arg(&source).arg(source.join("counter.c"));
        ensure!(cc.arg("-o").arg(&guest).status()?.success(), "the guest does not build");
        let mut command = run(&place, &image, &[], &guest, &["300", "count.txt", "10"]);
        let mut job = Job::start(&mut command)?;
        job.wait_line("count 3")?;
        job.send(Signal::TERM)?;
        job.end()?.expect_code(85)?;
        Job::start(&mut command)?.end()?.expect_pass()
    })
}

/// Each step waits until the file `pass` has as many bytes. Parts get their names when they are whole, as recipes of `make` do it.
const RENAMES: &str = "#!/bin/bash
step() { while [ $1 -gt $(stat -c %s pass) ]; do sleep 0.02; done; echo $1; }
for i in 1 2 3 4 5; do step $i; done > first.tmp
mv first.tmp first
(for i in 6 7 8 9 10; do step $i; done) > second.tmp
mv second.tmp second
step 11 > last
cat first second last
";

/// What a job has renamed since the save, and been killed, it finds again under the old name.
#[test]
fn what_was_renamed_behind_the_save() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let (image, bash) = (place.file("job.ckpt"), tool("bash", "bash")?);
        place.write("job.sh", RENAMES)?;
        let is = |name: &str, lines: &str| {
            let (path, lines) = (place.file(name), lines.to_owned());
            move || Ok(std::fs::read_to_string(&path).is_ok_and(|text| text == lines).then_some(()))
        };
        allow(&place, 3)?;
        let mut command = run(&place, &image, &[], &bash, &["job.sh"]);
        // In the midst of each part: a shell's own output, and that of a child.
        for (name, half, then) in [("first.tmp", "1\n2\n3\n", 8), ("second.tmp", "6\n7\n8\n", 10)] {
            // What the run before may have made of it is made again.
            std::fs::write(place.file(name), "")?;
            place.give(&place.file(name))?;
            let job = Job::start(&mut command)?;
            wait::until(is(name, half), || job.story())?;
            let before = Mark::of(&image);
            job.send(Signal::USR1)?;
            wait_new(&job, &image, before)?;
            allow(&place, then)?;
            let renamed = || Ok((!place.file(name).exists()).then_some(()));
            wait::until(renamed, || job.story())?;
            job.kill_session()?;
        }
        allow(&place, 11)?;
        let ended = Job::start(&mut command)?.end()?;
        ensure!(ended.code() == Some(0), "{ended:#?}");
        let all: String = (1..=11).map(|step| format!("{step}\n")).collect();
        ensure!(ended.out == all, "{ended:#?}");
        Ok(())
    })
}
