//! `ckpt show`: what is inside an image, for people or for programs.

use std::path::PathBuf;

use image_format::ExitCode;

use crate::failure::{Failure, reason};
use crate::image::ImageFile;
use crate::show::report::Report;
use crate::show::{svg, table};
use crate::stdout;
use crate::text;

/// Say what is inside an image: process, threads, memory, files, sizes
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Reads headers, notes and seal only, whatever the image's size; `ckpt verify` reads it all."
)]
pub struct Args {
    /// The image
    image: PathBuf,
    /// Print one JSON object for programs (schema in docs/cli.md)
    #[arg(long)]
    json: bool,
    /// Draw the processes and their address spaces into FILE, for a browser
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,
}

/// Prints the table or the object.
pub fn main(args: Args) -> Result<(), Failure> {
    let file = ImageFile::describe(&args.image)?;
    let checked = file.checked()?;
    let others = file.others()?;
    let others = others.iter().map(ImageFile::checked).collect::<Result<Vec<_>, _>>()?;
    let report = Report::new(&file, &others, &checked.image).map_err(|fault| file.fault(fault))?;
    if let Some(path) = args.svg {
        return std::fs::write(&path, svg::render(&report)).map_err(|e| {
            let what = format_args!("{}: cannot be written: {}", text::path(&path), reason(&e)).to_string();
            Failure::new(ExitCode::Usage, what)
        });
    }
    if !args.json {
        return stdout::print(table::render(&report));
    }
    let mut json = serde_json::to_string_pretty(&report)
        .map_err(|e| Failure::new(ExitCode::Malformed, format_args!("{}: {e}", text::path(file.path()))))?;
    json.push('\n');
    stdout::print(json)
}
