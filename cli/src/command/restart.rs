//! `ckpt restart`: becomes the stub, which becomes the program.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::failure::Failure;
use crate::stub;

/// Whose process ids the program gets.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Pid {
    /// This process's own
    New,
}

/// Let the program in an image go on where it was saved, in place of this command
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The program keeps this command's process id, terminal and pipes, and its exit status is the program's own."
)]
pub struct Args {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    options: stub::Options,
    /// The program's process id
    #[arg(long, value_name = "WHICH", default_value = "new")]
    pid: Pid,
}

/// Returns only when the stub could not be started.
pub fn main(args: Args) -> Result<(), Failure> {
    let Pid::New = args.pid;
    Err(stub::exec(&args.image, &args.options))
}
