//! `ckpt check PID` says of a process what `ckpt save PID` says of it then.

use std::fs;

use anyhow::{Result, ensure};
use ckpt_tests::{Job, Place};

/// What `ckpt check PID` does not find, as nobody is told of it but a process itself, or one that changes it: the save asks by calls made
/// inside (what AMX the process may use, `arch_prctl`; its own segments, `modify_ldt`), or by other settings of the terminal, under which
/// output that was stopped by Ctrl-S goes on, and output that was stopped by tcflow(3) does not.
const UNTOLD: [&str; 3] = ["a_terminal_that_is_stopped", "amx_tiles", "segments_of_its_own"];

/// `ckpt check PID` says of a process what `ckpt save PID` says then.
pub fn by_check(place: &Place, job: &Job) -> Result<()> {
    let checked = Job::start(place.ckpt().arg("check").arg(job.pid().to_string()))?.end()?;
    let image = place.file("outside.ckpt");
    let saved = place.try_save(job.pid(), &image, &[])?;
    if saved.code() == Some(0) {
        ensure!(checked.code() == Some(0), "{saved:#?} {checked:#?}");
        return Ok(fs::remove_file(image)?);
    }
    let said = saved.err.lines().last().and_then(|line| line.strip_prefix("ckpt: ")).unwrap_or_default();
    ensure!(!said.is_empty() && checked.out.lines().any(|line| line == said), "{saved:#?} {checked:#?}");
    ensure!(checked.code() == saved.code(), "{saved:#?} {checked:#?}");
    Ok(())
}

/// Whether it does so of the process of this test.
pub fn is_told(name: &str) -> bool {
    !UNTOLD.contains(&name)
}
