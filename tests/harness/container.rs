//! A container without an engine: unshare(1) makes its namespaces, and the guest `container` does what an engine does last (session, rights, filter).

use std::ffi::OsStr;
use std::process::Command;

use anyhow::Result;
use rustix::process::Signal;

use crate::programs::tool;
use crate::{Job, Place, proc, wait};

/// Options of the guest `container`: none, with `no_new_privs`, and as on an old kernel.
pub const KINDS: [&[&str]; 3] = [&[], &["-n"], &["-o"]];

/// The command that runs another in a container, which is to be added.
///
/// # Errors
/// unshare(1) is missing.
pub fn command(place: &Place, kind: &[&str]) -> Result<Command> {
    let mut command = place.command(tool("unshare", "util-linux")?);
    command.args(["--user", "--map-current-user", "--keep-caps", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.arg(place.guest("container")?).args(kind);
    command.env("PATH", format!("{}:/usr/bin:/bin", place.bin().display()));
    Ok(command)
}

/// Starts `ckpt run` in one: its PID 1, as seen from here, once it takes signals.
///
/// # Errors
/// It does not start.
pub fn start<A: AsRef<OsStr>>(place: &Place, kind: &[&str], words: impl IntoIterator<Item = A>) -> Result<(Job, u32)> {
    let job = Job::start(command(place, kind)?.args(words))?;
    let init = || {
        let found = proc::children(job.process()).first().copied();
        Ok(found.filter(|init| proc::blocks(*init, Signal::TERM.as_raw())))
    };
    let init = wait::until(init, || job.story())?;
    Ok((job, init))
}
