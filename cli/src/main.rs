//! The `ckpt` command: starts programs so that they can be saved, restarts images, and says what is in them.
//!
//! Must never do the restart itself: `restart-stub` does, with or without this command.

mod apart;
mod bundle;
mod command;
mod compress;
mod described;
mod failure;
mod handover;
mod image;
mod ipc;
mod job;
mod obstacles;
mod outside;
mod pidfile;
mod probe;
mod progress;
mod reach;
mod restart;
mod run;
mod saver;
mod show;
mod signal;
mod spool;
mod stdout;
mod stub;
mod supervise;
mod text;
mod whose;

use std::io::{self, Write as _};
use std::process;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use image_format::ExitCode;

use crate::failure::Failure;

/// Save running programs to one file each, and let them go on later, here or on another box.
#[derive(Debug, Parser)]
#[command(name = "ckpt", version, after_long_help = failure::exit_codes())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Save(command::save::Args),
    Run(command::run::Args),
    Restart(command::restart::Args),
    Migrate(command::migrate::Args),
    Receive(command::receive::Args),
    Show(command::show::Args),
    List(command::list::Args),
    Verify(command::verify::Args),
    Check(command::check::Args),
    Bundle(command::bundle::Args),
    Completions(command::completions::Args),
    Man(command::man::Args),
}

/// `ckpt save`, which shall be short, alone.
#[derive(Debug, Parser)]
struct Save {
    #[command(flatten)]
    args: command::save::Args,
}

/// The command line. To know all commands takes time: a plain `save` does without; any other, and what is wrong, needs all of them.
fn parse() -> clap::error::Result<Cli> {
    if std::env::args_os().nth(1).is_some_and(|name| name == "save")
        && let Ok(Save { args }) = Save::try_parse_from(std::env::args_os().skip(1))
    {
        return Ok(Cli { command: Command::Save(args) });
    }
    // On a stack of its own: the derived parser needs more with each option, and the caller's limit of the stack may be small.
    let parser = std::thread::Builder::new().stack_size(PARSER_STACK).spawn(Cli::try_parse);
    match parser {
        Ok(parser) => parser.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        // Where no thread may be made the caller's must do.
        Err(_) => Cli::try_parse(),
    }
}

/// Bytes of the stack on which the command line is read.
const PARSER_STACK: usize = 1 << 20;

fn main() -> process::ExitCode {
    let outcome = parse().map_err(usage).and_then(|cli| match cli.command {
        Command::Save(args) => {
            // Who saves has a session of its own.
            progress::draws();
            apart::work(|| command::save::main(args))
        }
        Command::Run(args) => command::run::main(args),
        Command::Restart(args) => command::restart::main(args),
        Command::Migrate(args) => command::migrate::main(args),
        Command::Receive(args) => command::receive::main(args),
        Command::Show(args) => command::show::main(args),
        Command::List(args) => command::list::main(args),
        Command::Verify(args) => command::verify::main(args),
        Command::Check(args) => command::check::main(args),
        Command::Bundle(args) => command::bundle::main(args),
        Command::Completions(args) => command::completions::main::<Cli>(args),
        Command::Man(args) => command::man::main::<Cli>(args),
    });
    match outcome {
        Ok(()) => process::ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// clap's message as one line of ours; help and version are no errors.
fn usage(error: clap::Error) -> Failure {
    match error.kind() {
        ErrorKind::DisplayHelp => crate::stdout::print(error.render()).err().unwrap_or(Failure::QUIET),
        ErrorKind::DisplayVersion => crate::stdout::print(version()).err().unwrap_or(Failure::QUIET),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nobody is left to read it when standard error is closed.
            let _ = io::stderr().write_all(FIRST.as_bytes());
            Failure::status(ExitCode::Usage as u8)
        }
        ErrorKind::InvalidSubcommand => Failure::no_command(&error.render().to_string()),
        ErrorKind::UnknownArgument if is_program_of_run(&error) => {
            Failure::usage("the program of ckpt run comes behind two dashes: ckpt run [OPTIONS] -- PROG [ARG]...")
        }
        _ => Failure::usage(&error.render().to_string()),
    }
}

/// What `ckpt` alone says.
const FIRST: &str = "\
ckpt saves a running program to one file, and lets it go on later, where it stopped.

Three things to try, with the process id of a program of yours in place of 4711:
  ckpt check 4711                 says what would block a save of it; nothing happens to it
  ckpt save 4711 -o job.ckpt      saves it; it goes on, and does not notice
  ckpt restart job.ckpt           lets it go on from the file, once it has ended

A job that goes on by itself after a crash or a power cut:
  ckpt run -o job.ckpt --every 10m -- PROG ARG...

All commands: ckpt -h      All options of one: ckpt save -h      Everything: ckpt save --help, man ckpt
";

/// What `--version` says.
fn version() -> String {
    let (major, minor) = image_format::record::header::VERSION;
    let features = show::report::features(u64::MAX).join(" ");
    format!(
        "ckpt {} (commit {})\nimage format: {major}.{minor}, {}\nfeatures: {features}\n",
        env!("CARGO_PKG_VERSION"),
        env!("CKPT_COMMIT"),
        std::env::consts::ARCH,
    )
}

/// Whether what is wrong is the program of `ckpt run`, without the dashes in front of it.
fn is_program_of_run(error: &clap::Error) -> bool {
    use clap::error::{ContextKind, ContextValue};
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument,
        _ => return false,
    };
    std::env::args_os().nth(1).is_some_and(|name| name == "run") && !argument.starts_with('-')
}
