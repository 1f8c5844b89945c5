//! Each kernel object: its guest undisturbed, after a save that lets it go on, restarted once, and in the fifth generation,
//! as every user that the tests can be.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use ckpt_tests::{Job, Place, Pty, READY, User};
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
}

/// A guest and what its object needs from outside.
struct Stage {
    place: Place,
    guest: PathBuf,
    arguments: Vec<PathBuf>,
    fifo: Option<OwnedFd>,
    terminal: Option<Pty>,
}

impl Stage {
    fn set(name: &str, user: User) -> Result<Self> {
        let place = Place::new(user)?;
        let guest = place.guest(name)?;
        let mut stage = Self { place, guest, arguments: Vec::new(), fifo: None, terminal: None };
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

    fn restart(&mut self) -> Result<Job> {
        if self.terminal.is_some() {
            self.terminal = Some(Pty::new(self.place.user(), 30, 100)?);
        }
        let mut command = self.command(&self.place.bin().join("restart-stub"));
        self.run(command.arg(self.image()))
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
        anyhow::ensure!(ended.err.is_empty(), "{ended:#?}");
        Ok(())
    }
}

fn play(name: &str, user: User, fate: Fate) -> Result<()> {
    let mut stage = Stage::set(name, user)?;
    let mut job = stage.start(fate != Fate::Undisturbed)?;
    job.wait_line(READY)?;
    match fate {
        Fate::Undisturbed => {}
        Fate::GoesOn => job.save(&stage.image())?,
        Fate::Restarted(times) => {
            for _ in 0..times {
                job.save_and_kill(&stage.image())?;
                job = stage.restart()?;
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
            fn five_generations() -> Result<()> {
                User::each(|user| play(stringify!($name), user, Fate::Restarted(5)))
            }
        }
    )* };
}

objects! {
    cwd descriptor device directory epoll eventfd innerpipe itimer lock memory mm pending pipe posix_timer regular rlimit
    sigaction signalfd terminal thread timerfd umask
}
