//! Trying something in a child process, so that whatever it does ends with it.

use std::fs::File;
use std::io::{Read, Write};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::reason;
use crate::supervise::pipe;

/// What a trial gives: nothing more than that it works, or why not.
pub type Outcome = Result<(), String>;

/// The kernel's word.
pub fn word(error: impl crate::failure::Number) -> String {
    reason(&std::io::Error::from_raw_os_error(error.number()))
}

/// Tries it in a child.
pub fn in_child(trial: impl FnOnce() -> Outcome) -> Outcome {
    let Ok((read, write)) = pipe() else { return Err("no descriptors left".to_owned()) };
    // SAFETY: this command has one thread.
    let pid = unsafe { sys::child::fork(None) }.map_err(word)?;
    if pid == 0 {
        drop(read);
        let said = trial().err().unwrap_or_default();
        let _ = File::from(write).write_all(if said.is_empty() { b"+" } else { said.as_bytes() });
        sys::process::exit(0);
    }
    drop(write);
    let mut said = String::new();
    let _ = File::from(read).read_to_string(&mut said);
    let _ = sys::child::wait(pid, true);
    match said.as_str() {
        "+" => Ok(()),
        "" => Err("the trial was ended".to_owned()),
        _ => Err(said),
    }
}

/// Calls `look` with the pid of a child that waits.
pub fn with_child<T>(look: impl FnOnce(i32) -> T) -> Result<T, String> {
    // SAFETY: this command has one thread.
    let pid = unsafe { sys::child::fork(None) }.map_err(word)?;
    let Some(child) = Pid::from_raw(pid) else { sys::probe::sleep() };
    let seen = look(pid);
    let _ = kill_process(child, Signal::KILL);
    let ended = |change| matches!(change, sys::child::Change::Exited(_) | sys::child::Change::Killed(_));
    while let Ok(Some((_, change))) = sys::child::wait(pid, true)
        && !ended(change)
    {}
    Ok(seen)
}
