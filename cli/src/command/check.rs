//! `ckpt check`: what this kernel and user allow; with a pid, what would block a save of that process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ckpt::remote;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use image_format::record::process::Process;
use image_format::record::thread::Thread;
use image_format::{Checked, ExitCode};
use loader::identity::system::Here;
use loader::identity::{self, Saved, Wish, words};
use loader::limits;
use serde::Serialize;

use crate::command::save::Tcp;
use crate::failure::Failure;
use crate::image::ImageFile;
use crate::obstacles;
use crate::probe::{Fact, Report};
use crate::show::credentials::Credentials;
use crate::stdout;
use crate::stub;
use crate::text;

/// Say what this kernel and user allow, or what would block a save of a process or a restart of an image
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Without PID it tries everything in child processes that end at once: exit code 0 when save and restart \
can work here, else 80. With PID it lists what would block a save, without stopping the process: exit code 0 when nothing \
does, else 88. With IMAGE: what of this CPU, kernel, user and of its files would prevent a restart: exit code 0, 79, 80, or that of the first file."
)]
pub struct Args {
    /// A running process by its id, or an image
    #[arg(value_name = "PID|IMAGE", value_parser = subject)]
    subject: Option<Subject>,
    /// Print one JSON object for programs (schema in docs/cli.md)
    #[arg(long)]
    json: bool,
    /// With PID: what the save will be told of TCP connections to other processes
    #[arg(long, value_name = "POLICY", default_value = "refuse")]
    tcp: Tcp,
    /// With IMAGE: open files that have changed since the save, as the restart will be told
    #[arg(long, value_name = "POLICY", default_value = "verify")]
    files: stub::Files,
    /// With IMAGE, as root: the restart will be told to give the program root's rights
    #[arg(long)]
    as_root: bool,
    /// With IMAGE: what the restart will be told of descriptor N (repeatable)
    #[arg(long, value_name = "N=PATH", value_parser = stub::redirect)]
    fd: Vec<OsString>,
    /// With IMAGE: where the restart will be told to look for paths that begin with OLD (repeatable)
    #[arg(long, value_name = "OLD=NEW", value_parser = stub::paths)]
    map_path: Vec<OsString>,
}

/// What to look at: a number is a process.
#[derive(Clone, Debug)]
enum Subject {
    Process(i32),
    Image(PathBuf),
}

fn subject(text: &str) -> Result<Subject, String> {
    match text.parse::<i64>() {
        Ok(pid @ 1..=0x7fff_ffff) => Ok(Subject::Process(pid as i32)),
        Ok(_) => Err("no process id: give one above 0, or ./N for an image of such a name".to_owned()),
        Err(_) => Ok(Subject::Image(text.into())),
    }
}

#[derive(Serialize)]
struct Hindrances {
    schema: u32,
    image: String,
    identity: Option<String>,
    user: Option<String>,
    blockers: Vec<String>,
}

#[derive(Serialize)]
struct Blockers {
    schema: u32,
    pid: i32,
    blockers: Vec<String>,
}

/// Prints the table, the list or the object.
pub fn main(args: Args) -> Result<(), Failure> {
    match args.subject {
        Some(Subject::Process(pid)) => process(pid, args.tcp, args.json),
        Some(Subject::Image(path)) => {
            let (fd, map_path, as_root) = (args.fd, args.map_path, args.as_root);
            image(&path, &stub::Options { fd, map_path, as_root, ..stub::Options::with_files(args.files) }, args.json)
        }
        None => system(args.json),
    }
}

fn system(json: bool) -> Result<(), Failure> {
    let report = Report::new();
    stdout::print(if json { object(&report)? } else { render(&report) })?;
    if report.save && report.restart { Ok(()) } else { Err(Failure::status(ExitCode::Kernel as u8)) }
}

fn process(pid: i32, tcp: Tcp, json: bool) -> Result<(), Failure> {
    let found = remote::blockers(pid, tcp.checked(true)?).map_err(|error| Failure::new(error.exit_code(), error))?;
    let blockers: Vec<String> = found.iter().map(|line| text::plain(line.as_bytes())).collect();
    let blocked = !blockers.is_empty();
    if json {
        stdout::print(object(&Blockers { schema: 1, pid, blockers })?)?;
    } else if blocked {
        stdout::print(blockers.join("\n") + "\n")?;
    } else {
        let unseen = if remote::shows_descriptors() {
            ""
        } else {
            ", as far as can be seen from here: a filter forbids to look into its pipes and sockets while it runs (pidfd_getfd)"
        };
        stdout::print(format_args!("process {pid}: nothing blocks a save{unseen}\n"))?;
    }
    if blocked { Err(Failure::status(ExitCode::SaveFailed as u8)) } else { Ok(()) }
}

/// What would make a restart fail here, as far as it can be told beforehand, and which ids the program would get.
fn image(path: &Path, options: &stub::Options, json: bool) -> Result<(), Failure> {
    let root = ImageFile::describe(path)?;
    let others = root.others()?;
    let mut blockers = Vec::new();
    let mut no_cpu = false;
    for file in std::iter::once(&root).chain(&others) {
        let checked = Checked::new(file.checked()?.image).map_err(|fault| file.fault(fault))?;
        let mut add = |error: state::restart::Error| {
            blockers.push(error.to_string());
            Ok(())
        };
        let told = limits::cpu(&checked, |error| {
            no_cpu = true;
            add(error)
        });
        told.and_then(|()| limits::system(&checked, &mut add))
            .and_then(|()| limits::rights(&checked, options.as_root).map(drop).or_else(add))
            .map_err(|error| Failure::new(error.exit_code(), error))?;
    }
    let identity = match foretold(&root, &others)? {
        Ok(line) => Some(line),
        Err(refusal) => {
            blockers.push(refusal);
            None
        }
    };
    let user = whose(&root, options.as_root)?;
    let no_room = !blockers.is_empty();
    let mut images = others;
    images.push(root);
    let files = obstacles::files(&images, options)?;
    let first = files.first().map(|(code, _)| *code);
    blockers.extend(files.into_iter().map(|(_, line)| line));
    let blocked = !blockers.is_empty();
    if json {
        let image = text::path(path);
        stdout::print(object(&Hindrances { schema: 1, image, identity, user, blockers })?)?;
    } else if blocked {
        stdout::print(blockers.join("\n") + "\n")?;
    } else {
        let lines: String = identity.into_iter().chain(user).map(|line| line + "\n").collect();
        stdout::print(format_args!("{lines}{}: nothing here prevents a restart\n", text::path(path)))?;
    }
    let code = match first {
        _ if no_cpu => ExitCode::Cpu,
        Some(code) if !no_room => code,
        _ => ExitCode::Kernel,
    };
    if blocked { Err(Failure::status(code as u8)) } else { Ok(()) }
}

/// As whom the program would run, where that is not who restarts it, as a line.
fn whose(root: &ImageFile, as_root: bool) -> Result<Option<String>, Failure> {
    let checked = Checked::new(root.checked()?.image).map_err(|fault| root.fault(fault))?;
    let Ok(Some(_)) = limits::credentials(&checked, as_root) else { return Ok(None) };
    let own = Credentials::of(&root.checked()?.image).map_err(|fault| root.fault(fault))?;
    Ok(own.map(|own| format!("process {}: {}, as saved", checked.header().pid.get(), own.line())))
}

/// Which ids a restart would give the program, as a line; or why there is no way.
fn foretold(root: &ImageFile, others: &[ImageFile]) -> Result<Result<String, String>, Failure> {
    let (mut ids, mut ascending) = (Vec::new(), true);
    for file in std::iter::once(root).chain(others) {
        let checked = file.checked()?;
        let pid = checked.image.header().pid.get();
        let threads = checked.image.table::<Thread>().map_err(|fault| file.fault(fault))?;
        ascending &= threads.iter().all(|thread| thread.tid.get() >= pid);
        ids.extend(threads.iter().map(|thread| thread.tid.get()));
    }
    let checked = root.checked()?;
    let header = checked.image.header();
    let processes = checked.image.table::<Process>().map_err(|fault| root.fault(fault))?;
    ascending &= processes.iter().skip(1).all(|process| process.pid > process.parent);
    ids.extend(processes.iter().filter(|process| process.ended.get() != 0).map(|process| process.pid.get()));
    ids.sort_unstable();
    let saved = Saved { ids: &ids, tree: !processes.is_empty(), ascending, traces: header.traces() };
    // As the restart will have it; without it what follows says so.
    let _ = stub::use_right_by_file();
    let here = Here { own: std::process::id(), counts: true };
    let way = identity::choose(Wish::Auto, &saved, &here);
    Ok(way
        .map(|way| text::plain(words::chosen(header, way, false).as_bytes()))
        .map_err(|refusal| words::error(header.pid.get(), refusal).to_string()))
}

fn object(what: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(what);
    text.map(|text| text + "\n").map_err(|e| Failure::new(ExitCode::Usage, format_args!("standard output: {e}")))
}

fn render(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["FACT", "", "VALUE", "MEANS FOR"]);
    for fact in &report.facts {
        table.add_row([fact.name, sign(fact), &text::plain(fact.value.as_bytes()), fact.meaning]);
    }
    let yes = |what: bool| if what { "yes" } else { "no" };
    format!(
        "{}\n\nimages may require: {}\nsave: {}\nrestart: {}, --pid keep: {}, --namespace: {}\n",
        table.trim_fmt(),
        report.features.join(", "),
        yes(report.save),
        yes(report.restart),
        yes(report.keep),
        yes(report.namespace)
    )
}

fn sign(fact: &Fact) -> &'static str {
    match fact.ok {
        Some(true) => "+",
        Some(false) => "-",
        None => "",
    }
}
