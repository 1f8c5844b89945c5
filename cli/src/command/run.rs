//! `ckpt run`: starts a program, or lets its image go on if there is one, stays its parent, and saves it from outside.
//!
//! The program is as it would be without this command: no library, no environment variable, no descriptor more. Must
//! never save one that is not itself yet: a stub at work would take the good image's place.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use image_format::ExitCode;
use loader::supervise::{End, Inbox, Place, Proxy, Terminal};
use state::process::restarting;

use crate::command::save::{Tcp, WithFiles};
use crate::compress::Compression;
use crate::failure::{Failure, errno, reason};
use crate::restart;
use crate::run::attempt::How;
use crate::run::hooks::Hook;
use crate::run::images;
use crate::run::job::Job;
use crate::run::lock::Lock;
use crate::run::resumed::Resumed;
use crate::run::saves::{Plan, Saves};
use crate::run::speaker::{Level, Speaker};
use crate::run::{low_ids, portable, program, streams};
use crate::signal::Signal;
use crate::stub::{self, Files};
use crate::supervise::{self, Child};
use crate::text;

/// Start a program that can be saved, or let it go on from its image
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "If IMAGE is there, the program goes on from it and PROG is not started; an image of another command is refused. \
On SIGTERM the program is saved and ends with the exit code of --exit-code, so that a batch system starts the same command again. \
When the program has ended with 0, its image is IMAGE.done, and the next run begins anew."
)]
pub struct Args {
    /// Where to save [default: a name made of PROG, its arguments and .ckpt, in the working directory]
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
    /// When it goes on: wait so long at most for a port or a lock that another process has
    #[arg(long, value_name = "TIME", default_value = "70s", value_parser = humantime::parse_duration)]
    retry: Duration,
    /// When it goes on: give the program PATH as its descriptor N, or this command's own (inherit), or an end whose other side is gone
    /// (closed); repeatable
    #[arg(long, value_name = "N=PATH", value_parser = stub::redirect)]
    fd: Vec<OsString>,
    /// When it goes on: paths of the program that begin with OLD begin with NEW here (repeatable)
    #[arg(long, value_name = "OLD=NEW", value_parser = stub::paths)]
    map_path: Vec<OsString>,
    /// As root, when it goes on: give the program root's rights, and not those of the user whose it was
    #[arg(long)]
    as_root: bool,
    /// Carry the contents of open files, too, for where they are missing: those it writes (the default), or all; without it, small ones
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "written")]
    with_files: Option<WithFiles>,
    /// Start the program with descriptor N of this command, besides 0, 1 and 2 (repeatable)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    keep_fd: Vec<i32>,
    /// Start the program so that its image runs on any CPU with AVX2 (x86-64-v3); see docs/limits.md for what cannot be told so
    #[arg(long)]
    portable: bool,
    /// Compress the image: zstd, or zstd:N with a level N from 1 (fast) to 19 (small)
    #[arg(long, value_name = "METHOD")]
    compress: Option<Compression>,
    /// How many images are kept: IMAGE, the one before as IMAGE.1, and so on
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=i64::from(images::KEPT_MAX)))]
    keep: u32,
    /// Begin anew although IMAGE is there; it is kept as IMAGE.aside.N
    #[arg(long)]
    fresh: bool,
    /// A command for sh after each save: CKPT_RUN_IMAGE is the image; CKPT_RUN_REASON is save, or end
    #[arg(long, value_name = "COMMAND")]
    on_save: Option<OsString>,
    /// The same when a save has failed; CKPT_RUN_REASON says why
    #[arg(long, value_name = "COMMAND")]
    on_failure: Option<OsString>,
    /// The same once this command was asked for the end, the program has ended, and an image is there to go on from
    #[arg(long, value_name = "COMMAND")]
    on_end: Option<OsString>,
    /// Say only what is wrong
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more: each save
    #[arg(short, long)]
    verbose: bool,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROG")]
    program: Vec<OsString>,
}

impl Args {
    fn level(&self) -> Level {
        match (self.quiet, self.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        }
    }

    /// The options of a restart.
    fn options(&self) -> stub::Options {
        let (fd, map_path) = (self.fd.clone(), self.map_path.clone());
        stub::Options {
            fd,
            map_path,
            as_root: self.as_root,
            retry: Some(self.retry),
            ..stub::Options::with_files(self.files)
        }
    }

    /// The program to start.
    fn command(&self) -> Result<Command, Failure> {
        let Some((name, arguments)) = self.program.split_first() else {
            return Err(Failure::usage("no program given"));
        };
        let mut command = Command::new(program::find(name)?);
        command.arg0(name).args(arguments);
        keep_only(&mut command, self.keep_fd.clone())?;
        if self.portable {
            portable::prepare(&mut command);
        }
        Ok(command)
    }

    fn plan(&self, how: &How, from: Option<Resumed>, inbox: &Inbox, has_older: bool) -> Plan {
        let hook = |option, command: &Option<OsString>| {
            command.clone().map(|command| Hook::new(option, command, how.image.clone(), inbox.mask()))
        };
        Plan {
            on_save: hook("--on-save", &self.on_save),
            on_failure: hook("--on-failure", &self.on_failure),
            on_end: hook("--on-end", &self.on_end),
            signals: self.signal.clone(),
            every: self.every,
            exit_code: self.exit_code,
            saved: from.as_ref().map(|from| from.saved),
            how: from.as_ref().map_or_else(|| how.clone(), |from| how.after(from.generation, from.reopened)),
            resumed: from.map(|from| (from.words, from.rollback)),
            has_older,
        }
    }
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
    let tcp = args.tcp.checked(false)?;
    let job = Job::new(&args.program)?;
    let image = image_path(args.output.as_deref(), &job)?;
    images::refuse_others(&image)?;
    let mut speaker = Speaker::new(args.level(), Lock::take(&image)?);
    if args.fresh
        && let Some(aside) = images::set_aside(&image)?
    {
        speaker.say(format_args!("{}: begins anew: the old image is {}", text::path(&image), text::path(&aside)));
    }
    let mut images = images::all(&image);
    let inbox = Inbox::open().map_err(supervise::no_signals)?;
    let terminal = Terminal::open();
    let how = How {
        image,
        job,
        generation: 0,
        keep: args.keep,
        tcp,
        with_files: args.with_files.map_or_else(streams::but_own, WithFiles::into),
        compression: args.compress,
    };
    let place = Place::beside_us(terminal.as_ref());
    // Who saves this command's process means the program.
    let mark = restarting::announce();
    loop {
        let found = Resumed::find(&mut images, &how.job, || args.options(), &mut speaker)?;
        let child = match &found {
            Some((from, options)) => match restart::supervised(&from.source, options, &inbox, place) {
                Err(failure) if images::is_damage(failure.code()) && !images.is_empty() => {
                    give_up(&from.path, &mut speaker)?;
                    continue;
                }
                child => child?,
            },
            None => {
                speaker.forget_last();
                let command = args.command()?;
                speaker.say(format_args!("{}: starts `{}`", text::path(&how.image), how.job.line()));
                low_ids::leave_behind().map_err(|e| errno("a process: cannot be made", e))?;
                Child::fresh(&inbox, place, terminal.as_ref(), command)?
            }
        };
        if let Some(mark) = mark {
            mark.supervises(child.pid);
        }
        let from = found.map(|(from, _)| from);
        let path = from.as_ref().map(|from| from.path.clone());
        let plan = args.plan(&how, from, &inbox, !images.is_empty());
        let mut saves = Saves::new(child, plan, speaker);
        let (child, place, pipe) = saves.child();
        let end = Proxy { inbox: &inbox, child, place, pipe, terminal: terminal.as_ref() }.run(&mut saves);
        let Some(path) = path.filter(|_| saves.is_damaged()) else {
            return Err(match end {
                End::Status(status) => Failure::status(status),
                End::Failed => saves.failure(),
            });
        };
        speaker = saves.into_speaker();
        give_up(&path, &mut speaker)?;
    }
}

/// The stub has found an image damaged, and there is an older one.
fn give_up(image: &Path, speaker: &mut Speaker) -> Result<(), Failure> {
    Resumed::put_away(image, &format!("{}: is damaged", text::path(image)), speaker)
}

/// Lets the program have standard input, output, error and these descriptors alone: what a terminal, a build tool or a CI runner has left
/// open would be in its image, and no restart elsewhere could give it.
fn keep_only(command: &mut Command, mut kept: Vec<i32>) -> Result<(), Failure> {
    kept.sort_unstable();
    kept.dedup();
    if let Some(fd) = kept.iter().find(|fd| sys::fs::fcntl(**fd, sys::abi::F_GETFD, 0).is_err()) {
        return Err(Failure::usage(&format!("--keep-fd {fd}: this command has no such descriptor")));
    }
    let close = move || {
        let mut first = 3;
        for fd in kept.iter().map(|fd| fd.unsigned_abs()).chain([u32::MAX]) {
            if first < fd {
                sys::fs::close_range_on_exec(first, if fd == u32::MAX { fd } else { fd - 1 })?;
            }
            first = fd.saturating_add(1);
        }
        Ok(())
    };
    let close = move || close().map_err(|e: sys::Errno| std::io::Error::from_raw_os_error(e.into_raw()));
    // SAFETY: between fork and exec it makes system calls and nothing else.
    unsafe { command.pre_exec(close) };
    Ok(())
}

/// The image's absolute path: the program may change its directory later.
fn image_path(given: Option<&Path>, job: &Job) -> Result<PathBuf, Failure> {
    let path = given.map_or_else(|| job.image_name(), Path::to_owned);
    if path.file_name().is_none() {
        return Err(Failure::usage("the image's path has no file name: give another with -o"));
    }
    let what = |e| Failure::new(ExitCode::SaveFailed, format_args!("{}: {}", text::path(&path), reason(&e)));
    std::path::absolute(&path).map_err(what)
}
