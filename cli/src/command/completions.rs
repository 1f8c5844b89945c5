//! `ckpt completions`: what a shell completes, from the same definitions as `--help`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::stdout;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = "For bash: ckpt completions bash > ~/.local/share/bash-completion/completions/ckpt")]
pub struct Args {
    /// Which shell
    shell: Shell,
}

/// Prints them to standard output.
pub fn main<C: CommandFactory>(args: Args) -> Result<(), Failure> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "ckpt", &mut out);
    stdout::print(String::from_utf8_lossy(&out))
}
