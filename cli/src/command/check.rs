//! `ckpt check`: what this kernel and user allow; with a pid, what would block a save of that process.

use std::path::{Path, PathBuf};

use ckpt::remote;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use image_format::ExitCode;
use serde::Serialize;

use crate::failure::Failure;
use crate::image::ImageFile;
use crate::limits;
use crate::probe::{Fact, Report};
use crate::text;

/// Say what this kernel and user allow, or what would block a save of a process or a restart of an image
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without PID it tries everything in child processes that end at once: exit code 0 when save and restart \
can work here, else 80. With PID it lists what would block a save, without stopping the process: exit code 0 when nothing \
does, else 88. With IMAGE: what of this CPU, kernel and user would prevent a restart, its files apart: exit code 0, 79 or 80."
)]
pub struct Args {
    /// A running process by its id, or an image
    #[arg(value_name = "PID|IMAGE", value_parser = subject)]
    subject: Option<Subject>,
    /// Print one JSON object for programs (schema in docs/cli.md)
    #[arg(long)]
    json: bool,
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
        Some(Subject::Process(pid)) => process(pid, args.json),
        Some(Subject::Image(path)) => image(&path, args.json),
        None => system(args.json),
    }
}

fn system(json: bool) -> Result<(), Failure> {
    let report = Report::new();
    text::print(if json { object(&report)? } else { render(&report) })?;
    if report.save && report.restart { Ok(()) } else { Err(Failure::status(ExitCode::Kernel as u8)) }
}

fn process(pid: i32, json: bool) -> Result<(), Failure> {
    let found = remote::blockers(pid).map_err(|error| Failure::new(error.exit_code(), error))?;
    let blockers: Vec<String> = found.iter().map(|line| text::plain(line.as_bytes())).collect();
    let blocked = !blockers.is_empty();
    if json {
        text::print(object(&Blockers { schema: 1, pid, blockers })?)?;
    } else if blocked {
        text::print(blockers.join("\n") + "\n")?;
    } else {
        text::print(format_args!("process {pid}: nothing blocks a save\n"))?;
    }
    if blocked { Err(Failure::status(ExitCode::SaveFailed as u8)) } else { Ok(()) }
}

/// What would make a restart fail here, as far as it can be told beforehand.
fn image(path: &Path, json: bool) -> Result<(), Failure> {
    let file = ImageFile::open(path)?;
    let checked = file.checked()?;
    let missing = limits::cpu(&checked.image).map_err(|fault| file.fault(fault))?;
    let mut blockers: Vec<String> = missing.into_iter().collect();
    let no_cpu = !blockers.is_empty();
    blockers.extend(limits::judge(&checked.image).map_err(|fault| file.fault(fault))?);
    let blocked = !blockers.is_empty();
    if json {
        text::print(object(&Hindrances { schema: 1, image: text::path(path), blockers })?)?;
    } else if blocked {
        text::print(blockers.join("\n") + "\n")?;
    } else {
        text::print(format_args!("{}: no limit of this system prevents a restart\n", text::path(path)))?;
    }
    let code = if no_cpu { ExitCode::Cpu } else { ExitCode::Kernel };
    if blocked { Err(Failure::status(code as u8)) } else { Ok(()) }
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
