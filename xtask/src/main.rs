//! `cargo xtask`: builds what users get, shows it at work, tests it, measures it and checks its rules.
//!
//! One file (or folder) per subcommand. Must never be needed at run time: what it builds stands alone in `dist/`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

// As modules of this crate for those below.
use xtask::{demo, guest, product, watch, workspace};

use workspace::Workspace;

mod bench;
mod build_stub;
mod dist;
mod elf_check;
mod fresh;
mod fuzz;
mod machine;
mod objects;
mod package;
mod stub_words;
mod test;
mod tidy;
mod vms;

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
    /// Make a Debian package and a tarball of it, and try them.
    Package(package::Options),
    /// Save, kill and restart real programs, and say what was seen.
    Demo,
    /// Set up, build dist/ and run all tests.
    Test(test::Options),
    /// Restart images in virtual machines with other kernels, and theirs here.
    Vms,
    /// Run `demo` and `test` on a machine that has Rust and gcc and nothing else.
    Fresh(fresh::Options),
    /// Check the project lints.
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
        Command::Package(options) => package::run(&ws, &options),
        Command::Demo => demo::run(&ws),
        Command::Test(options) => test::run(&ws, &options),
        Command::Vms => vms::run(&ws),
        Command::Fresh(options) => fresh::run(&ws, &options),
        Command::Tidy => tidy::run(&ws),
        Command::Bench(options) => bench::run(&ws, &options),
        Command::Fuzz(options) => fuzz::run(&options),
    }
}
