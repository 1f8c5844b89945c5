//! `ckpt receive`: the other end of `ckpt migrate`, started by it through ssh.
//!
//! Must never start a program before the sender says so, nor leave one running that it could not report.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use image_format::ExitCode;
use image_format::record::descriptor::Descriptor;
use image_format::record::pipe::{Pipe, PipeData};
use image_format::record::process::FD_MASK;
use image_format::record::terminal::Terminal;
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Failure, reason};
use crate::handover::{GO, HELLO, Joined, RECEIVED, line};
use crate::pidfile::PidFile;
use crate::restart::{self, Source};
use crate::whose::Whose;
use crate::{spool, stub, text};

/// The other end of `ckpt migrate`, which starts it there
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Takes the image from standard input and answers on standard output, in a language of their own."
)]
pub struct Args {
    #[command(flatten)]
    options: stub::Options,
    #[command(flatten)]
    whose: Whose,
    /// What takes the place of the program's terminal or pipe, when it writes [default: ckpt-PID.out]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the program's process id to FILE
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
}

/// Takes the image, starts the program, says so.
pub fn main(args: Args) -> Result<(), Failure> {
    say(HELLO)?;
    take_over(args).map_err(|failure| {
        let (code, message) = failure.into_parts();
        // Nobody is left to tell when this fails.
        let _ = say(&format!("failed {code} {message}"));
        Failure::status(code)
    })
}

fn take_over(mut args: Args) -> Result<(), Failure> {
    args.whose.check()?;
    let pidfile = args.pidfile.as_deref().map(PidFile::prepare).transpose()?;
    let mut from = BufReader::with_capacity(1 << 20, io::stdin());
    let name = Path::new("image");
    let source = Source::kept(name, spool::keep_stream(name, Joined::new(&mut from))?)?;
    let streams = Streams::of(&source, &args)?;
    args.options.fd.extend(streams.redirects());
    say(RECEIVED)?;
    let asked = line(&mut from).ok().flatten();
    if asked.as_deref() != Some(GO) {
        return Err(Failure::new(ExitCode::SaveFailed, "the other end has left: nothing was started"));
    }
    let pid = restart::detached(&source, &args.options, &args.whose, pidfile)?;
    let file = streams.keep();
    let runs = format!("runs {} {}", pid.as_raw_nonzero(), file.as_deref().map(text::path).unwrap_or_default());
    say(&runs).inspect_err(|_| ended(pid))
}

/// Who was not told that the program runs here lets it go on there.
fn ended(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}

fn say(what: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let said = writeln!(out, "{what}").and_then(|()| out.flush());
    said.map_err(|e| Failure::new(ExitCode::SaveFailed, format_args!("standard output: {}", reason(&e))))
}

/// What takes the place of the program's terminal, and of pipes that led outside, as standard input, output and error.
#[derive(Debug)]
struct Streams {
    numbers: Vec<(u32, bool)>,
    output: PathBuf,
    made: bool,
}

impl Streams {
    fn of(source: &Source, args: &Args) -> Result<Self, Failure> {
        let (image, pid) = source.image()?;
        let checked = image.checked()?;
        let fault = |fault| image.fault(fault);
        let inner = checked.image.table::<PipeData>().map_err(fault)?;
        let mut outside = Vec::new();
        for terminal in checked.image.table::<Terminal>().map_err(fault)? {
            outside.push((terminal.id, terminal.flags.get()));
        }
        for pipe in checked.image.table::<Pipe>().map_err(fault)? {
            if pipe.named.get() == 0 && inner.binary_search_by_key(&pipe.pipe.get(), |data| data.pipe.get()).is_err() {
                outside.push((pipe.id, pipe.flags.get()));
            }
        }
        let asked = |fd: u32| args.options.fd.iter().any(|r| r.as_bytes().starts_with(format!("{fd}=").as_bytes()));
        let mut numbers = Vec::new();
        for descriptor in checked.image.table::<Descriptor>().map_err(fault)? {
            let fd = descriptor.fd.get() & FD_MASK;
            if let Some((_, flags)) = outside.iter().find(|(id, _)| *id == descriptor.file)
                && fd <= 2
                && !asked(fd)
                && !numbers.iter().any(|(known, _)| *known == fd)
            {
                numbers.push((fd, fd != 0 && flags & sys::abi::O_ACCMODE != sys::abi::O_RDONLY));
            }
        }
        let name = args.output.clone().unwrap_or_else(|| format!("ckpt-{pid}.out").into());
        let output = std::path::absolute(&name).unwrap_or(name);
        let mut made = false;
        if numbers.iter().any(|(_, writes)| *writes) {
            let failed = |e: io::Error| {
                let what = format_args!("{}: cannot be opened for its output: {}", text::path(&output), reason(&e))
                    .to_string();
                Failure::new(ExitCode::Descriptor, what)
            };
            made = !output.exists();
            let open = OpenOptions::new().append(true).create(true).mode(0o600).open(&output);
            open.map(|_: File| ()).map_err(failed)?;
        }
        Ok(Self { numbers, output, made })
    }

    /// As options of the stub.
    fn redirects(&self) -> impl Iterator<Item = std::ffi::OsString> {
        self.numbers.iter().map(|(fd, writes)| {
            let mut redirect = std::ffi::OsString::from(format!("{fd}="));
            redirect.push(if *writes { self.output.as_path() } else { Path::new("/dev/null") });
            redirect
        })
    }

    /// The program has it now: where its output goes.
    fn keep(mut self) -> Option<PathBuf> {
        self.made = false;
        let writes = self.numbers.iter().any(|(_, writes)| *writes);
        writes.then(|| std::mem::take(&mut self.output))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        if self.made {
            let _ = std::fs::remove_file(&self.output);
        }
    }
}
