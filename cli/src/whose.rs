//! Whose ids and clocks a restarted program gets, as its options say.

use std::ffi::OsString;

use clap::ValueEnum;

use crate::failure::Failure;
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
