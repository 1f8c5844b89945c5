//! `ckpt run`: starts a program, or lets its image go on if there is one, stays its parent, and saves it from outside.
//!
//! The program is as it would be without this command: no library, no environment variable, no descriptor more. Must
//! never save one that is not itself yet: a stub at work would take the good image's place.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use image_format::ExitCode;

use crate::command::save::Tcp;
use crate::compress::Compression;
use crate::failure::{Failure, reason};
use crate::restart;
use crate::run::{portable, program, saves::Saves};
use crate::signal::Signal;
use crate::stub::{self, Files};
use crate::supervise::birth::{Child, Place, Setup, Sign, pipe};
use crate::supervise::inbox::Inbox;
use crate::supervise::proxy::Proxy;
use crate::supervise::terminal::Terminal;
use crate::text;

/// Start a program that can be saved, or let it go on from its image
#[derive(Debug, clap::Args)]
#[command(
    after_help = "If IMAGE is there, the program goes on from it and PROG is not started. On SIGTERM the program is \
saved and ends with the exit code of --exit-code, so that a batch system starts the same command again."
)]
pub struct Args {
    /// Where to save [default: PROG's name with .ckpt, in the working directory]
    #[arg(short, long, value_name = "IMAGE")]
    output: Option<PathBuf>,
    /// A signal to this command on which it saves the program, which goes on (repeatable)
    #[arg(long, value_name = "SIGNAL", default_value = "USR1")]
    signal: Vec<Signal>,
    /// Save this often as well: 90s, 10m, 1h 30m
    #[arg(long, value_name = "TIME", value_parser = period)]
    every: Option<Duration>,
    /// The exit code after a save on SIGTERM
    #[arg(long, value_name = "CODE", default_value = "85")]
    exit_code: u8,
    /// Open files that have changed since the save
    #[arg(long, value_name = "POLICY", default_value = "rollback")]
    files: Files,
    /// TCP connections to other processes
    #[arg(long, value_name = "POLICY", default_value = "refuse")]
    tcp: Tcp,
    /// Start the program so that its image runs on any CPU with AVX2 (x86-64-v3); see docs/limits.md for what cannot be told so
    #[arg(long)]
    portable: bool,
    /// Compress the image: zstd, or zstd:N with a level N from 1 (fast) to 19 (small)
    #[arg(long, value_name = "METHOD")]
    compress: Option<Compression>,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROG")]
    program: Vec<OsString>,
}

fn period(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(period) if period >= Duration::from_secs(1) => Ok(period),
        Ok(_) => Err("the shortest is 1s".to_owned()),
        Err(_) => Err("give it as 90s, 10m or 1h 30m".to_owned()),
    }
}

/// Returns what went wrong before the program ran, or how it ended.
pub fn main(args: Args) -> Result<(), Failure> {
    let Some((name, arguments)) = args.program.split_first() else {
        return Err(Failure::usage("no program given"));
    };
    let tcp = args.tcp.checked(false)?;
    let image = image_path(args.output.as_deref(), Path::new(name))?;
    let goes_on = image.symlink_metadata().is_ok();
    let program = if goes_on { PathBuf::new() } else { program::find(name)? };
    writable(&image)?;
    let inbox = Inbox::open()?;
    let terminal = Terminal::open();
    let place = Place::beside_us(terminal.as_ref());
    let child = if goes_on {
        let options = stub::Options::with_files(args.files);
        restart::supervised(&image, &options, &inbox, place, terminal.as_ref())?
    } else {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(&program);
        command.arg0(name).args(arguments);
        if args.portable {
            portable::prepare(&mut command);
        }
        let (news, tell) = pipe()?;
        let setup = Setup { id: None, place, dies_with_us: true, namespace: None, terminal: terminal.as_ref() };
        Child::start(&inbox, &setup, command, news, Sign::Exec, tell)?
    };
    let mut saves = Saves::new(child.pid, image, args.signal, args.every, args.exit_code);
    saves.compression = args.compress;
    saves.tcp = tcp;
    Err(Proxy { inbox: &inbox, child, terminal: terminal.as_ref() }.run(&mut saves))
}
/// The image's absolute path: the program may change its directory before the library looks.
fn image_path(given: Option<&Path>, program: &Path) -> Result<PathBuf, Failure> {
    let path = match (given, program.file_name()) {
        (Some(path), _) => path.to_owned(),
        (None, Some(name)) => {
            let mut name = name.to_owned();
            name.push(".ckpt");
            name.into()
        }
        (None, None) => return Err(Failure::usage("the program has no name: give an image with -o")),
    };
    let what = |e| Failure::new(ExitCode::SaveFailed, format_args!("{}: {}", text::path(&path), reason(&e)));
    std::path::absolute(&path).map_err(what)
}

/// Better to hear of a wrong directory now than at the first save.
fn writable(image: &Path) -> Result<(), Failure> {
    let dir = image.parent().unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(dir, access).map_err(|errno| {
        let what = format_args!(
            "{}: no image can be saved there: {}: choose another with -o",
            text::path(dir),
            reason(&errno.into())
        )
        .to_string();
        Failure::new(ExitCode::SaveFailed, what)
    })
}
