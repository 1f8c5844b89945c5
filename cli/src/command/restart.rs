//! `ckpt restart`: lets the program in an image go on, by the stub in this command's place.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::failure::Failure;
use crate::pidfile::PidFile;
use crate::restart::{self, Source};
use crate::stub;

/// Whose process ids the program gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Pid {
    /// The saved ones wherever they can be had; new ones where nothing keeps the old ones
    #[default]
    Auto,
    /// The saved ones, however long it takes to count up to them
    Keep,
    /// New ones: what keeps the old ones may fail
    New,
}

/// Whose clocks the program gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Clock {
    /// The saved ones where this machine's stand lower, else this machine's
    #[default]
    Auto,
    /// The saved ones, which go on
    Keep,
    /// This machine's
    New,
}

/// Whose ids and clocks the program gets.
#[derive(Debug, clap::Args)]
pub struct Whose {
    /// The program's process and thread ids
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    pid: Pid,
    /// The saved ids and clocks, in namespaces of its own
    #[arg(long)]
    namespace: bool,
    /// CLOCK_MONOTONIC and CLOCK_BOOTTIME, which begin anew with each boot
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    clock: Clock,
}

impl Whose {
    /// What excludes each other.
    pub fn check(&self) -> Result<(), Failure> {
        match (self.namespace, self.pid, self.clock) {
            (true, Pid::New, _) => Err(Failure::usage("--namespace keeps the ids: it excludes --pid new")),
            (true, _, Clock::New) => Err(Failure::usage("--namespace lets the clocks go on: it excludes --clock new")),
            _ => Ok(()),
        }
    }

    /// As they were given.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut out: Vec<OsString> = Vec::new();
        if let Some(pid) = stub::word(self.pid).filter(|_| self.pid != Pid::Auto) {
            out.extend(["--pid".into(), pid]);
        }
        out.extend(self.namespace.then(|| "--namespace".into()));
        if let Some(clock) = stub::word(self.clock).filter(|_| self.clock != Clock::Auto) {
            out.extend(["--clock".into(), clock]);
        }
        out
    }
}

/// Let the program in an image go on where it was saved
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The program keeps its process and thread ids wherever they can be had: as root, with the capability CHECKPOINT_RESTORE, \
where they come up next, or in a pid namespace of its own. It is a child of this command then, which supervises it: signals, job control, exit \
status. Where nothing in the program keeps its old id, it takes this command's place: same process id."
)]
pub struct Args {
    /// The image; - reads it from standard input
    image: PathBuf,
    #[command(flatten)]
    options: stub::Options,
    #[command(flatten)]
    whose: Whose,
    /// Return when the program runs; it stays in the background
    #[arg(long)]
    detach: bool,
    /// Write the program's process id to FILE
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
}

/// Returns what went wrong; what the program does is its own affair.
pub fn main(args: Args) -> Result<(), Failure> {
    args.whose.check()?;
    if args.detach {
        let pidfile = args.pidfile.as_deref().map(PidFile::prepare).transpose()?;
        let source = Source::open(&args.image, args.options.trust)?;
        return restart::detached(&source, &args.options, &args.whose, pidfile).map(drop);
    }
    if let Some(path) = &args.pidfile {
        // The stub writes it; but who gives a wrong name hears of it first.
        drop(PidFile::prepare(path)?);
    }
    let source = Source::open(&args.image, args.options.trust)?;
    Err(restart::attached(&source, &args.options, &args.whose, args.pidfile.as_deref()))
}
