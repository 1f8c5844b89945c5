//! Each kernel object: its guest undisturbed, after a save that lets it go on, restarted once, and in the tenth generation,
//! as every user that the tests can be.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use ckpt_tests::table::{self, Outcome};
use ckpt_tests::{Job, Place, Pty, READY, User, wait};
use rustix::fs::{Mode, OFlags};

/// What happens to a guest between `ready` and its check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing, and it is not even armed.
    Undisturbed,
    /// Saved, and it goes on itself.
    GoesOn,
    /// Saved, killed, restarted this often.
    Restarted(u32),
    /// Not armed: saved by its pid this often, by turns live and killed later, and ended by the saver; restarted, the last time
    /// in this way.
    ByPid(u32, Ids),
}

/// The ids of a restarted process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    New,
    Namespace,
    /// A tree's: kept, or in a namespace where they may not be.
    Tree,
}

/// A guest and what its object needs from outside.
struct Stage {
    place: Place,
    guest: PathBuf,
    arguments: Vec<PathBuf>,
    fifo: Option<OwnedFd>,
    terminal: Option<Pty>,
    /// It is a tree that was restarted.
    tree: bool,
    /// Its images are not for `restart-stub` alone.
    for_larger: bool,
}

impl Stage {
    fn set(name: &str, user: User) -> Result<Self> {
        let place = Place::new(user)?;
        // Other ways to run a guest: with an argument.
        let (file, argument) = match (name.split_once("_without"), name.split_once("_data")) {
            (Some((file, _)), _) => (file, Some("none")),
            (_, Some((file, _))) => (file, Some("data")),
            _ => (name, None),
        };
        let guest = place.guest(file)?;
        let mut stage = Self {
            place,
            guest,
            arguments: Vec::new(),
            fifo: None,
            terminal: None,
            tree: false,
            for_larger: ["pipeagain", "seccomp", "semaphore"].contains(&name),
        };
        stage.arguments.extend(argument.map(PathBuf::from));
        if name == "pipe" {
            let fifo = stage.place.file("fifo");
            rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from(0o600), 0)?;
            stage.place.give(&fifo)?;
            stage.fifo =
                Some(rustix::fs::open(&fifo, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
            stage.arguments.push(fifo);
        }
        if name == "terminal" {
            stage.terminal = Some(Pty::new(user, 24, 80)?);
        }
        Ok(stage)
    }

    fn start(&self, armed: bool) -> Result<Job> {
        let mut command = self.command(&self.guest);
        command.args(&self.arguments);
        if armed {
            self.place.arm(&mut command, &self.image());
        }
        self.run(&mut command)
    }

    fn restart(&mut self, ids: Ids) -> Result<Job> {
        if self.terminal.is_some() {
            self.terminal = Some(Pty::new(self.place.user(), 30, 100)?);
        }
        let program = if ids == Ids::New && !self.for_larger { "restart-stub" } else { "ckpt" };
        let mut command = self.command(&self.place.bin().join(program));
        match ids {
            Ids::New if self.for_larger => drop(command.arg("restart")),
            Ids::New => {}
            Ids::Namespace => drop(command.args(["restart", "--namespace"])),
            Ids::Tree => {
                let pid = self.place.file("job.pid");
                let _ = std::fs::remove_file(&pid);
                command.args(["restart", "--pidfile"]).arg(pid);
                self.tree = true;
            }
        }
        self.run(command.arg(self.image()))
    }

    /// Saves by pid, the process goes on and is killed; or the saver ends it once the image is durable.
    fn save_by_pid(&self, mut job: Job, live: bool) -> Result<()> {
        // Of a tree that was restarted, `ckpt` is the root's parent.
        let written =
            || Ok(std::fs::read_to_string(self.place.file("job.pid")).ok().and_then(|pid| pid.trim().parse().ok()));
        let pid = if self.tree { wait::until(written, || "no id of the root".to_owned())? } else { job.pid() };
        let begun = || Ok((ckpt_tests::proc::comm(pid)? != "ckpt").then_some(()));
        wait::until(begun, || "it is ckpt still".to_owned())?;
        self.place.save(pid, &self.image(), if live { &[] } else { &["--kill"] })?;
        if live { job.kill().map(drop) } else { job.end().map(drop) }
    }

    fn image(&self) -> PathBuf {
        self.place.file("job.ckpt")
    }

    fn command(&self, program: &PathBuf) -> Command {
        if self.terminal.is_some() { self.place.bare(program) } else { self.place.command(program) }
    }

    fn run(&self, command: &mut Command) -> Result<Job> {
        match &self.terminal {
            Some(pty) => Job::start_on(pty, command),
            None => Job::start(command),
        }
    }

    /// Lets the guest check, gives it what its object waits for, and expects it to pass.
    fn finish(&mut self, mut job: Job) -> Result<()> {
        self.place.go()?;
        if let Some(fifo) = &self.fifo {
            job.type_in("through standard input\n")?;
            rustix::io::write(fifo, b"through the FIFO\n")?;
            job.wait_line("PASS")?;
            anyhow::ensure!(job.end()?.err == "through standard error\n", "standard error: {}", job.story());
            return Ok(());
        }
        if let Some(pty) = &mut self.terminal {
            job.wait_line("type k")?;
            pty.type_in("k")?;
            job.wait_line("PASS")?;
            return job.end()?.expect_code(0);
        }
        let ended = job.end()?;
        ended.expect_pass()?;
        // Another test may have the number of a terminal meanwhile.
        let said = ended.err.lines().any(|line| !line.starts_with("ckpt: /dev/pts/"));
        anyhow::ensure!(!said, "{ended:#?}");
        Ok(())
    }
}

/// A column of the table.
fn way(fate: Fate) -> &'static str {
    match fate {
        Fate::Undisturbed => "undisturbed",
        Fate::GoesOn => "goes on",
        Fate::Restarted(1) => "signal",
        Fate::Restarted(_) => "signal, chain",
        Fate::ByPid(1, Ids::New | Ids::Tree) => "PID",
        Fate::ByPid(_, Ids::New | Ids::Tree) => "PID, chain",
        Fate::ByPid(1, Ids::Namespace) => "namespace",
        Fate::ByPid(_, Ids::Namespace) => "namespace, twice",
    }
}

fn play(name: &str, user: User, fate: Fate) -> Result<()> {
    let result = act(name, user, fate);
    table::enter(name, way(fate), user, Outcome::Pass.or_fail(&result));
    result
}

fn act(name: &str, user: User, fate: Fate) -> Result<()> {
    let mut stage = Stage::set(name, user)?;
    let mut job = stage.start(matches!(fate, Fate::GoesOn | Fate::Restarted(_)))?;
    job.wait_line(READY)?;
    match fate {
        Fate::Undisturbed => {}
        Fate::GoesOn => job.save(&stage.image())?,
        Fate::Restarted(times) => {
            for _ in 0..times {
                job.save_and_kill(&stage.image())?;
                job = stage.restart(Ids::New)?;
            }
        }
        Fate::ByPid(times, ids) => {
            for time in 1..=times {
                stage.save_by_pid(job, time % 2 == 1)?;
                job = stage.restart(if time == times || ids == Ids::Tree { ids } else { Ids::New })?;
            }
        }
    }
    stage.finish(job)
}

macro_rules! objects {
    ($($name:ident)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn undisturbed() -> Result<()> {
                User::each(|user| play(stringify!($name), user, Fate::Undisturbed))
            }

            #[test]
            fn goes_on_after_a_save() -> Result<()> {
                User::each(|user| play(stringify!($name), user, Fate::GoesOn))
            }

            #[test]
            fn restarted() -> Result<()> {
                User::each(|user| play(stringify!($name), user, Fate::Restarted(1)))
            }

            #[test]
            fn ten_generations() -> Result<()> {
                User::each(|user| play(stringify!($name), user, Fate::Restarted(10)))
            }

            #[test]
            fn by_pid() -> Result<()> {
                User::each(|user| {
                    for (times, ids) in [(1, Ids::New), (1, Ids::Namespace), (10, Ids::New), (2, Ids::Namespace)] {
                        play(stringify!($name), user, Fate::ByPid(times, ids))
                            .with_context(|| format!("{times} times, {ids:?}"))?;
                    }
                    Ok(())
                })
            }
        }
    )* };
}

objects! {
    content cputimer cwd descriptor device directory epoll eventfd fifo guard innerpipe inotify itimer lease lock memory mm names netlink pending pidfd pipe pipeagain pkey
    posix_timer pty ptydata regular rlimit sched sealed semaphore setting shared_file sigaction signalfd socket sysv terminal thread timerfd umask unix vdso vdso_data
    vdso_without
}

/// Filters are told to root alone: by pid, and not to the process itself.
mod seccomp {
    use super::*;

    #[test]
    fn undisturbed() -> Result<()> {
        User::each(|user| play("seccomp", user, Fate::Undisturbed))
    }

    #[test]
    fn by_pid() -> Result<()> {
        User::each(|user| {
            if !user.is_root() {
                let result = refused(user);
                table::enter("seccomp", "PID", user, Outcome::Refused.or_fail(&result));
                return result;
            }
            for (times, ids) in
                [(1, Ids::New), (1, Ids::Namespace), (1, Ids::Tree), (10, Ids::New), (2, Ids::Namespace)]
            {
                play("seccomp", user, Fate::ByPid(times, ids)).with_context(|| format!("{times} times, {ids:?}"))?;
            }
            Ok(())
        })
    }

    /// The smaller stub has no room for filters, and says so.
    #[test]
    fn not_by_the_stub_alone() -> Result<()> {
        if !User::Own.is_root() {
            println!("SKIPPED: filters are told to root alone");
            return Ok(());
        }
        let mut stage = Stage::set("seccomp", User::Own)?;
        let job = stage.start(false)?;
        job.wait_line(READY)?;
        stage.place.save(job.pid(), &stage.image(), &[])?;
        let refused = Job::start(&mut stage.place.stub(&stage.image()))?.end()?;
        anyhow::ensure!(refused.code() == Some(77) && refused.err.contains("ckpt restart"), "{refused:#?}");
        stage.finish(job)
    }

    fn refused(user: User) -> Result<()> {
        let mut stage = Stage::set("seccomp", user)?;
        let job = stage.start(false)?;
        job.wait_line(READY)?;
        let refused = stage.place.try_save(job.pid(), &stage.image(), &[])?;
        anyhow::ensure!(refused.code() == Some(88) && refused.err.contains("seccomp"), "{refused:#?}");
        stage.finish(job)
    }
}

/// A tree of processes is saved by its root's pid alone; in the end both ways of having its ids again.
macro_rules! trees {
    ($($name:ident)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn undisturbed() -> Result<()> {
                User::each(|user| play(stringify!($name), user, Fate::Undisturbed))
            }

            #[test]
            fn by_pid() -> Result<()> {
                User::each(|user| {
                    for (times, ids) in [(1, Ids::Tree), (1, Ids::Namespace), (6, Ids::Tree)] {
                        play(stringify!($name), user, Fate::ByPid(times, ids))
                            .with_context(|| format!("{times} times, {ids:?}"))?;
                    }
                    Ok(())
                })
            }
        }
    )* };
}

trees! { credentials process sigio }
