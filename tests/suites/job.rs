//! A restarted program is the shell's own job: exit status, death by a signal, Ctrl-C, Ctrl-Z and fg, and what `ps` shows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, Pty, READY, User, proc, wait};
use rustix::process::{Pid, Signal, kill_process};

/// An image of `counter LAST`, which counts every ten milliseconds, and waits behind the third line until it may go on.
fn saved_counter(place: &Place, last: &str) -> Result<PathBuf> {
    let image = place.file("job.ckpt");
    let job = Job::start(place.armed(place.guest("counter")?, &image).args([last, "count.txt", "10", "3"]))?;
    job.wait_line("count 3")?;
    job.save_and_kill(&image)?;
    std::fs::write(place.file("count.txt"), "")?;
    Ok(image)
}

/// How a program comes back: as the shell's child itself, or as that of a supervisor, with its id as far as that can be had, or in a namespace.
const WAYS: [&str; 3] = ["restart-stub --pid new", "restart-stub", "ckpt restart --namespace"];

/// A restart as a command line. The counter's file was emptied: that is not what these tests are about.
fn restart(place: &Place, way: &str, image: &Path) -> String {
    format!("{}/{way} --files ignore {}", place.bin().display(), image.display())
}

/// An interactive shell on a terminal.
struct Shell {
    pty: Pty,
    job: Job,
}

impl Shell {
    fn start(place: &Place) -> Result<Self> {
        let pty = Pty::new(place.user(), 24, 200)?;
        let mut command = place.bare(tool("bash", "bash")?);
        command.args(["--norc", "--noprofile", "--noediting", "-i"]).env("PS1", "");
        let job = Job::start_on(&pty, &mut command)?;
        let mut shell = Self { pty, job };
        // Echo would show each command where its output is awaited.
        shell.run("stty -echo; echo up-and-running")?;
        shell.job.wait_line("up-and-running")?;
        Ok(shell)
    }

    fn run(&mut self, line: &str) -> Result<()> {
        self.pty.type_in(&format!("{line}\n"))
    }

    /// The only child of the shell.
    fn child(&self) -> Result<u32> {
        let look = || Ok(proc::children(self.job.pid()).first().copied());
        wait::until(look, || format!("the shell has no child: {}", self.job.story()))
    }

    fn leave(mut self) -> Result<()> {
        self.run("exit 0")?;
        self.job.end()?.expect_code(0)
    }
}

/// Starts the restart in a shell and waits until the program is in the foreground, and waits to go on: the shell and the program's pid.
fn held_in_shell(place: &Place, way: &str, last: &str, after: &str) -> Result<(Shell, u32)> {
    let image = saved_counter(place, last)?;
    let mut shell = Shell::start(place)?;
    shell.run(&format!("{}{after}", restart(place, way, &image)))?;
    let mut pid = shell.child()?;
    let takes_over = || {
        pid = proc::program(pid);
        // Its name is the last that it gets back.
        Ok((proc::comm(pid)? == "counter").then_some(()))
    };
    wait::until(takes_over, || format!("no program: {}", shell.job.story()))?;
    proc::wait_foreground(pid)?;
    Ok((shell, pid))
}

/// The same with a program that counts again.
fn counting_in_shell(place: &Place, way: &str, last: &str, after: &str) -> Result<(Shell, u32)> {
    let held = held_in_shell(place, way, last, after)?;
    place.go()?;
    held.0.job.wait_text("count 5\r\n")?;
    Ok(held)
}

fn each_way(test: impl Fn(User, &str) -> Result<()>) -> Result<()> {
    User::each(|user| WAYS.iter().try_for_each(|way| test(user, way).with_context(|| (*way).to_owned())))
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(i32::try_from(pid)?).context("a pid")?, signal)?)
}

#[test]
fn the_exit_status_is_the_programs_own() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = saved_counter(&place, "6")?;
        place.go()?;
        let stub = Job::start(place.command(place.bin().join("restart-stub")).args(["--files", "ignore"]).arg(&image))?;
        let pid = stub.pid();
        let mut stub = stub;
        let ended = stub.end()?;
        ended.expect_pass().with_context(|| format!("pid {pid}"))?;
        let mut again = place.ckpt();
        let ended = Job::start(again.arg("restart").arg(&image).args(["--files", "ignore"]))?.end()?;
        ended.expect_pass()?;
        ensure!(ended.out == "count 4\ncount 5\ncount 6\nPASS\n", "{ended:#?}");
        let mut shell = Shell::start(&place)?;
        shell.run(&format!("{}; echo status=$?", restart(&place, WAYS[0], &image)))?;
        shell.job.wait_line("status=0")?;
        shell.leave()
    })
}

#[test]
fn a_failing_program_fails_after_a_restart_too() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let python = tool("python3", "python3")?;
        let script = "import os,time\nprint('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.001)\nos._exit(42)";
        let job = Job::start(place.armed(python, &image).args(["-c", script]))?;
        job.wait_line(READY)?;
        job.save_and_kill(&image)?;
        place.go()?;
        Job::start(&mut place.stub(&image))?.end()?.expect_code(42)
    })
}

#[test]
fn death_by_a_signal_shows_as_such() -> Result<()> {
    each_way(|user, way| {
        let place = Place::new(user)?;
        let (shell, pid) = counting_in_shell(&place, way, "100000", "; echo status=$?")?;
        send(pid, Signal::SEGV)?;
        shell.job.wait_text("Segmentation fault")?;
        shell.job.wait_line("status=139")?;
        shell.leave()
    })
}

#[test]
fn ctrl_c_reaches_it() -> Result<()> {
    each_way(|user, way| {
        let place = Place::new(user)?;
        let (mut shell, _) = counting_in_shell(&place, way, "100000", "")?;
        shell.pty.type_in("\x03")?;
        shell.run("echo status=$?")?;
        shell.job.wait_line("status=130")?;
        shell.leave()
    })
}

#[test]
fn ctrl_z_stops_it_and_fg_brings_it_back() -> Result<()> {
    each_way(|user, way| {
        let place = Place::new(user)?;
        let (mut shell, pid) = held_in_shell(&place, way, "60", "")?;
        shell.pty.type_in("\x1a")?;
        proc::wait_state(pid, "T")?;
        shell.job.wait_text("Stopped")?;
        place.go()?;
        shell.run("fg")?;
        shell.job.wait_line("PASS")?;
        shell.run("echo status=$?")?;
        shell.job.wait_line("status=0")?;
        shell.leave()
    })
}

/// An interactive shell, whose terminal's descriptor has a flag that only it knows: it can be saved, and `ckpt check` says so. From within it
/// cannot.
#[test]
fn a_shell_and_its_own_saver() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let mut shell = Shell::start(&place)?;
        let checked = Job::start(place.ckpt().args(["check", &shell.job.pid().to_string()]))?.end()?;
        ensure!(checked.code() == Some(0) && checked.out.ends_with("nothing blocks a save\n"), "{checked:#?}");
        place.save(shell.job.pid(), &place.file("shell.ckpt"), &[])?;
        let shown = place.ckpt().args(["show", "shell.ckpt"]).output()?;
        ensure!(!String::from_utf8_lossy(&shown.stdout).contains("made the save"), "{shown:?}");
        for (count, command) in (1..).zip(["save -o own.ckpt $$", "check $$"]) {
            shell.run(&format!("{}/ckpt {command}; echo status-{count}=$?", place.bin().display()))?;
            shell.job.wait_line(&format!("status-{count}=88"))?;
            let said = shell.job.out().matches("which cannot save itself").count();
            ensure!(said == count, "{command}: {}", shell.job.story());
        }
        ensure!(!place.file("own.ckpt").exists());
        shell.leave()
    })
}

#[test]
fn ps_shows_the_old_command_line() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = saved_counter(&place, "100000")?;
        place.go()?;
        let mut command = place.command(place.bin().join("restart-stub"));
        let job = Job::start(command.args(["--files", "ignore"]).arg(&image))?;
        job.wait_line("count 4")?;
        let guest = place.bin().join("counter").display().to_string();
        let expected = vec![guest.clone(), "100000".into(), "count.txt".into(), "10".into(), "3".into()];
        ensure!(proc::cmdline(job.pid())? == expected, "cmdline: {:?}", proc::cmdline(job.pid())?);
        ensure!(proc::comm(job.pid())? == "counter", "comm: {}", proc::comm(job.pid())?);
        let ps = place.bare(tool("ps", "procps")?).args(["-o", "args=", "-p", &job.pid().to_string()]).output()?;
        let shown = String::from_utf8_lossy(&ps.stdout).trim().to_owned();
        ensure!(shown == expected.join(" "), "ps: {shown}");
        job.kill().map(drop)
    })
}
