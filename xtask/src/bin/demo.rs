//! `cargo xtask demo`: a program of its own, as it needs little.

use std::process::ExitCode;

use xtask::demo;
use xtask::workspace::Workspace;

fn main() -> ExitCode {
    match Workspace::find().and_then(|ws| demo::run(&ws)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
