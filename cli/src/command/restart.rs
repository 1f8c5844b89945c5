//! `ckpt restart`: lets the program in an image go on, by the stub in this command's place.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::pidfile::PidFile;
use crate::restart::{self, Source};
use crate::stub;
use crate::whose::Whose;

/// Let the program in an image go on where it was saved
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The program keeps its process and thread ids wherever they can be had: as root, with the capability CHECKPOINT_RESTORE, \
where they come up next, or in a pid namespace of its own. It is a child of this command then, which supervises it: signals, job control, exit \
status. Where nothing in the program keeps its old id, it takes this command's place: same process id."
)]
pub struct Args {
    /// The image; - reads it from standard input
    image: PathBuf,
    #[command(flatten)]
    options: stub::Options,
    #[command(flatten)]
    whose: Whose,
    /// Return when the program runs; it stays in the background
    #[arg(long)]
    detach: bool,
    /// Write the program's process id to FILE
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
}

/// Returns what went wrong; what the program does is its own affair.
pub fn main(args: Args) -> Result<(), Failure> {
    args.whose.check()?;
    if args.detach {
        let pidfile = args.pidfile.as_deref().map(PidFile::prepare).transpose()?;
        let source = Source::open(&args.image, args.options.trust)?;
        return restart::detached(&source, &args.options, &args.whose, pidfile).map(drop);
    }
    if let Some(path) = &args.pidfile {
        // The stub writes it; but who gives a wrong name hears of it first.
        drop(PidFile::prepare(path)?);
    }
    let source = Source::open(&args.image, args.options.trust)?;
    Err(restart::attached(&source, &args.options, &args.whose, args.pidfile.as_deref()))
}
