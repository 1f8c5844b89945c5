//! `ckpt run` and SIGTERM, whoever gets it: saved, or told apart from saved; with an image the status is 85.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::{Mark, expect_sound};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, proc, wait};
use rustix::process::{Pid, Signal, kill_process};

/// `ckpt run -o job.ckpt -- WORDS`.
fn run(place: &Place, words: &[&str]) -> Command {
    let mut command = place.ckpt();
    command.args(["run", "-o", "job.ckpt", "--"]).args(words);
    command
}

fn python(place: &Place, script: &str) -> Result<Command> {
    Ok(run(place, &[&tool("python3", "python3")?.to_string_lossy(), "-u", "-c", script]))
}

/// Asks for a save and waits for it.
fn save(job: &Job, image: &Path) -> Result<()> {
    let before = Mark::of(image);
    job.send(Signal::USR1)?;
    wait::until(|| Ok((Mark::of(image) != before).then_some(())), || format!("no image: {}", job.story()))
}

/// The program of a `ckpt run`.
fn program(job: &Job) -> Result<u32> {
    let look = || Ok(proc::children(job.process()).first().copied());
    wait::until(look, || format!("no program: {}", job.story()))
}

fn terminate(pid: u32) -> Result<()> {
    Ok(kill_process(Pid::from_raw(i32::try_from(pid)?).context("a pid")?, Signal::TERM)?)
}

/// Whoever ends the program alone, or first: there is an image, so the job is not over.
#[test]
fn the_program_dies_of_it_first() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut command = run(&place, &[&place.guest("counter")?.to_string_lossy(), "150", "out.txt", "10"]);
        // Without an image its end is its own.
        let mut job = Job::start(&mut command)?;
        job.wait_line("count 3")?;
        terminate(program(&job)?)?;
        let ended = job.end()?;
        ensure!(std::os::unix::process::ExitStatusExt::signal(&ended.status) == Some(15), "{ended:#?}");
        std::fs::remove_file(place.file("out.txt"))?;
        let mut job = Job::start(&mut command)?;
        job.wait_line("count 3")?;
        save(&job, &image)?;
        let before = Mark::of(&image);
        terminate(program(&job)?)?;
        let ended = job.end()?;
        ended.expect_code(85)?;
        ensure!(
            ended.err.contains("has ended on SIGTERM before it could be saved: the next run goes on from"),
            "{ended:#?}"
        );
        ensure!(Mark::of(&image) == before, "the image is another one");
        Job::start(&mut command)?.end()?.expect_pass()?;
        let whole: String = (1..=150).map(|i| format!("count {i}\n")).collect();
        ensure!(std::fs::read_to_string(place.file("out.txt"))? == whole);
        Ok(())
    })
}

/// What a program makes of a SIGTERM of its own, an end with 0 too, says nothing of the job.
#[test]
fn a_handlers_end_is_not_the_jobs() -> Result<()> {
    const SCRIPT: &str = "import os, signal, sys, time\nstatus = int(open('status').read())\n\
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(status))\n\
        held = open('held')\nprint('ready')\nwhile True: time.sleep(0.01)\n";
    User::each(|user| {
        for status in ["0", "9"] {
            let place = Place::new(user)?;
            place.write("status", status)?;
            place.write("held", "")?;
            std::fs::create_dir(place.file("aside"))?;
            let image = place.file("job.ckpt");
            let mut job = Job::start(&mut python(&place, SCRIPT)?)?;
            job.wait_line(READY)?;
            save(&job, &image)?;
            // Now it cannot be saved, as its file has another name in another directory: SIGTERM is passed on.
            std::fs::hard_link(place.file("held"), place.file("aside/held"))?;
            std::fs::remove_file(place.file("held"))?;
            job.send(Signal::TERM)?;
            let ended = job.end()?;
            ended.expect_code(85)?;
            ensure!(ended.err.contains("not saved: ") && ended.err.contains("the next run goes on"), "{ended:#?}");
            ensure!(image.exists() && !place.file("job.ckpt.done").exists());
        }
        Ok(())
    })
}

/// A SIGTERM that waits in the program is the same that `ckpt run` has got: the image does not have it.
#[test]
fn what_has_reached_the_program_is_not_in_the_image() -> Result<()> {
    const SCRIPT: &str = "import os, signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\nprint('ready')\n\
        while not os.path.exists('go'): time.sleep(0.01)\n\
        assert not signal.sigpending(), signal.sigpending()\n\
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\nprint('PASS')\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let mut job = Job::start(&mut python(&place, SCRIPT)?)?;
        job.wait_line(READY)?;
        terminate(program(&job)?)?;
        job.send(Signal::TERM)?;
        let ended = job.end()?;
        ended.expect_code(85)?;
        ensure!(!ended.err.contains("not saved"), "{ended:#?}");
        place.go()?;
        Job::start(&mut python(&place, SCRIPT)?)?.end()?.expect_pass()
    })
}

/// A tree of which a part has ended by it is no job any more that could go on: the old image stays.
#[test]
fn a_part_that_has_ended_by_it() -> Result<()> {
    const SCRIPT: &str = "import os, signal, sys, time\nchild = os.fork()\n\
        if not child:\n    while True: time.sleep(1)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\nprint('ready')\n\
        while not os.path.exists('go'): time.sleep(0.01)\n\
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\nos.kill(child, 9); os.waitpid(child, 0)\nprint('PASS')\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut python(&place, SCRIPT)?)?;
        job.wait_line(READY)?;
        save(&job, &image)?;
        let before = Mark::of(&image);
        let parent = program(&job)?;
        let child = *proc::children(parent).first().context("no child")?;
        terminate(parent)?;
        terminate(child)?;
        proc::wait_state(child, "Z")?;
        job.send(Signal::TERM)?;
        job.wait_err("has ended, by the signal that was sent to all of them")?;
        ensure!(Mark::of(&image) == before, "{}", job.story());
        place.go()?;
        let ended = job.end()?;
        ended.expect_code(85)?;
        ensure!(Mark::of(&image) == before, "{ended:#?}");
        // What went on from the old image has its child.
        Job::start(&mut python(&place, SCRIPT)?)?.end()?.expect_pass()
    })
}

/// In whatever order, with whatever pause: the status is 85, and the job's output is right in the end.
#[test]
fn to_everybody_at_once() -> Result<()> {
    const SCRIPT: &str = "exec 3>>out.txt; i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo count $i; echo count $i >&3; sleep 0.01; done; echo PASS";
    User::each(|user| {
        let bash = tool("bash", "bash")?;
        for round in 0..8u64 {
            let place = Place::new(user)?;
            let image = place.file("job.ckpt");
            let mut command = run(&place, &[&bash.to_string_lossy(), "-c", SCRIPT]);
            let mut job = Job::start(&mut command)?;
            job.wait_line("count 3")?;
            save(&job, &image)?;
            let mut all = vec![job.process(), program(&job)?];
            all.extend(proc::children(all[1]));
            if round % 2 == 1 {
                all.reverse();
            }
            for pid in all {
                // What has ended is as good.
                let _ = terminate(pid);
                let start = std::time::Instant::now();
                while start.elapsed().as_micros() < u128::from(round * 150) {
                    std::hint::spin_loop();
                }
            }
            job.end()?.expect_code(85).with_context(|| format!("round {round}"))?;
            expect_sound(&image)?;
            Job::start(&mut command)?.end()?.expect_pass().with_context(|| format!("round {round}"))?;
            let whole: String = (1..=60).map(|i| format!("count {i}\n")).collect();
            let written = std::fs::read_to_string(place.file("out.txt"))?;
            ensure!(written == whole, "round {round}: {written}");
        }
        Ok(())
    })
}

/// A restart that waits for a port is no program yet: it ends at once, and its image is as it was.
#[test]
fn while_a_port_is_waited_for() -> Result<()> {
    // With a second thread, whose id is had before the port is waited for.
    const SCRIPT: &str = "import os, socket, threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
        server = socket.create_server(('127.0.0.1', 0))\nprint('port', server.getsockname()[1])\nprint('ready')\nwhile not os.path.exists('go'): time.sleep(0.001)\nprint('PASS')\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut python(&place, SCRIPT)?)?;
        job.wait_line(READY)?;
        let out = job.out();
        let port = out.lines().find_map(|line| line.strip_prefix("port ")).context("no port")?.parse()?;
        job.send(Signal::TERM)?;
        job.end()?.expect_code(85)?;
        let (saved, others) = (Mark::of(&image), TcpListener::bind((Ipv4Addr::LOCALHOST, port))?);
        let mut job = Job::start(&mut python(&place, SCRIPT)?)?;
        job.wait_err("is in use")?;
        job.send(Signal::TERM)?;
        // Nobody has given the port back.
        let ended = job.end()?;
        ended.expect_code(85)?;
        ensure!(ended.err.contains("before the program went on"), "{ended:#?}");
        ensure!(Mark::of(&image) == saved, "{ended:#?}");
        drop(others);
        place.go()?;
        Job::start(&mut python(&place, SCRIPT)?)?.end()?.expect_pass()
    })
}

/// What goes to all of `ckpt run`'s descendants, as a batch system sends it, has come to a handler before the program stands: such an image would go on to the end
/// that the handler has begun. The older one counts, and the next run makes the job's result.
#[test]
fn a_handler_that_has_run_is_not_in_the_image() -> Result<()> {
    const HANDLER: &str = "import os, signal, sys, time\nended = False\ndef handler(*_):\n    global ended\n    ended = True\n\
        signal.signal(signal.SIGTERM, handler)\nprint('ready')\n\
        while not os.path.exists('go') and not ended: time.sleep(0.01)\n\
        if ended: signal.signal(signal.SIGTERM, signal.SIG_DFL); open('handled', 'w').close()\n\
        while not os.path.exists('go'): time.sleep(0.01)\n\
        print('PASS' if not ended else 'ended early')\n";
    // Its part ends by the signal, and has been waited for before the save.
    const PARTS: &str = "import os, signal, subprocess, sys, time\n\
        signal.signal(signal.SIGTERM, lambda *_: None)\npart = subprocess.Popen(['/bin/sleep', '1000'])\nprint('ready')\n\
        while not os.path.exists('go') and part.poll() is None: time.sleep(0.001)\n\
        ended = part.poll() is not None\n\
        if ended: signal.signal(signal.SIGTERM, signal.SIG_DFL); open('handled', 'w').close()\n\
        while not os.path.exists('go'): time.sleep(0.01)\n\
        print('PASS' if not ended else 'lost a part')\npart.kill(); part.wait()\n";
    User::each(|user| {
        for script in [HANDLER, PARTS] {
            let place = Place::new(user)?;
            let image = place.file("job.ckpt");
            let mut job = Job::start(&mut python(&place, script)?)?;
            job.wait_line(READY)?;
            save(&job, &image)?;
            let before = Mark::of(&image);
            // Who has made that is gone, too.
            let alone = || Ok((proc::children(job.process()).len() == 2).then_some(()));
            wait::until(alone, || format!("more than the program and the witness: {}", job.story()))?;
            let mut all = vec![job.process()];
            for at in 0.. {
                let Some(pid) = all.get(at) else { break };
                all.extend(proc::children(*pid));
            }
            // The last ones first; this command, which is not the last to be told, is held until all others have it.
            kill_process(Pid::from_raw(i32::try_from(all[0])?).context("a pid")?, Signal::STOP)?;
            for pid in all.iter().rev() {
                // What has ended is as good.
                let _ = terminate(*pid);
            }
            // Else it may be saved before it has done anything about it, which is as good.
            let has_handled = || Ok(place.file("handled").exists().then_some(()));
            wait::until(has_handled, || format!("it does nothing about the signal: {}", job.story()))?;
            kill_process(Pid::from_raw(i32::try_from(all[0])?).context("a pid")?, Signal::CONT)?;
            let ended = job.end()?;
            ended.expect_code(85)?;
            ensure!(Mark::of(&image) == before, "the image is another one: {ended:#?}");
            place.go()?;
            Job::start(&mut python(&place, script)?)?.end()?.expect_pass()?;
        }
        Ok(())
    })
}
