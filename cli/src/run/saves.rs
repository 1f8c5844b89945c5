//! When `ckpt run` saves its program: on signals, every so often, and at the end. One save at a time, one more in line.
//!
//! Each is made by a child of its own: signals are handed on meanwhile, and the saver's waiting for the program's
//! threads is not mixed up with this command's for its child. Must never say the same thing twice in a row.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use sys::abi::signal::SIGTERM;
use sys::child::Change;

use crate::compress::Compression;
use crate::failure::Failure;
use crate::saver::{self, To};
use crate::signal::Signal;
use crate::supervise::birth::pipe;
use crate::supervise::proxy::Duty;
use crate::text;
use ckpt::remote::{Options, Tcp};

/// What happens to the program after a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum After {
    GoOn,
    End,
}

/// A save under way.
#[derive(Debug)]
struct Saver {
    pid: Pid,
    after: After,
    /// What it says when it fails.
    says: File,
}

/// The saves of one program.
#[derive(Debug)]
pub struct Saves {
    program: Pid,
    image: PathBuf,
    signals: Vec<Signal>,
    every: Option<Duration>,
    exit_code: u8,
    /// TCP connections to other processes do not block a save.
    pub tcp: Tcp,
    /// How the image is compressed.
    pub compression: Option<Compression>,
    /// None before the program has taken over.
    next: Option<Instant>,
    running: bool,
    now: Option<Saver>,
    queued: Option<After>,
    /// The last failure that was told.
    told: String,
    saved_and_ended: bool,
}

impl Saves {
    /// Of this program, to that file.
    pub fn new(program: Pid, image: PathBuf, signals: Vec<Signal>, every: Option<Duration>, exit_code: u8) -> Self {
        Self {
            program,
            image,
            signals,
            every,
            exit_code,
            tcp: Tcp::Refuse,
            compression: None,
            next: None,
            running: false,
            now: None,
            queued: None,
            told: String::new(),
            saved_and_ended: false,
        }
    }

    /// Asks for a save; what is asked for while one is under way is one more, whatever the number.
    fn ask(&mut self, after: After) {
        let ending = self.now.as_ref().is_some_and(|saver| saver.after == After::End);
        if ending {
            return;
        }
        self.queued = self.queued.max(Some(after));
        self.begin();
    }

    fn begin(&mut self) {
        if !self.running || self.now.is_some() {
            return;
        }
        let Some(after) = self.queued.take() else { return };
        match self.start(after) {
            Ok(saver) => self.now = Some(saver),
            Err(failure) => self.failed(after, failure.into_parts().1),
        }
    }

    fn start(&self, after: After) -> Result<Saver, Failure> {
        let (says, tell) = pipe()?;
        // SAFETY: this command has one thread.
        let pid = unsafe { sys::child::fork(None) }.map_err(|e| crate::failure::errno("a process that saves", e))?;
        let Some(pid) = Pid::from_raw(pid) else {
            drop(says);
            let kill = after == After::End;
            let options = Options { kill, tcp: self.tcp, ..Options::default() };
            let program = self.program.as_raw_nonzero().get();
            let saved = saver::save(program, To::File(&self.image), options, self.compression);
            let failed = saved.err().map(|failure| File::from(tell).write_all(failure.into_parts().1.as_bytes()));
            sys::process::exit(i32::from(failed.is_some()))
        };
        Ok(Saver { pid, after, says: says.into() })
    }

    /// A save has failed: the old image, if there is one, is whole. Who wants the end gets it, without a new image.
    fn failed(&mut self, after: After, why: String) {
        if after == After::End {
            text::note(format_args!("not saved: {why}: SIGTERM is passed on to the program"));
            let _ = sys::process::kill(self.program.as_raw_nonzero().get(), SIGTERM);
        } else if why != self.told {
            text::note(format_args!("not saved: {why}: the program goes on"));
        }
        self.told = why;
    }
}

impl Duty for Saves {
    fn running(&mut self) -> Result<(), Failure> {
        self.running = true;
        self.next = self.every.map(|every| Instant::now() + every);
        self.begin();
        Ok(())
    }

    fn takes(&mut self, signal: i32) -> bool {
        let saves = self.signals.iter().any(|own| i32::try_from(own.number()) == Ok(signal));
        match (signal, saves) {
            (SIGTERM, _) => self.ask(After::End),
            (_, true) => self.ask(After::GoOn),
            _ => return false,
        }
        true
    }

    fn due(&self) -> Option<Instant> {
        self.next
    }

    fn tick(&mut self) {
        // From now on, not from when it was due: after a stop of hours one save is enough.
        self.next = self.every.map(|every| Instant::now() + every);
        self.ask(After::GoOn);
    }

    fn child(&mut self, pid: Pid, change: Change) {
        let ended = matches!(change, Change::Exited(_) | Change::Killed(_));
        let Some(saver) = self.now.take_if(|saver| saver.pid == pid && ended) else { return };
        if change == Change::Exited(0) {
            self.told.clear();
            self.saved_and_ended |= saver.after == After::End;
        } else {
            let mut why = String::new();
            let _ = (&saver.says).read_to_string(&mut why);
            let why = if why.is_empty() { "the process that saves has ended early".to_owned() } else { why };
            self.failed(saver.after, why);
        }
        self.begin();
    }

    fn status(&mut self, _end: Change) -> Option<u8> {
        // A save under way is completed: it may have all that it needs, or have ended the program as it was told to.
        if let Some(saver) = self.now.take() {
            let end = sys::child::wait(saver.pid.as_raw_nonzero().get(), true);
            self.saved_and_ended |= saver.after == After::End && matches!(end, Ok(Some((_, Change::Exited(0)))));
        }
        self.saved_and_ended.then_some(self.exit_code)
    }
}
