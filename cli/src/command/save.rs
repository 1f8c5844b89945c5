//! `ckpt save`: saves a running process by its pid, from outside.
//!
//! Must never end the process unless its image is durable.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ckpt::output::Placing;
use ckpt::remote::{self, Report};
use image_format::ExitCode;

use crate::apart;
use crate::compress::Compression;
use crate::failure::{Failure, reason};
use crate::ipc;
use crate::outside;
use crate::progress::{Bar, Progress};
use crate::reach;
use crate::saver::{self, To};
use crate::stdout;
use crate::text;

/// How far it is.
static PROGRESS: Progress = Progress::new();

/// Save a running process, which needs no preparation, and let it go on
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The process stands still only while a copy-on-write copy of it is made; the copy is then written while the \
process goes on. `ckpt check PID` lists what would block a save."
)]
pub struct Args {
    /// Its process id
    #[arg(value_parser = process)]
    pid: i32,
    /// Where to save, or - for standard output [default: PID.ckpt, in the working directory]
    #[arg(short, long, value_name = "IMAGE")]
    output: Option<PathBuf>,
    /// Replace a file that is no image, too
    #[arg(long)]
    force: bool,
    /// End the process when its image is durable; it stands still until then
    #[arg(long)]
    kill: bool,
    /// Let the process stand still until the image is written
    #[arg(long)]
    freeze: bool,
    /// TCP connections to other processes
    #[arg(long, value_name = "POLICY", default_value = "refuse")]
    tcp: Tcp,
    /// Carry the contents of open files, too, for where they are missing: those it writes (the default), or all
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "written")]
    with_files: Option<WithFiles>,
    /// Compress the image: zstd, or zstd:N with a level N from 1 (fast) to 19 (small)
    #[arg(long, value_name = "METHOD")]
    compress: Option<Compression>,
    /// Print nothing when all went well
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more: threads, and why a save was not live
    #[arg(short, long)]
    verbose: bool,
}

/// A process id, or why it is none.
pub fn process(text: &str) -> Result<i32, String> {
    match text.parse::<i64>() {
        Ok(pid @ 1..=0x7fff_ffff) => Ok(pid as i32),
        Ok(_) => Err("no process id: give one above 0".to_owned()),
        Err(_) => Err(format!("no process id: `pgrep {text}` finds it by its name")),
    }
}

/// What becomes of TCP connections to other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tcp {
    /// The save is refused
    Refuse,
    /// The restarted program finds them reset
    Close,
    /// They are carried, which takes root; only where the save ends the process, and nothing comes for them until the restart
    Keep,
}

impl Tcp {
    /// For a save that ends the process, or not.
    pub fn checked(self, kills: bool) -> Result<remote::Tcp, Failure> {
        match self {
            Self::Refuse => Ok(remote::Tcp::Refuse),
            Self::Close => Ok(remote::Tcp::Reset),
            Self::Keep if kills => Ok(remote::Tcp::Keep),
            Self::Keep => {
                Err(Failure::usage("--tcp keep is for ckpt save with --kill: a connection cannot go on twice"))
            }
        }
    }
}

/// Which open files' contents are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WithFiles {
    /// Those that are open for writing
    Written,
    /// All
    All,
}

impl From<WithFiles> for state::WithFiles {
    fn from(which: WithFiles) -> Self {
        match which {
            WithFiles::Written => Self::Written,
            WithFiles::All => Self::All,
        }
    }
}

/// Saves and prints one line.
pub fn main(args: Args) -> Result<(), Failure> {
    let path = args.output.unwrap_or_else(|| format!("{}.ckpt", args.pid).into());
    let stream = path == Path::new("-");
    let to = if stream { To::Stream(standard_output()?) } else { To::File(&path) };
    let with_files = args.with_files.map_or(state::WithFiles::None, WithFiles::into);
    let tcp = args.tcp.checked(args.kill)?;
    let (freeze, kill) = (args.freeze, args.kill);
    let options = remote::Options {
        freeze,
        kill,
        tcp,
        with_files,
        placing: Placing { force: args.force, ..Placing::default() },
        given_up: Some(apart::is_given_up),
        progress: Some(&PROGRESS),
        ..remote::Options::default()
    };
    // Asked for while all of its processes are there.
    let mut may_lead = false;
    let mut words = if args.quiet {
        Vec::new()
    } else {
        let all = ipc::tree(args.pid);
        may_lead = !stream && args.compress.is_none() && outside::may_lead(&all);
        [reach::beyond(&all), ipc::used(args.pid, all)].concat()
    };
    let bar = (!args.quiet).then(|| Bar::new("saving", &PROGRESS));
    let saved = saver::save(args.pid, to, options, args.compress);
    drop(bar);
    let report = saved?;
    if args.quiet {
        return Ok(());
    }
    if may_lead {
        words.extend(outside::pipes(&path)?);
    }
    words.extend(report.shielded.as_ref().map(shielded));
    for line in words {
        eprintln!("ckpt: {line}");
    }
    if report.confined != 0 {
        let whom = if report.confined == 1 { "the process" } else { "processes" };
        let what = "what Landlock, or another security module, forbids is not in the image";
        eprintln!("ckpt: {whom}: {what}: restart inside the same restrictions");
    }
    let line = line(if stream { "standard output".to_owned() } else { text::path(&path) }, &report, args.verbose);
    if !stream {
        return stdout::print(line);
    }
    eprint!("{line}");
    Ok(())
}

fn standard_output() -> Result<OwnedFd, Failure> {
    let out = std::io::stdout();
    if rustix::termios::isatty(&out) {
        return Err(Failure::usage("an image is not written to a terminal: redirect standard output, or name a file"));
    }
    out.as_fd()
        .try_clone_to_owned()
        .map_err(|e| Failure::new(ExitCode::SaveFailed, format_args!("standard output: {}", reason(&e))))
}

/// What is to be known of connections until the restart.
fn shielded(shielded: &remote::Shielded) -> String {
    let count = text::count(shielded.count, "TCP connection");
    match &shielded.by {
        Ok(name) => format!(
            "{count} to other processes: until the restart, tables of nftables named {} let nothing of them in; it takes them away",
            name.as_str()
        ),
        Err(e) => format!(
            "{count} to other processes: nothing keeps their packets out until the restart ({e}), and one that comes ends its connection: \
             iptables -I INPUT -p tcp -s PEER --sport PORT --dport PORT -j DROP, and -D afterwards"
        ),
    }
}

fn line(image: String, report: &Report, verbose: bool) -> String {
    let (pause, total) = (milliseconds(report.pause), milliseconds(report.total));
    let mut line = format!("{image}: {}, paused {pause}, total {total}", text::size(report.bytes));
    if verbose {
        if report.processes > 1 {
            line += &format!(", {} processes", report.processes);
        }
        line += &format!(", {}", text::count(report.threads, "thread"));
        if let Some(why) = report.frozen {
            line += &format!(", frozen: {why}");
        }
    }
    line + "\n"
}

/// A time for people.
pub fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}
