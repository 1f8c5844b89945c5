//! Stand-in for `ckpt::remote` until it is there: the same interface, and nothing behind it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// Where an image goes.
#[allow(dead_code)]
pub enum Destination<'a> {
    File(&'a Path),
    Stream(OwnedFd),
}

/// How.
#[allow(dead_code)]
#[derive(Default)]
pub struct Options {
    pub freeze: bool,
    pub kill: bool,
}

/// What was done.
#[allow(dead_code)]
pub struct Report {
    pub bytes: u64,
    pub pause: Duration,
    pub total: Duration,
    pub threads: usize,
    pub frozen: Option<&'static str>,
}

fn missing(pid: i32) -> state::Error {
    state::Error::refused(format_args!("process {pid}"), "cannot be saved from outside yet", "LD_PRELOAD=libckpt.so")
}

pub fn save(pid: i32, _to: Destination<'_>, _options: Options) -> Result<Report, state::Error> {
    Err(missing(pid))
}

pub fn blockers(pid: i32) -> Result<Vec<String>, state::Error> {
    Ok(vec![missing(pid).to_string()])
}
