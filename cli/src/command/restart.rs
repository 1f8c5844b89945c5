//! `ckpt restart`: lets the program in an image go on: in place of this command, or as its child under chosen ids.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::failure::Failure;
use crate::pidfile::PidFile;
use crate::restart::{self, Identity, Manner, Source};
use crate::stub;
use crate::supervise::clocks::Clock;

/// Whose process ids the program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pid {
    /// This process's own (the default)
    New,
    /// The saved ones
    Keep,
}

/// Whose ids and clocks the program gets.
#[derive(Debug, clap::Args)]
pub struct Whose {
    /// The program's process and thread ids [default: new; a tree's and Ruby's are kept, in a namespace where they may not be]
    #[arg(long, value_name = "WHICH")]
    pid: Option<Pid>,
    /// The saved ids and clocks, in namespaces of its own
    #[arg(long)]
    namespace: bool,
    /// CLOCK_MONOTONIC and CLOCK_BOOTTIME, which begin anew with each boot
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    clock: Clock,
}

impl Whose {
    /// What the options mean together.
    pub fn manner(&self) -> Result<Manner, Failure> {
        let identity = match (self.pid, self.namespace) {
            (Some(Pid::New), true) => {
                return Err(Failure::usage("--namespace keeps the ids: it excludes --pid new"));
            }
            (_, true) if self.clock == Clock::New => {
                return Err(Failure::usage("--namespace lets the clocks go on: it excludes --clock new"));
            }
            (_, true) => Identity::Namespace,
            (Some(Pid::Keep), _) => Identity::Keep,
            (Some(Pid::New), _) => Identity::New,
            (None, _) => Identity::Any,
        };
        Ok(Manner { identity, clock: self.clock })
    }

    /// As they were given.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut out: Vec<OsString> = Vec::new();
        if let Some(pid) = self.pid.and_then(stub::word) {
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
    after_help = "The program takes this command's place: same process id, terminal and pipes, and its exit status. With \
--pid keep, --namespace, and clocks that go on, it is a child, and this command stands in for it: signals, job control, exit status."
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

/// Returns what went wrong, or the end of the program that this command has stood in for.
pub fn main(args: Args) -> Result<(), Failure> {
    let manner = args.whose.manner()?;
    let pidfile = args.pidfile.as_deref().map(PidFile::prepare).transpose()?;
    let source = Source::open(&args.image, args.options.trust)?;
    if args.detach {
        return restart::detached(&source, &args.options, manner, pidfile).map(drop);
    }
    Err(restart::attached(&source, &args.options, manner, pidfile))
}
