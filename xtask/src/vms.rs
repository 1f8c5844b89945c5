//! `cargo xtask vms`: images travel between this machine and virtual ones with other kernels and other CPUs.
//!
//! The suites `vms` and `vmpipes`, with their set-up and with all that they say: which kernels could be had, and what was seen.

use anyhow::Result;
use xshell::cmd;

use crate::workspace::Workspace;
use crate::{dist, test};

/// Sets up, builds `dist/`, runs the suites.
///
/// # Errors
/// A package is missing, the build fails, or a restart does.
pub fn run(ws: &Workspace) -> Result<()> {
    let sh = ws.shell()?;
    test::packages::require(&sh, ws)?;
    dist::run(ws)?;
    sh.set_var("CKPT_STUB", ws.stub());
    let tests = ["-p", "ckpt-tests", "--test", "vms", "--test", "vmpipes", "--", "--nocapture", "--test-threads=1"];
    Ok(cmd!(sh, "env --default-signal cargo test {tests...}").run()?)
}
