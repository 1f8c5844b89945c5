//! `ckpt list`: the images of a directory, one line each.
//!
//! What is an image, its contents tell, not its name. Must never read more of a file than what describes it.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ckpt::output::begins_image;
use image_format::ExitCode;
use serde::Serialize;

use crate::compress;
use crate::failure::Failure;
use crate::image::ImageFile;
use crate::job;
use crate::run::{images, lock};
use crate::show::layout::lines;
use crate::stdout;
use crate::text;

/// List the images of a directory: program, time, size, restarts, and which is the newest
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "What is an image is known by its contents. Of a compressed one only size and time are told."
)]
pub struct Args {
    /// The directory [default: the working directory]
    directory: Option<PathBuf>,
    /// Print one JSON object for programs (schema in docs/cli.md)
    #[arg(long)]
    json: bool,
}

/// What is listed.
#[derive(Debug, Serialize)]
struct List {
    schema: u32,
    directory: String,
    images: Vec<Row>,
}

/// One image.
#[derive(Debug, Serialize)]
struct Row {
    /// Its name in the directory.
    name: String,
    /// How `ckpt run` was asked for it, else the process's command line; `null`: unknown.
    command: Option<String>,
    /// When it was saved, RFC 3339, UTC.
    saved: String,
    /// Size of the file.
    bytes: u64,
    /// How it is compressed.
    compression: Option<&'static str>,
    /// Restarts that lie behind the process.
    generation: Option<u32>,
    /// `newest`, `older`, `done`, `aside`, `damaged`.
    state: &'static str,
    /// Why it is damaged; who runs its job.
    note: Option<String>,
}

/// Prints the table or the object.
pub fn main(args: Args) -> Result<(), Failure> {
    let directory = args.directory.unwrap_or_else(|| ".".into());
    let unreadable = |e| Failure::unreadable(&directory, "the directory cannot be read", &e);
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        names.extend(entry.file_type().is_ok_and(|kind| kind.is_file()).then(|| entry.file_name()));
    }
    names.sort();
    let images = names.iter().filter_map(|name| row(&directory.join(name))).collect();
    let list = List { schema: 1, directory: text::path(&directory), images };
    if args.json {
        let json = serde_json::to_string_pretty(&list);
        let json = json.map_err(|e| Failure::new(ExitCode::Usage, format_args!("standard output: {e}")))?;
        return stdout::print(json + "\n");
    }
    if list.images.is_empty() {
        return stdout::print(format_args!("{}: no images\n", list.directory));
    }
    let rows = list.images.iter().map(|row| {
        let unknown = || "-".to_owned();
        let state = row.note.as_ref().map_or_else(|| row.state.to_owned(), |note| format!("{}: {note}", row.state));
        vec![
            row.name.clone(),
            row.command.clone().unwrap_or_else(unknown),
            row.saved.clone(),
            text::size(row.bytes),
            row.generation.map_or_else(unknown, |n| n.to_string()),
            state,
        ]
    });
    let head = ["IMAGE", "PROGRAM", "SAVED", "SIZE", "RESTARTS", "STATE"];
    stdout::print(format_args!("{}\n", lines(&head, &[3, 4], rows.collect())))
}

/// None: it is no image, or this user may not read it.
fn row(path: &Path) -> Option<Row> {
    let file = File::open(path).ok()?;
    let meta = file.metadata().ok()?;
    let name = text::path(Path::new(path.file_name()?));
    let mut row = Row {
        name,
        command: None,
        saved: time(meta.modified().ok()?),
        bytes: meta.len(),
        compression: None,
        generation: None,
        state: "newest",
        note: None,
    };
    let (base, state) = images::state(path);
    row.state = state;
    row.note = lock::holder(&base).filter(|_| state == "newest").map(|who| format!("run by {who}"));
    if begins_image(|at, to| file.read_exact_at(to, at)) {
        if let Err(failure) = describe(&mut row, path) {
            let (_, why) = failure.into_parts();
            (row.state, row.note) =
                ("damaged", Some(why.trim_start_matches(&text::path(path)).trim_start_matches(": ").to_owned()));
        }
        return Some(row);
    }
    row.compression = Some("zstd");
    compress::holds_image(file.as_raw_fd()).then_some(row)
}

fn describe(row: &mut Row, path: &Path) -> Result<(), Failure> {
    let file = ImageFile::describe(path)?;
    let checked = file.checked()?;
    let header = checked.image.header();
    let seconds = u64::try_from(header.wall_sec.get()).unwrap_or(0);
    row.saved = time(UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)));
    row.generation = Some(header.generation.get());
    let job = job::Job::of(&checked.image).map_err(|fault| file.fault(fault))?;
    row.command = Some(match job {
        Some(job) => job.line,
        None => job::line(&job::own_command(&file, &checked.image)?),
    });
    Ok(())
}

fn time(when: SystemTime) -> String {
    humantime::format_rfc3339_seconds(when).to_string()
}
