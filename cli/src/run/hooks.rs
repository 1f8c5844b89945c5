//! Commands of the user's that `ckpt run` starts beside the program: after a save, and when one has failed.
//!
//! Must never be waited for while the program runs; one of a kind at a time, and one more in line.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::speaker::Speaker;
use crate::text;

/// A command for a shell.
#[derive(Debug)]
pub struct Hook {
    /// As it was asked for, for messages.
    option: &'static str,
    command: OsString,
    image: PathBuf,
    /// The signals that are blocked in it.
    mask: u64,
    running: Option<i32>,
    /// What the next one is to be told.
    queued: Option<String>,
}

impl Hook {
    /// Of this option's value; `mask`: signals that it has blocked.
    pub fn new(option: &'static str, command: OsString, image: PathBuf, mask: u64) -> Self {
        Self { option, command, image, mask, running: None, queued: None }
    }

    /// Starts it, or once more when it has ended; `reason` is its argument.
    pub fn start(&mut self, reason: &str, speaker: &mut Speaker) {
        self.queued = Some(reason.to_owned());
        self.next(speaker);
    }

    /// Whether a child was this one's, which has ended; `failed`: not well.
    pub fn has_ended(&mut self, pid: i32, failed: bool, speaker: &mut Speaker) -> bool {
        if self.running.take_if(|running| *running == pid).is_none() {
            return false;
        }
        if failed {
            speaker.trouble(format_args!(
                "{}: `{}` has failed",
                self.option,
                text::plain(self.command.as_encoded_bytes())
            ));
        }
        self.next(speaker);
        true
    }

    /// Waits until it has ended, and what is in line, too.
    pub fn finish(&mut self, speaker: &mut Speaker) {
        while let Some(pid) = self.running {
            let end = sys::child::wait(pid, true);
            let failed = !matches!(end, Ok(Some((_, sys::child::Change::Exited(0)))));
            if matches!(end, Ok(Some((_, sys::child::Change::Stopped(_) | sys::child::Change::Continued)))) {
                continue;
            }
            self.has_ended(pid, failed, speaker);
        }
    }

    fn next(&mut self, speaker: &mut Speaker) {
        if self.running.is_some() {
            return;
        }
        let Some(reason) = self.queued.take() else { return };
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(&self.command).env("CKPT_RUN_IMAGE", &self.image).env("CKPT_RUN_REASON", reason);
        // What it prints is no output of the program's.
        command.stdin(Stdio::null()).stdout(std::io::stderr());
        let mask = self.mask;
        // SAFETY: between fork and exec it makes a system call and nothing else.
        unsafe {
            command.pre_exec(move || {
                sys::signal::set_mask(mask).map(drop).map_err(|e| std::io::Error::from_raw_os_error(e.into_raw()))
            })
        };
        match command.spawn() {
            Ok(child) => self.running = i32::try_from(child.id()).ok(),
            Err(e) => {
                speaker.trouble(format_args!(
                    "{}: /bin/sh cannot be executed: {}",
                    self.option,
                    crate::failure::reason(&e)
                ));
            }
        }
    }
}
