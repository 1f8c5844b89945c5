//! `ckpt bundle`: the stub and an image as one executable, which is the saved program.
//!
//! Must never leave half of one, nor replace what is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use image_format::ExitCode;

use crate::bundle;
use crate::failure::{Failure, reason};
use crate::image::ImageFile;
use crate::progress::{Bar, Progress};
use crate::stdout;
use crate::stub;
use crate::text;

/// How far it is.
static PROGRESS: Progress = Progress::new();

/// Bytes that are copied between two looks at how far it is.
const PIECE: u64 = 16 << 20;

/// Join an image and the restart stub into one executable, which is the saved program
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "./APP restarts the program, by the rules of `ckpt restart`, on a machine that has nothing of this software. Options of the \
restart come behind --ckpt-: ./APP --ckpt-files=rollback --ckpt-fd 1=job.log. The image lies in APP as it is, at a multiple of the page size; `ckpt show`, \
`ckpt verify`, `ckpt check` and `ckpt restart` take APP for an image, too. APP is for its owner alone (mode 0700): it holds all that the program \
held in memory."
)]
pub struct Args {
    /// The image, compressed or not
    image: PathBuf,
    /// The executable
    #[arg(short, long, value_name = "APP")]
    output: PathBuf,
    /// Replace a file that is no bundle, too
    #[arg(long)]
    force: bool,
}

/// Makes it and prints one line.
pub fn main(args: Args) -> Result<(), Failure> {
    let image = ImageFile::open(&args.image)?;
    image.checked()?;
    image.others()?.iter().try_for_each(|other| other.checked().map(drop))?;
    let app = &*args.output;
    if !args.force && fs::symlink_metadata(app).is_ok() && !bundle::is_one(app) {
        let what = format_args!("{}: is there, and no bundle: --force, or another name", text::path(app)).to_string();
        return Err(Failure::new(ExitCode::SaveFailed, what));
    }
    let front = bundle::front(stub::bytes()?).ok_or_else(|| unwritable(app, &io::ErrorKind::InvalidData.into()))?;
    let (Some(file), Some(name)) = (image.file(), app.file_name()) else {
        return Err(unwritable(app, &io::ErrorKind::InvalidFilename.into()));
    };
    // Beside it, under a name that nobody starts.
    let mut half = std::ffi::OsString::from(".");
    half.push(name);
    half.push(format!(".{}", std::process::id()));
    let half = app.with_file_name(half);
    PROGRESS.at_least(image.len());
    let bar = Bar::new("bundling", &PROGRESS);
    let written = write(file, image.start(), &front, &half).and_then(|()| place(&half, app));
    drop(bar);
    if let Err(e) = written {
        let _ = fs::remove_file(&half);
        return Err(unwritable(app, &e));
    }
    let size = text::size(image.len() + front.len() as u64);
    stdout::print(format_args!("{}: {size}: start it to restart the program\n", text::path(app)))
}

/// Writes both parts, durably.
fn write(mut image: &File, start: u64, front: &[u8], to: &Path) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o700).open(to)?;
    out.write_all(front)?;
    image.seek(SeekFrom::Start(start))?;
    loop {
        // The kernel copies, or shares the blocks where the file system can.
        let n = io::copy(&mut image.take(PIECE), &mut out)?;
        PROGRESS.add(n);
        if n == 0 {
            return out.sync_all();
        }
    }
}

/// Gives it its name, durably.
fn place(half: &Path, app: &Path) -> io::Result<()> {
    fs::rename(half, app)?;
    let directory = app.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn unwritable(app: &Path, error: &io::Error) -> Failure {
    let what = format_args!("{}: cannot be written: {}", text::path(app), reason(error)).to_string();
    Failure::new(ExitCode::SaveFailed, what)
}
