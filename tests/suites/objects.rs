//! Each kernel object: its guest undisturbed, after a save that lets it go on, restarted once, and in the tenth generation,
//! as every user that the tests can be.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use ckpt_tests::table::{self, Outcome};
use ckpt_tests::{Job, Place, Pty, READY, User, wait};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

/// What happens to a guest between `ready` and its check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing, and it is not even armed.
    Undisturbed,
    /// Saved, and it goes on itself.
    GoesOn,
    /// Saved, killed, restarted this often in this way, but the first of several times as itself.
    Restarted(u32, Ids),
    /// Not armed: saved by its pid this often, by turns live and killed later, and ended by the saver; restarted as above.
    ByPid(u32, Ids),
}

/// The ids of a restarted process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    /// The default: kept, or new where nothing keeps the old ones, or in a namespace.
    Auto,
    New,
    Namespace,
}

/// Guests that are trees of processes.
const TREES: [&str; 8] =
    ["credentials", "foreground", "inherited", "ownfiles", "process", "relatives", "sigio", "stopped"];

/// A guest and what its object needs from outside.
struct Stage {
    name: &'static str,
    place: Place,
    guest: PathBuf,
    arguments: Vec<PathBuf>,
    fifo: Option<OwnedFd>,
    terminal: Option<Pty>,
    /// It was restarted: its pid is in the file for that.
    restarted: bool,
}

impl Stage {
    fn set(name: &'static str, user: User) -> Result<Self> {
        let place = Place::new(user)?;
        // Other ways to run a guest: with an argument.
        let (file, argument) = match (name.split_once("_without"), name.split_once("_data")) {
            (Some((file, _)), _) => (file, Some("none")),
            (_, Some((file, _))) => (file, Some("data")),
            _ => (name, None),
        };
        let guest = place.guest(file)?;
        let mut stage =
            Self { name, place, guest, arguments: Vec::new(), fifo: None, terminal: None, restarted: false };
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

    /// In which way it is restarted: the first of several times as itself; what was restarted in a namespace is saved again, too.
    fn way(&self, time: u32, times: u32, ids: Ids) -> Ids {
        if time != 1 || times == 1 || TREES.contains(&self.name) { ids } else { Ids::New }
    }

    fn restart(&mut self, ids: Ids) -> Result<Job> {
        if self.terminal.is_some() {
            self.terminal = Some(Pty::new(self.place.user(), 30, 100)?);
        }
        // The default by the stub alone, the others by it and by the command.
        let program = if ids == Ids::Namespace { "ckpt" } else { "restart-stub" };
        let mut command = self.command(&self.place.bin().join(program));
        command.args((program == "ckpt").then_some("restart"));
        let pid = self.place.file("job.pid");
        let _ = std::fs::remove_file(&pid);
        command.arg("--pidfile").arg(pid);
        match ids {
            Ids::Auto => {}
            Ids::New => drop(command.args(["--pid", "new"])),
            Ids::Namespace => drop(command.arg("--namespace")),
        }
        self.restarted = true;
        self.run(command.arg(self.image()))
    }

    /// Saves by pid, the process goes on and is killed; or the saver ends it once the image is durable.
    fn save_by_pid(&self, mut job: Job, live: bool) -> Result<()> {
        let pid = self.pid(&job)?;
        self.place.save(pid, &self.image(), if live { &[] } else { &["--kill"] })?;
        if live { job.kill().map(drop) } else { job.end().map(drop) }
    }

    /// The guest's own, once it is itself.
    fn pid(&self, job: &Job) -> Result<u32> {
        let written =
            || Ok(std::fs::read_to_string(self.place.file("job.pid")).ok().and_then(|pid| pid.trim().parse().ok()));
        let pid = if self.restarted { wait::until(written, || "no id of the root".to_owned())? } else { job.pid() };
        let begun = || Ok((ckpt_tests::proc::comm(pid)? != "ckpt").then_some(()));
        wait::until(begun, || "it is ckpt still".to_owned())?;
        Ok(pid)
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
            let err = job.end()?.err;
            let own: Vec<_> = err.lines().filter(|line| !is_a_note(line)).collect();
            anyhow::ensure!(own == ["through standard error"], "standard error: {}", job.story());
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
        anyhow::ensure!(ended.err.lines().all(is_a_note), "{ended:#?}");
        Ok(())
    }
}

/// What a restart says of what is as it should be: another test may have the number of a terminal meanwhile, and a program that keeps
/// its ids gets new ones when that is asked for.
fn is_a_note(line: &str) -> bool {
    line.contains(": /dev/pts/") || line.starts_with("restart-stub: process ") && line.contains(": gets new ids")
}

/// A column of the table.
fn way(fate: Fate) -> &'static str {
    match fate {
        Fate::Undisturbed => "undisturbed",
        Fate::GoesOn => "goes on",
        Fate::Restarted(1, Ids::Auto) => "signal",
        Fate::Restarted(1, Ids::New) => "signal, new ids",
        Fate::Restarted(1, Ids::Namespace) => "signal, namespace",
        Fate::Restarted(_, Ids::Namespace) => "signal, chain, namespace",
        Fate::Restarted(..) => "signal, chain",
        Fate::ByPid(1, Ids::Auto) => "PID",
        Fate::ByPid(1, Ids::New) => "PID, new ids",
        Fate::ByPid(1, Ids::Namespace) => "PID, namespace",
        Fate::ByPid(_, Ids::Namespace) => "PID, namespace, chain",
        Fate::ByPid(..) => "PID, chain",
    }
}

fn play(name: &'static str, user: User, fate: Fate) -> Result<()> {
    let result = act(name, user, fate);
    table::enter(name, way(fate), user, Outcome::Pass.or_fail(&result));
    result
}

fn act(name: &'static str, user: User, fate: Fate) -> Result<()> {
    let mut stage = Stage::set(name, user)?;
    let mut job = stage.start(matches!(fate, Fate::GoesOn | Fate::Restarted(..)))?;
    job.wait_line(READY)?;
    match fate {
        Fate::Undisturbed => {}
        Fate::GoesOn => job.save(&stage.image())?,
        Fate::Restarted(times, ids) => {
            for time in 1..=times {
                job.save_of(stage.pid(&job)?, &stage.image())?;
                job.kill()?;
                job = stage.restart(stage.way(time, times, ids))?;
            }
        }
        Fate::ByPid(times, ids) => {
            for time in 1..=times {
                stage.save_by_pid(job, time % 2 == 1)?;
                job = stage.restart(stage.way(time, times, ids))?;
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
                User::each(|user| {
                    for ids in [Ids::Auto, Ids::New, Ids::Namespace] {
                        play(stringify!($name), user, Fate::Restarted(1, ids)).with_context(|| format!("{ids:?}"))?;
                    }
                    Ok(())
                })
            }

            #[test]
            fn ten_generations() -> Result<()> {
                User::each(|user| {
                    for ids in [Ids::Auto, Ids::Namespace] {
                        play(stringify!($name), user, Fate::Restarted(10, ids)).with_context(|| format!("{ids:?}"))?;
                    }
                    Ok(())
                })
            }

            #[test]
            fn by_pid() -> Result<()> {
                User::each(|user| {
                    for (times, ids) in
                        [(1, Ids::Auto), (1, Ids::New), (1, Ids::Namespace), (10, Ids::Auto), (10, Ids::Namespace)]
                    {
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
    addresses content cputimer cwd descriptor device directory driven epoll eventfd fifo fifogone guard hungup innerpipe inotify itimer lease lock memory mm nameless names netlink pending pidfd pipe pipeagain pkey
    posix_timer pty ptydata rawsockets realtime regular removed rlimit sched sealed semaphore setting shared_file sigaction signalfd socket sysv tcpends terminal thread timerfd umask unix unixlinks vdso vdso_data vdso_without watched
}

/// A process cannot save this of itself: the call says so, and it goes on.
fn refused_by_signal(name: &'static str, word: &str) -> Result<()> {
    User::each(|user| {
        let refused = || {
            let stage = Stage::set(name, user)?;
            let mut job = stage.start(true)?;
            job.wait_line(READY)?;
            job.wait_armed()?;
            job.send(Signal::USR1)?;
            job.wait_err("\n")?;
            stage.place.go()?;
            let ended = job.end()?;
            anyhow::ensure!(ended.err.starts_with("ckpt: save failed: ") && ended.err.contains(word), "{ended:#?}");
            ended.expect_pass()
        };
        let result = refused();
        table::enter(name, "signal", user, Outcome::Refused.or_fail(&result));
        result
    })
}

#[path = "objects/by_pid_alone.rs"]
mod by_pid_alone;

/// A tree of processes is saved by its root's pid alone; in the end both ways of having its ids again.
macro_rules! trees {
    ($($name:ident)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn by_signal() -> Result<()> {
                refused_by_signal(stringify!($name), "child")
            }

            #[test]
            fn undisturbed() -> Result<()> {
                User::each(|user| play(stringify!($name), user, Fate::Undisturbed))
            }

            #[test]
            fn by_pid() -> Result<()> {
                User::each(|user| {
                    for (times, ids) in [(1, Ids::Auto), (1, Ids::Namespace), (10, Ids::Auto), (10, Ids::Namespace)] {
                        play(stringify!($name), user, Fate::ByPid(times, ids))
                            .with_context(|| format!("{times} times, {ids:?}"))?;
                    }
                    Ok(())
                })
            }
        }
    )* };
}

trees! { credentials foreground inherited ownfiles process relatives sigio stopped }
