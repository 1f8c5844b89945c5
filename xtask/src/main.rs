//! `cargo xtask`: builds what users get, shows it at work, tests it, measures it and keeps the house in order.
//!
//! One file (or folder) per subcommand. Must never be needed at run time: what it builds stands alone in `dist/`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

mod bench;
mod boxes;
mod build_stub;
mod demo;
mod dist;
mod elf_check;
mod fuzz;
mod guest;
mod objects;
mod pty;
mod stub_words;
mod test;
mod tidy;
mod watch;
mod workspace;

/// Builds, demonstrates, tests and measures the checkpoint system.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build dist/restart-stub and check that it is what it must be.
    BuildStub,
    /// Build all that users get into dist/.
    Dist,
    /// Save, kill and restart two real programs, and say what was seen.
    Demo,
    /// Set up, build dist/ and run all tests.
    Test(test::Options),
    /// Restart images in virtual machines with other kernels, and theirs here.
    Boxes,
    /// Check the rules of the house.
    Tidy,
    /// Measure sizes and times beside plain read and write.
    Bench(bench::Options),
    /// Throw mutated images at the parser.
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let ws = Workspace::find()?;
    match command {
        Command::BuildStub => build_stub::run(&ws).map(drop),
        Command::Dist => dist::run(&ws),
        Command::Demo => demo::run(&ws),
        Command::Test(options) => test::run(&ws, &options),
        Command::Boxes => boxes::run(&ws),
        Command::Tidy => tidy::run(&ws),
        Command::Bench(options) => bench::run(&ws, &options),
        Command::Fuzz(options) => fuzz::run(&options),
    }
}
