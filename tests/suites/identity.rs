//! `ckpt restart` with the saved ids and clocks, in the background, and from a stream; and what a supervisor hands on.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::forge::Forgery;
use ckpt_tests::image::Bytes;
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, proc, wait};
use image_format::record::header::Header;
use image_format::{ExitCode, NoteType};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};

const HOUR: u64 = 3_600_000_000_000;

/// A saved and killed guest, and the pid that it had.
struct Saved {
    place: Place,
    image: PathBuf,
    pid: u32,
}

impl Saved {
    /// The identity guest, started by `start`.
    fn by(user: User, start: impl Fn(&Place, &Path) -> Result<Command>) -> Result<Self> {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let job = Job::start(&mut start(&place, &image)?)?;
        job.wait_line(READY)?;
        let said = job.out();
        let pid = said.lines().find_map(|line| line.strip_prefix("pid ")).context("no pid")?.parse()?;
        // What was started in a namespace of its own is a child of whoever made that.
        let outside = proc::children(job.pid()).first().copied().unwrap_or(job.pid());
        proc::wait_catches(outside, Signal::USR1.as_raw())?;
        send(outside, Signal::USR1)?;
        wait::until(|| Ok(image.exists().then_some(())), || format!("not saved: {}", job.story()))?;
        job.kill()?;
        place.go()?;
        Ok(Self { place, image, pid })
    }

    fn identity(user: User) -> Result<Self> {
        Self::by(user, |place, image| Ok(place.armed(place.guest("identity")?, image)))
    }

    /// A counter up to `last`, with its file emptied: that is not what these tests are about.
    fn counter(user: User, last: &str) -> Result<Self> {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let job = Job::start(place.armed(place.guest("counter")?, &image).args([last, "count.txt", "10", "3"]))?;
        job.wait_line("count 3")?;
        let pid = job.pid();
        job.save_and_kill(&image)?;
        place.go()?;
        fs::write(place.file("count.txt"), "")?;
        Ok(Self { place, image, pid })
    }

    fn restart(&self, options: &[&str]) -> Command {
        let mut command = self.place.ckpt();
        command.args(["restart", "--files", "ignore"]).args(options).arg(&self.image);
        command
    }

    /// Another image with these clocks.
    fn with_clocks(&self, monotonic: u64, boottime: u64) -> Result<PathBuf> {
        let forgery = Forgery::of(&Bytes::read(&self.image)?)?;
        let (header, _) = forgery.note(NoteType::Header)?;
        let forged = forgery
            .put(header + std::mem::offset_of!(Header, monotonic_nsec), &monotonic.to_le_bytes())
            .put(header + std::mem::offset_of!(Header, boottime_nsec), &boottime.to_le_bytes());
        let path = self.place.file("clocks.ckpt");
        fs::write(&path, forged.sealed().bytes)?;
        self.place.give(&path)?;
        Ok(path)
    }
}

/// The ways in which the saved ids can be had by this user.
fn ways(user: User) -> &'static [&'static [&'static str]] {
    if user.is_root() { &[&["--pid", "keep"], &["--namespace"]] } else { &[&["--namespace"]] }
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(i32::try_from(pid)?).context("a pid")?, signal)?)
}

#[test]
fn ids_come_back() -> Result<()> {
    User::each(|user| {
        for way in ways(user) {
            let saved = Saved::identity(user)?;
            Job::start(&mut saved.restart(way))?.end()?.expect_pass().with_context(|| format!("{way:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn clocks_go_on_in_a_namespace() -> Result<()> {
    User::each(|user| {
        let saved = Saved::identity(user)?;
        // Before and after this machine's own clocks.
        for (monotonic, boottime) in [(1000, 2000), (0, 0)] {
            let image = saved.with_clocks(monotonic * HOUR, boottime * HOUR)?;
            let mut command = saved.place.ckpt();
            let ended = Job::start(command.args(["restart", "--namespace"]).arg(image))?.end()?;
            ended.expect_pass()?;
            ensure!(ended.out.contains(&format!("hours {monotonic} {boottime}\n")), "{ended:#?}");
        }
        Ok(())
    })
}

#[test]
fn a_program_that_was_pid_1_is_pid_1_again() -> Result<()> {
    User::each(|user| {
        let saved = pid_1(user)?;
        Job::start(&mut saved.restart(&["--namespace"]))?.end()?.expect_pass()?;
        Job::start(&mut saved.restart(&[]))?.end()?.expect_pass()
    })
}

/// The identity guest, as PID 1 of a namespace.
fn pid_1(user: User) -> Result<Saved> {
    let saved = Saved::by(user, |place, image| {
        let mut command = place.armed(tool("unshare", "util-linux")?, image);
        // Who is not root needs a user namespace for that.
        let rights: &[&str] = if user.is_root() { &[] } else { &["--user", "--map-current-user"] };
        // The library is for the guest alone.
        command.env_remove("LD_PRELOAD").args(rights).args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        let library = format!("LD_PRELOAD={}", place.bin().join("libckpt.so").display());
        command.args(["env", &library]).arg(place.guest("identity")?);
        Ok(command)
    })?;
    ensure!(saved.pid == 1, "it was {}", saved.pid);
    Ok(saved)
}

#[test]
fn ids_that_cannot_be_had_are_named() -> Result<()> {
    User::each(|user| {
        // PID 1 of a namespace: nobody counts up to that, and whoever may choose it finds it taken.
        let first = pid_1(user)?;
        let ended = Job::start(&mut first.restart(&["--pid", "keep"]))?.end()?;
        ended.expect_code(ExitCode::Kernel as i32)?;
        ensure!(ended.err.contains("process id 1: is taken by ") && ended.err.contains("--namespace"), "{ended:#?}");
        // The same program has its id, restarted already.
        let saved = Saved::identity(user)?;
        let pid = saved.pid;
        if ways(user).len() == 1 {
            return Ok(());
        }
        saved.place.halt()?;
        let holder = Job::start(&mut saved.restart(&["--pid", "keep"]))?;
        wait::until(
            || Ok((proc::comm(pid).ok().as_deref() == Some("identity")).then_some(())),
            || format!("no {pid}: {}", holder.story()),
        )?;
        let ended = Job::start(&mut saved.restart(&["--pid", "keep"]))?.end()?;
        ended.expect_code(ExitCode::Kernel as i32)?;
        ensure!(ended.err.contains(&format!("process id {pid}: is taken by identity: ")), "{ended:#?}");
        holder.kill().map(drop)
    })
}

#[test]
fn signals_and_the_status_go_through() -> Result<()> {
    User::each(|user| {
        for way in ways(user) {
            let saved = Saved::counter(user, "100000")?;
            for signal in [Signal::TERM, Signal::INT, Signal::USR2] {
                let mut job = Job::start(&mut saved.restart(way))?;
                job.wait_text("count ")?;
                job.send(signal)?;
                let ended = job.end()?;
                ensure!(ended.status.signal() == Some(signal.as_raw()), "{way:?}: {ended:#?}");
            }
            let saved = Saved::counter(user, "100")?;
            let ended = Job::start(&mut saved.restart(way))?.end()?;
            ended.expect_pass()?;
            ensure!(ended.out.ends_with("count 100\nPASS\n") && !ended.out.contains("count 1\n"), "{ended:#?}");
        }
        Ok(())
    })
}

#[test]
fn a_supervisor_that_is_killed_takes_the_program_along() -> Result<()> {
    User::each(|user| {
        for way in ways(user) {
            let saved = Saved::counter(user, "100000")?;
            let mut job = Job::start(&mut saved.restart(way))?;
            job.wait_text("count ")?;
            job.send(Signal::KILL)?;
            // Waits until nothing of its session remains and its output has ended.
            job.end()?;
        }
        Ok(())
    })
}

#[test]
fn it_stays_in_the_background() -> Result<()> {
    User::each(|user| {
        for way in ways(user).iter().chain(&[&[][..]]) {
            let saved = Saved::counter(user, "100000")?;
            let file = saved.place.file("pid");
            let log = File::create(saved.place.file("log"))?;
            let mut command = saved.restart(way);
            command.arg("--detach").arg("--pidfile").arg(&file);
            let status = command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log).status()?;
            ensure!(status.success(), "{way:?}: {status}: {}", fs::read_to_string(saved.place.file("log"))?);
            let pid: u32 = fs::read_to_string(&file)?.strip_suffix('\n').context("no newline")?.parse()?;
            ensure!(way != &["--pid", "keep"] || pid == saved.pid, "{pid}, not {}", saved.pid);
            // Its name is the last that it gets back, after word was given.
            let named = || Ok((proc::comm(pid)? == "counter").then_some(()));
            wait::until(named, || format!("{way:?}: {pid} is {:?}", proc::comm(pid)))?;
            let counted = || Ok(fs::read_to_string(saved.place.file("count.txt"))?.contains("count 9\n").then_some(()));
            wait::until(counted, || format!("{way:?}: it does not count"))?;
            send(pid, Signal::TERM)?;
            proc::wait_gone(pid)?;
        }
        Ok(())
    })
}

#[test]
fn a_background_that_fails_says_why() -> Result<()> {
    User::each(|user| {
        let saved = Saved::counter(user, "100000")?;
        fs::remove_file(saved.place.file("count.txt"))?;
        let file = saved.place.file("pid");
        let mut command = saved.restart(&["--detach"]);
        let ended = Job::start(command.arg("--pidfile").arg(&file))?.end()?;
        ended.expect_code(ExitCode::FileMissing as i32)?;
        ensure!(ended.err.starts_with("restart-stub: ") && ended.err.lines().count() == 1, "{ended:#?}");
        ensure!(!file.exists(), "a pidfile of nobody");
        Ok(())
    })
}

#[test]
fn an_image_from_a_stream() -> Result<()> {
    User::each(|user| {
        let saved = Saved::counter(user, "100")?;
        let mut command = saved.place.bare(tool("bash", "bash")?);
        let ckpt = saved.place.bin().join("ckpt");
        let line = format!("cat {} | {} restart --files ignore -", saved.image.display(), ckpt.display());
        let ended = Job::start(command.args(["-c", &line]))?.end()?;
        ended.expect_pass()?;
        let fifo = saved.place.file("fifo");
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR)?;
        saved.place.give(&fifo)?;
        let line = format!(
            "cat {} > {1} & exec {2} restart --files ignore {1}",
            saved.image.display(),
            fifo.display(),
            ckpt.display()
        );
        let mut command = saved.place.command(tool("bash", "bash")?);
        Job::start(command.args(["-c", &line]))?.end()?.expect_pass()
    })
}

/// A machine that has been up for a shorter time than the one of the save: what a runtime keeps of the clock would be far away.
#[test]
fn clocks_that_would_go_back_go_on() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut place.command(place.guest("uptime")?))?;
        job.wait_line(READY)?;
        place.save(job.pid(), &image, &["--kill"])?;
        job.end()?;
        let saved = Saved { place, image, pid: 0 };
        let (place, ahead) = (&saved.place, saved.with_clocks(1000 * HOUR, 2000 * HOUR)?);
        let restart = |image: &Path, options: &[&str]| Job::start(place.ckpt().arg("restart").args(options).arg(image));
        // Saved once more by those clocks, and let go on by a boot's whose clocks stand lower than they.
        // By its new id the guest knows that it was restarted.
        let mut again = restart(&ahead, &["--pid", "new"])?;
        again.wait_line("again")?;
        let second = place.file("second.ckpt");
        place.save(again.pid(), &second, &["--kill"])?;
        again.end()?;
        place.go()?;
        for (image, options, hours) in [
            (&ahead, &["-v"][..], "hours 1000 2000"),
            (&ahead, &["--clock", "keep"], "hours 1000 2000"),
            (&second, &[], "hours 1000 2000"),
            (&second, &["--namespace"], "hours 1000 2000"),
        ] {
            let ended = restart(image, options)?.end()?;
            ended.expect_pass().with_context(|| format!("{options:?}"))?;
            ensure!(ended.out.contains(hours), "{options:?}: {ended:#?}");
            ensure!(ended.err.contains("clocks go on") == options.contains(&"-v"), "{options:?}: {ended:#?}");
        }
        // What is done is put aside.
        let copy = place.write("copy.ckpt", std::fs::read(&second)?)?;
        let guest = place.bin().join("uptime");
        let run = Job::start(place.ckpt().arg("run").arg("-o").arg(&copy).arg("--").arg(guest))?.end()?;
        run.expect_pass()?;
        ensure!(run.out.contains("hours 1000 2000"), "{run:#?}");
        place.halt()?;
        let back = restart(&second, &["--clock", "new"])?.end()?;
        ensure!(back.code() == Some(1) && back.out.contains("went back"), "the guest does not see it: {back:#?}");
        restart(&second, &["--clock", "new", "--namespace"])?.end()?.expect_code(ExitCode::Usage as i32)
    })
}
