//! A process that a test started: its output so far, its end, and what it left behind.

use std::io::{ErrorKind, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::capture::Capture;
use crate::image::Mark;
use crate::wait::{self, timeout};
use crate::{Pty, left_out, proc};

/// A running process of a test, leader of a session of its own; killed with the value.
#[derive(Debug)]
pub struct Job {
    child: Child,
    what: String,
    out: Capture,
    /// None on a terminal: there all output comes together, and only a line that was waited for is sure to have come.
    err: Option<Capture>,
    stdin: Option<ChildStdin>,
}

/// How a process ended, and all that it wrote.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Standard output, or all output of a terminal.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// The command.
    pub what: String,
}

impl Ended {
    /// The exit code, or none after a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Checks that a guest passed: it said so last, exited with 0, and nothing came on standard error.
    ///
    /// # Errors
    /// With all that it wrote.
    pub fn expect_pass(&self) -> Result<()> {
        let last = self.out.lines().last().map(str::trim_end);
        ensure!(self.status.success() && last == Some("PASS"), "{self:#?}");
        Ok(())
    }

    /// Checks the exit code.
    ///
    /// # Errors
    /// With all that it wrote.
    pub fn expect_code(&self, code: i32) -> Result<()> {
        ensure!(self.code() == Some(code), "expected exit code {code}: {self:#?}");
        Ok(())
    }
}

/// Makes the command start a session of its own; with `terminal` its standard input becomes the controlling terminal.
pub fn in_own_session(command: &mut Command, terminal: bool) {
    let prepare = move || {
        rustix::process::setsid()?;
        if terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes only system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
}

/// Makes the command start with its three standard streams alone: what whoever runs the tests has left open would be part of
/// an image, and a restart elsewhere has nothing for it.
pub fn with_no_other_descriptors(command: &mut Command) {
    let prepare =
        || sys::fs::close_range_on_exec(3, u32::MAX).map_err(|e| std::io::Error::from_raw_os_error(e.into_raw()));
    // SAFETY: as above.
    unsafe { command.pre_exec(prepare) };
}

/// Makes the command start with duplicates of a descriptor under these numbers, which must stay open until then.
pub fn with_descriptor(command: &mut Command, fd: i32, numbers: &'static [i32]) {
    let prepare = move || {
        for number in numbers {
            // SAFETY: a number that the child does not use.
            unsafe { sys::fs::dup_to(fd, *number, false) }
                .map_err(|e| std::io::Error::from_raw_os_error(e.into_raw()))?;
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(prepare) };
}

/// Starts a command; again while its program is open for writing in a child that another test has just forked.
fn spawn(command: &mut Command) -> Result<Child> {
    let start = || match command.spawn() {
        Ok(child) => Ok(Some(child)),
        Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => Ok(None),
        Err(e) => Err(left_out::not_started(Path::new(command.get_program()), e)),
    };
    let child = wait::until(start, || "the program stays open for writing".to_owned());
    child.with_context(|| format!("{command:?}"))
}

fn handle(pid: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(pid)?).context("a pid")
}

impl Job {
    /// Starts a command with pipes as its standard streams.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command)?;
        let out = Capture::of(child.stdout.take().context("piped")?);
        let err = Capture::of(child.stderr.take().context("piped")?);
        let stdin = child.stdin.take();
        Ok(Self { child, what: format!("{command:?}"), out, err: Some(err), stdin })
    }

    /// Starts a command as the leader of a session on a terminal, which all its standard streams are.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_on(pty: &Pty, command: &mut Command) -> Result<Self> {
        in_own_session(command, true);
        command.stdin(pty.other_end()?).stdout(pty.other_end()?).stderr(pty.other_end()?);
        let child = spawn(command)?;
        // The command keeps its three copies of the terminal; it goes away with the test.
        Ok(Self { child, what: format!("{command:?}"), out: pty.screen(), err: None, stdin: None })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        proc::program(self.child.id())
    }

    /// Its own id: of the program, or of its supervisor.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    #[must_use]
    pub fn out(&self) -> String {
        self.out.text()
    }

    /// The same as it came.
    #[must_use]
    pub fn out_bytes(&self) -> Vec<u8> {
        self.out.bytes()
    }

    /// Standard error so far.
    #[must_use]
    pub fn err(&self) -> String {
        self.err.as_ref().map(Capture::text).unwrap_or_default()
    }

    /// All that is known, for messages.
    #[must_use]
    pub fn story(&self) -> String {
        let state = proc::state(self.process());
        format!("{}\n  state {state:?}\n  stdout: {}\n  stderr: {}", self.what, self.out(), self.err())
    }

    /// Waits for a line of standard output.
    ///
    /// # Errors
    /// It ended, or time ran out.
    pub fn wait_line(&self, line: &str) -> Result<()> {
        let came = self.out.wait(|text| text.lines().any(|l| l.trim_end() == line));
        ensure!(came, "no line '{line}' from {}", self.story());
        Ok(())
    }

    /// Waits until standard output holds this text.
    ///
    /// # Errors
    /// It ended, or time ran out.
    pub fn wait_text(&self, text: &str) -> Result<()> {
        ensure!(self.out.wait(|t| t.contains(text)), "no '{text}' from {}", self.story());
        Ok(())
    }

    /// Waits until standard error holds this text.
    ///
    /// # Errors
    /// It ended, or time ran out.
    pub fn wait_err(&self, text: &str) -> Result<()> {
        let came = self.err.as_ref().is_some_and(|err| err.wait(|t| t.contains(text)));
        ensure!(came, "no '{text}' on standard error from {}", self.story());
        Ok(())
    }

    /// Writes to standard input.
    ///
    /// # Errors
    /// It is closed.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is no pipe")?;
        stdin.write_all(text.as_bytes())?;
        Ok(stdin.flush()?)
    }

    /// Standard input, to be closed by dropping it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Closes standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn send(&self, signal: Signal) -> Result<()> {
        kill_process(handle(self.process())?, signal).with_context(|| self.story())
    }

    /// Waits until the process catches SIGUSR1: started and armed, or restarted.
    ///
    /// # Errors
    /// It ended, or time ran out.
    pub fn wait_armed(&self) -> Result<()> {
        proc::wait_catches(self.pid(), Signal::USR1.as_raw()).with_context(|| self.story())
    }

    /// Sends SIGUSR1 and waits for the new image.
    ///
    /// # Errors
    /// None came: with what the process said.
    pub fn save(&self, image: &Path) -> Result<()> {
        self.save_of(self.pid(), image)
    }

    /// The same of a process whose proxy this one is.
    ///
    /// # Errors
    /// The same.
    pub fn save_of(&self, pid: u32, image: &Path) -> Result<()> {
        proc::wait_catches(pid, Signal::USR1.as_raw()).with_context(|| self.story())?;
        let before = Mark::of(image);
        kill_process(handle(pid)?, Signal::USR1)?;
        let look = || {
            let now = Mark::of(image);
            if now.is_there() && now != before {
                return Ok(Some(()));
            }
            if self.err().contains("ckpt: save failed") || matches!(proc::state(self.process()), None | Some('Z' | 'X'))
            {
                return Err(anyhow!("not saved: {}", self.story()));
            }
            Ok(None)
        };
        wait::until(look, || format!("no new image {} from {}", image.display(), self.story()))
    }

    /// Saves, and kills without mercy once the image is there.
    ///
    /// # Errors
    /// As [`Job::save`].
    pub fn save_and_kill(self, image: &Path) -> Result<Ended> {
        self.save(image)?;
        self.kill()
    }

    /// Kills the program (SIGKILL) and waits for the end, of its supervisor, too.
    ///
    /// # Errors
    /// It is still there.
    pub fn kill(mut self) -> Result<Ended> {
        // One that has ended already is as good, and its supervisor may have died of it.
        if kill_process(handle(self.pid())?, Signal::KILL).is_err() {
            self.child.kill()?;
        }
        let ended = self.end()?;
        // A program that ended by itself at the same moment is as good.
        ensure!(ended.status.signal() == Some(9) || ended.code().is_some(), "{ended:#?}");
        Ok(ended)
    }

    /// Kills the process itself (SIGKILL), be it the program or its supervisor, as a power failure does, and waits for the end of both.
    ///
    /// # Errors
    /// It is still there.
    pub fn kill_process(mut self) -> Result<()> {
        self.child.kill()?;
        self.end().map(drop)
    }

    /// Kills all processes of its session (SIGKILL), as a machine that fails, and waits for their end.
    ///
    /// # Errors
    /// One is still there.
    pub fn kill_session(mut self) -> Result<()> {
        let sid = self.process();
        let killed = || {
            let left =
                proc::session(sid)?.into_keys().filter(|pid| !matches!(proc::state(*pid), None | Some('Z' | 'X')));
            let mut all = true;
            for pid in left {
                all = false;
                // One that has ended meanwhile is as good.
                let _ = kill_process(handle(pid)?, Signal::KILL);
            }
            Ok(all.then_some(()))
        };
        // Again and again: one that is killed may have made another one just before.
        wait::until(killed, || format!("processes remain of {}", self.what))?;
        self.end().map(drop)
    }

    /// Waits for its end, and that nothing of its session remains.
    ///
    /// # Errors
    /// It runs on, or something remains.
    pub fn end(&mut self) -> Result<Ended> {
        let pidfd = pidfd_open(handle(self.process())?, PidfdFlags::empty())?;
        let timeout = Timespec { tv_sec: timeout().as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout))? == 0 {
            bail!("it does not end: {}", self.story());
        }
        let status = self.child.wait()?;
        self.stdin = None;
        self.nothing_left()?;
        if let Some(err) = &self.err {
            ensure!(self.out.wait_end() && err.wait_end(), "somebody still holds its output: {}", self.story());
        }
        Ok(Ended { status, out: self.out(), err: self.err(), what: self.what.clone() })
    }

    fn nothing_left(&self) -> Result<()> {
        let sid = self.process();
        let look = || Ok(proc::session(sid)?.is_empty().then_some(()));
        wait::until(look, || format!("processes remain of {}: {:?}", self.what, proc::session(sid)))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Fails only for a process that was waited for.
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
