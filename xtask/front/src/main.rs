//! What `cargo xtask` starts first: it says what will be done and how long that takes, then has cargo build and run the command itself.
//!
//! Must never depend on another crate: it is built within a second, where the command takes half a minute.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// How long a command takes: the first time, and later.
struct Times(&'static str, &'static str);

const DEMO: Times = Times("2 minutes the first time, on 2 idle cores", "20 seconds");
const TEST: Times = Times(
    "5 minutes to build the first time, on 2 idle cores, and a quarter of an hour or more to run",
    "a quarter of an hour or more",
);

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let error = command(&args).exec();
    eprintln!("cargo xtask: cannot start cargo: {error}");
    ExitCode::FAILURE
}

/// What cargo is to build and run, said first where it takes long.
fn command(args: &[OsString]) -> Command {
    let name = args.first().and_then(|name| name.to_str()).unwrap_or_default();
    let is_help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")]);
    match name {
        "demo" if args.len() == 1 => {
            println!(
                "cargo xtask demo: builds the stub, the library and the command; then saves, kills and restarts real programs with\n\
                 them, and says what was seen. It needs Rust and gcc, and takes about {}.\n",
                time(&DEMO, "debug/demo")
            );
            cargo.args(["--no-default-features", "--bin", "demo"]);
        }
        "test" if !is_help => {
            println!(
                "cargo xtask test: installs what the tests need, where root runs it; builds everything; runs all tests, and names at the\n\
                 end what was left out here, and why. All of them take about {}.\n",
                time(&TEST, "debug/xtask")
            );
            cargo.args(["--bin", "xtask", "--"]).args(args);
        }
        _ => drop(cargo.args(["--quiet", "--bin", "xtask", "--"]).args(args)),
    }
    cargo
}

/// How long it will take: cargo has built `built` when it is not the first time.
fn time(times: &Times, built: &str) -> &'static str {
    let target = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.to_path_buf()));
    if target.is_some_and(|target| target.join(built).exists()) { times.1 } else { times.0 }
}
