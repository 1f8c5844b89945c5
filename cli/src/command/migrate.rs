//! `ckpt migrate`: saves a process, lets it go on on another box through ssh, and ends it here.
//!
//! Must never end the process here before the other side has said that it runs there. Whatever goes wrong before, our own
//! sudden end too, lets it go on here.

use std::ffi::OsString;
use std::io::{BufReader, PipeReader, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ckpt::remote;
use image_format::ExitCode;

use crate::command::save::{Tcp, WithFiles, milliseconds};
use crate::compress::{self, Compression};
use crate::failure::{Failure, reason};
use crate::handover::{GO, HELLO, Pieces, RECEIVED, line};
use crate::progress::{Bar, Progress};
use crate::whose::Whose;
use crate::{saver, stub, text};

/// How far it is.
static PROGRESS: Progress = Progress::new();

/// Move a running process to another box: save, send and restart it there by ssh, and end it here when it runs there
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The process stands still until the other side says that it runs there; if anything fails before, it goes on \
here. What was a terminal or a pipe is /dev/null for reading there, and a file for writing."
)]
pub struct Args {
    /// Its process id
    #[arg(value_name = "PID", value_parser = crate::command::save::process)]
    process: i32,
    /// Where to, as ssh takes it
    #[arg(value_name = "[USER@]HOST", value_parser = host)]
    host: String,
    #[command(flatten)]
    options: stub::Options,
    #[command(flatten)]
    whose: Whose,
    /// How to reach HOST: a program and its arguments, separated by spaces
    #[arg(long, value_name = "COMMAND", default_value = "ssh")]
    ssh: String,
    /// The `ckpt` of HOST
    #[arg(long, value_name = "PATH", default_value = "ckpt")]
    remote_ckpt: OsString,
    /// Compression on the way: none, zstd, or zstd:N with a level N from 1 (fast) to 19 (small)
    #[arg(long, value_name = "METHOD", default_value = "zstd:1", value_parser = method)]
    compress: Method,
    /// Where on HOST goes what the program writes to its terminal or a pipe [default: ckpt-PID.out]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the program's process id to FILE, on HOST
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Carry the contents of open files, too, for where they are missing: those it writes (the default), or all
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "written")]
    with_files: Option<WithFiles>,
    /// TCP connections to other processes
    #[arg(long, value_name = "POLICY", default_value = "refuse")]
    tcp: Tcp,
    /// Print nothing when all went well
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Clone, Copy, Debug)]
struct Method(Option<Compression>);

fn method(text: &str) -> Result<Method, String> {
    if text == "none" { Ok(Method(None)) } else { text.parse().map(|compression| Method(Some(compression))) }
}

/// What ssh would take for an option is no host.
fn host(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('-') { Err("no name of a host".to_owned()) } else { Ok(text.to_owned()) }
}

/// Lines that a profile may print before the first word.
const LINES_MAX: u32 = 200;

/// How a failure is reported.
const FAILED: &str = "failed ";

/// The other side, through ssh.
struct There {
    host: String,
    ssh: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

/// What the other side said last.
struct Runs {
    pid: String,
    output: String,
}

/// Moves it and prints one line.
pub fn main(args: Args) -> Result<(), Failure> {
    // A process that is not there, or of somebody else, is no reason to go anywhere.
    remote::blockers(args.process, remote::Tcp::Refuse).map_err(|e| Failure::new(e.exit_code(), e))?;
    let mut there = There::reach(&args)?;
    let with_files = args.with_files.map_or(state::WithFiles::None, WithFiles::into);
    let tcp = args.tcp.checked(false)?;
    let options =
        remote::Options { kill: true, tcp, with_files, progress: Some(&PROGRESS), ..remote::Options::default() };
    let to = there.to.take();
    let compression = args.compress.0;
    let (mut runs, mut told) = (None, false);
    let send = move |mut from: PipeReader| -> Result<(u64, Option<ChildStdin>), std::io::Error> {
        let mut to = Pieces(to.ok_or(std::io::ErrorKind::BrokenPipe)?);
        let bytes = match compression {
            Some(compression) => compression.copy(&mut from, &mut to)?,
            None => compress::copy(&mut from, &mut to)?,
        };
        to.end()?;
        Ok((bytes, Some(to.0)))
    };
    let gone = |_: std::io::Error| Failure::QUIET;
    let bar = (!args.quiet).then(|| Bar::new("moving", &PROGRESS));
    let saved = saver::through(
        args.process,
        options,
        |from| send(from).map_err(gone),
        |(bytes, to)| {
            let to = to.ok_or(Failure::QUIET)?;
            runs = Some(there.start(to, &mut told)?);
            Ok(bytes)
        },
    );
    drop(bar);
    match (saved, runs) {
        (Ok(report), Some(runs)) => {
            let _ = there.ssh.wait();
            if args.quiet {
                return Ok(());
            }
            let host = text::plain(args.host.as_bytes());
            let mut said = format!("process {}: runs on {host} as {}", args.process, runs.pid);
            if !runs.output.is_empty() {
                said += &format!(", its output goes to {}", runs.output);
            }
            crate::stdout::print(format_args!(
                "{said}; {} sent, paused {}\n",
                text::size(report.bytes),
                milliseconds(report.pause)
            ))
        }
        (Ok(_), None) => Err(there.lost(told)),
        // It was not ended here.
        (Err(failure), Some(runs)) => {
            let host = text::plain(args.host.as_bytes());
            Err(failure.but(format_args!("it runs on {host}, too, as {}: end one of them", runs.pid)))
        }
        (Err(failure), None) => Err(there.failed(failure, told)),
    }
}

impl There {
    /// Starts `ckpt receive` there, and waits for its first word: until then the process is not touched.
    fn reach(args: &Args) -> Result<Self, Failure> {
        let host = text::plain(args.host.as_bytes());
        let mut words = args.ssh.split_whitespace();
        let Some(program) = words.next() else { return Err(Failure::usage("--ssh names no program")) };
        let mut command = Command::new(program);
        command.args(words);
        if program.rsplit('/').next() == Some("ssh") {
            // A box that has gone away is noticed within half a minute, as the process stands still meanwhile.
            command.args(["-T", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"]);
        }
        command.arg(&args.host).arg(there(args)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut ssh = command.spawn().map_err(|e| Failure::exec(program.as_ref(), &e))?;
        let (to, Some(from)) = (ssh.stdin.take(), ssh.stdout.take()) else { return Err(Failure::usage("no pipe")) };
        let mut this = Self { host, ssh, to, from: BufReader::new(from) };
        for _ in 0..LINES_MAX {
            match line(&mut this.from) {
                Ok(Some(said)) if said == HELLO => return Ok(this),
                Ok(Some(said)) if said.starts_with(FAILED) => return Err(this.said(&said)),
                Ok(Some(_)) => {}
                _ => break,
            }
        }
        this.to = None;
        let status = this.end();
        // ssh(1) has 255 for its own errors, and has said which.
        let remedy = match status.as_str() {
            "255" => "it could not get there, or not log in".to_owned(),
            _ => "is it there? --remote-ckpt".to_owned(),
        };
        let what = format!("{}: no ckpt answers ({program} ended with {status}): {remedy}", this.host);
        Err(Failure::new(ExitCode::SaveFailed, what))
    }

    /// Waits until all has arrived, lets it start, and waits until it runs.
    fn start(&mut self, mut to: ChildStdin, told: &mut bool) -> Result<Runs, Failure> {
        let arrived = self.hears(RECEIVED)?;
        if !arrived.is_empty() || writeln!(to, "{GO}").and_then(|()| to.flush()).is_err() {
            return Err(self.lost(*told));
        }
        *told = true;
        let runs = self.hears("runs ");
        drop(to);
        let runs = runs.map_err(|failure| if failure.is_quiet() { self.lost(true) } else { failure })?;
        let (pid, output) = runs.split_once(' ').unwrap_or((&runs, ""));
        Ok(Runs { pid: pid.to_owned(), output: output.to_owned() })
    }

    /// The next line, which begins so; what follows. Silence is a quiet failure.
    fn hears(&mut self, word: &str) -> Result<String, Failure> {
        let said = line(&mut self.from).ok().flatten().ok_or(Failure::QUIET)?;
        said.strip_prefix(word).map(str::to_owned).ok_or_else(|| self.said(&said))
    }

    /// What the other side says of its failure, whose code is ours.
    fn said(&self, line: &str) -> Failure {
        let (code, message) = line.strip_prefix(FAILED).and_then(|rest| rest.split_once(' ')).unwrap_or(("88", line));
        let message = if message.is_empty() { "the restart failed" } else { message };
        let message = format!("{}: {}: the process goes on here", self.host, text::plain(message.as_bytes()));
        Failure::of_parts(code.parse().unwrap_or(ExitCode::SaveFailed as u8), message)
    }

    /// Nobody says anything any more. `told`: it was to start.
    fn lost(&self, told: bool) -> Failure {
        let more = if told { ", and may run there, too: look for it" } else { "" };
        let what = format!("{}: the connection has ended: the process goes on here{more}", self.host);
        Failure::new(ExitCode::SaveFailed, what)
    }

    /// Why nothing came of it: what the other side says, when the failure was that it took no more.
    fn failed(mut self, own: Failure, told: bool) -> Failure {
        self.to = None;
        let mut failure = own;
        if failure.is_quiet() {
            let mut last = None;
            while let Ok(Some(said)) = line(&mut self.from) {
                last = Some(said).filter(|said| said.starts_with(FAILED)).or(last);
            }
            failure = last.map_or_else(|| self.lost(told), |said| self.said(&said));
        }
        let _ = self.ssh.kill();
        let _ = self.end();
        failure
    }

    fn end(&mut self) -> String {
        use std::os::unix::process::ExitStatusExt;
        match self.ssh.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => code.to_string(),
                (_, signal) => format!("signal {}", signal.unwrap_or(0)),
            },
            Err(e) => reason(&e),
        }
    }
}

/// What a shell there is to run.
fn there(args: &Args) -> OsString {
    let mut words = vec![args.remote_ckpt.clone(), "receive".into()];
    words.extend(args.options.arguments());
    words.extend(args.whose.arguments());
    words.extend([
        "--output".into(),
        args.output.clone().map_or_else(|| format!("ckpt-{}.out", args.process).into(), PathBuf::into_os_string),
    ]);
    if let Some(pidfile) = &args.pidfile {
        words.extend(["--pidfile".into(), pidfile.clone().into_os_string()]);
    }
    let words: Vec<_> = words.iter().map(|word| quoted(word.as_bytes())).collect();
    OsString::from_vec(words.join(&b' '))
}

/// A word as any shell takes it.
fn quoted(word: &[u8]) -> Vec<u8> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_./=,:+".contains(b);
    if !word.is_empty() && word.iter().all(plain) {
        return word.to_vec();
    }
    let mut quoted = vec![b'\''];
    for byte in word {
        if *byte == b'\'' {
            quoted.extend(br"'\''");
        } else {
            quoted.push(*byte);
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_a_shell_as_they_are() {
        assert_eq!(quoted(b"a-b_c/d.e=1"), b"a-b_c/d.e=1");
        assert_eq!(quoted(b""), b"''");
        assert_eq!(quoted(b"it's; rm"), br"'it'\''s; rm'");
        assert!(host("-oProxyCommand=x").is_err() && host("").is_err() && host("me@box").is_ok());
    }
}
