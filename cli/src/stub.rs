//! The restart stub as something to execute: the one built into this program, or the file beside it.
//!
//! The stub becomes the program, under the id of the process that executes it. Must never leave its file open in it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{Args, ValueEnum};
use image_format::ExitCode;
use loader::embedded;
use rustix::fs::MemfdFlags;
use sys::credentials::{self, CHECKPOINT_RESTORE};

use crate::bundle;
use crate::failure::{Failure, reason};
use crate::text;

/// The stub's file name, also what it calls itself in messages.
const NAME: &str = "restart-stub";

/// What is said where `/proc` is missing.
const NO_PROC: &str = "/proc: is not mounted: mount it (mount -t proc proc /proc)";

/// What to do about open files that are no longer as they were.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Files {
    /// Refuse, and say which file and what to do
    Verify,
    /// Cut grown files back to their saved size; the tail is kept beside them as FILE.after-restart.N
    Rollback,
    /// Take them as they are
    Ignore,
}

/// What to do when this CPU lacks features that the program may use.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Cpu {
    /// Refuse, and list them
    Verify,
    /// Try
    Ignore,
}

/// The stub's own options.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// Open files that have changed since the save [default: verify]
    #[arg(long, value_name = "POLICY")]
    pub files: Option<Files>,
    /// Give the program PATH as its descriptor N (repeatable)
    #[arg(long, value_name = "N=PATH", value_parser = redirect)]
    pub fd: Vec<OsString>,
    /// Paths of the program that begin with OLD begin with NEW here (repeatable)
    #[arg(long, value_name = "OLD=NEW", value_parser = paths)]
    pub map_path: Vec<OsString>,
    /// A CPU that lacks features which the saved one had [default: verify]
    #[arg(long, value_name = "POLICY")]
    pub cpu: Option<Cpu>,
    /// Wait so long at most for a port or a lock that another process has: 30s, 2m [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub retry: Option<Duration>,
    /// Restart an image that others could have written: it is code that runs as you
    #[arg(long)]
    pub trust: bool,
    /// As root: give the program root's rights, and not those of the user whose it was
    #[arg(long)]
    pub as_root: bool,
    /// Say on standard error what is done
    #[arg(short, long)]
    pub verbose: bool,
}

impl Options {
    /// Nothing but a files policy.
    pub fn with_files(files: Files) -> Self {
        Self { files: Some(files), ..Self::default() }
    }

    /// As they were given.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut out: Vec<OsString> = Vec::new();
        if let Some(name) = self.files.and_then(word) {
            out.extend(["--files".into(), name]);
        }
        for redirect in &self.fd {
            out.extend(["--fd".into(), redirect.clone()]);
        }
        for paths in &self.map_path {
            out.extend(["--map-path".into(), paths.clone()]);
        }
        if let Some(name) = self.cpu.and_then(word) {
            out.extend(["--cpu".into(), name]);
        }
        if let Some(time) = self.retry {
            let seconds = format!("{}s", time.as_millis().div_ceil(1000));
            out.extend(["--retry".into(), seconds.into()]);
        }
        out.extend(self.trust.then(|| "--trust".into()));
        out.extend(self.as_root.then(|| "--as-root".into()));
        out.extend(self.verbose.then(|| "-v".into()));
        out
    }
}

/// A choice as it is written on a command line.
pub fn word(choice: impl ValueEnum) -> Option<OsString> {
    choice.to_possible_value().map(|value| value.get_name().into())
}

/// `N=PATH`.
pub fn redirect(text: &str) -> Result<OsString, String> {
    let (number, path) = text.split_once('=').ok_or("give it as N=PATH, for example 3=/tmp/fifo")?;
    let number: Result<i32, _> = number.parse();
    if number.is_ok_and(|n| n >= 0) && !path.is_empty() {
        return Ok(text.into());
    }
    Err("give it as N=PATH with a descriptor's number, for example 3=/tmp/fifo".to_owned())
}

/// Two absolute paths; a slash at their ends says nothing, and the root has no name but that.
pub fn paths(text: &str) -> Result<OsString, String> {
    let (old, new) = text.split_once('=').unwrap_or_default();
    if old.starts_with('/') && new.starts_with('/') {
        return Ok(format!("{}={}", old.trim_end_matches('/'), new.trim_end_matches('/')).into());
    }
    Err("give it as OLD=NEW with absolute paths, for example /home/me=/data/me".to_owned())
}

/// The stub on an image, ready to be executed.
#[derive(Debug)]
pub struct Stub {
    /// What to execute, while the value lives.
    pub command: Command,
    /// Open until the exec closes it.
    _file: Option<File>,
}

impl Stub {
    /// Finds it.
    pub fn new(image: &Path, options: &Options, more: &[OsString]) -> Result<Self, Failure> {
        // A bundle is its own stub.
        let joined = bundle::is_one(image);
        let (file, program) =
            if joined { (None, std::path::absolute(image).unwrap_or_else(|_| image.into())) } else { find()? };
        let mut command = Command::new(&program);
        command.arg0(NAME).args(options.arguments()).args(more);
        if has_right_by_file() {
            command.arg("--lent");
            let keep = || credentials::keep(CHECKPOINT_RESTORE).map_err(|e| io::Error::from_raw_os_error(e.into_raw()));
            // SAFETY: in a child, or in front of the exec, it makes system calls and nothing else.
            unsafe { command.pre_exec(keep) };
        }
        // The dashes end the options, whatever the image is called.
        if !joined {
            command.arg("--").arg(image);
        }
        Ok(Self { command, _file: file })
    }

    /// Replaces this process; returns only what went wrong.
    pub fn exec(mut self) -> Failure {
        let error = self.command.exec();
        let program = text::path(Path::new(self.command.get_program()));
        let what = format_args!("{program}: the restart stub cannot be executed: {}", reason(&error)).to_string();
        Failure::new(ExitCode::NotInstalled, what)
    }
}

/// Whether this command has the right to choose ids by its own file's capability (`setcap cap_checkpoint_restore+p ckpt`): an exec loses it.
fn has_right_by_file() -> bool {
    // Where nobody can say it the stub goes without, as every other program.
    let is_kept = || credentials::is_kept(CHECKPOINT_RESTORE) != Ok(false);
    sys::process::effective_uid() != 0 && use_right_by_file() == Ok(true) && !is_kept()
}

/// Makes that right effective, if this command has it.
pub fn use_right_by_file() -> sys::Result<bool> {
    let [effective, permitted, inheritable] = credentials::capabilities()?;
    let right = permitted & 1 << CHECKPOINT_RESTORE;
    if right & !effective != 0 {
        credentials::set_capabilities([effective | right, permitted, inheritable])?;
    }
    Ok(right != 0)
}

/// The stub's bytes: those in this program, else of the file beside it.
pub fn bytes() -> Result<Vec<u8>, Failure> {
    if embedded::is_present() {
        return Ok(embedded::STUB.to_vec());
    }
    let (_, path) = find()?;
    std::fs::read(&path).map_err(|e| Failure::unreadable(&path, "the restart stub cannot be read", &e))
}

/// The stub as something to execute: in memory, else beside this program. The file is open until the exec closes it.
fn find() -> Result<(Option<File>, PathBuf), Failure> {
    if embedded::is_present()
        && let Ok(file) = in_memory(embedded::STUB)
    {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        return Ok((Some(file), path.into()));
    }
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(NAME));
    match beside {
        Some(path) if path.is_file() => Ok((None, path)),
        _ if !Path::new("/proc/self/fd").exists() => Err(Failure::new(ExitCode::Kernel, NO_PROC)),
        _ => Err(Failure::new(
            ExitCode::NotInstalled,
            "restart-stub: not built into this program and not found beside it: install it there, or build with `cargo xtask dist`",
        )),
    }
}

fn in_memory(stub: &[u8]) -> io::Result<File> {
    let file = rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(stub)?;
    // An executable that is open for writing is busy: go on with a descriptor that only reads.
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
