//! `ckpt check`: what this kernel and user allow; with a pid, what would block a save of that process.

use ckpt::remote;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use image_format::ExitCode;
use serde::Serialize;

use crate::failure::Failure;
use crate::probe::{Fact, Report};
use crate::text;

/// Say what this kernel and user allow, or what would block a save of a process
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without PID it tries everything in child processes that end at once: exit code 0 when save and restart \
can work here, else 80. With PID it lists what would block a save, without stopping the process: exit code 0 when nothing \
does, else 88."
)]
pub struct Args {
    /// A running process
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Print one JSON object for programs (schema in docs/cli.md)
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Blockers {
    schema: u32,
    pid: i32,
    blockers: Vec<String>,
}

/// Prints the table, the list or the object.
pub fn main(args: Args) -> Result<(), Failure> {
    match args.pid {
        Some(pid) => process(pid, args.json),
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
