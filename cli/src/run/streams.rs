//! Standard streams of a job that goes on: the old files where they are as they were, else those that `ckpt run` has itself now.
//!
//! Must never give a program another input than it had.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use image_format::Checked;
use image_format::record::content::Content;
use image_format::record::descriptor::Descriptor;
use image_format::record::job::{Job, NO_STREAM};
use image_format::record::pipe::Pipe;
use image_format::record::regular::Regular;
use image_format::record::terminal::Terminal;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use state::WithFiles;
use state::regular::{Change, compare};
use sys::abi::{O_ACCMODE, O_PATH, O_RDONLY, O_RDWR, Stat};
use zerocopy::little_endian::U32;

use crate::failure::Failure;
use crate::image::ImageFile;
use crate::stub::Files;
use crate::text;

/// Descriptors of the program that get a standard stream of this command's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which stream: 0, 1 or 2.
    pub stream: u32,
    to: To,
    /// The file that the program had, if it is left as it is: not cut back.
    pub left: Option<u32>,
    /// What is to be said of it.
    pub words: Option<String>,
}

/// Who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// The descriptor of the same number.
    Same,
    /// All descriptors of the open file with this id.
    All(u32),
}

impl Taken {
    /// The `--fd` that says so to the stub.
    pub fn option(&self) -> String {
        match self.to {
            To::Same => format!("{}=inherit", self.stream),
            To::All(id) => format!("{id}=stream:{}", self.stream),
        }
    }
}

/// Which files are carried without being asked for: small ones, but not this command's own standard streams. Who rotates a log does not want it
/// back.
pub fn but_own() -> WithFiles {
    let own = |fd| sys::fs::fstat(fd).map_or((0, 0), |stat| (stat.dev, stat.ino));
    WithFiles::Small([own(0), own(1), own(2)])
}

/// Who gets the standard streams of this command, and the files that were such streams and are opened again, see [`super::job::Job::reopened`].
pub type Streams = (Vec<Taken>, [(u64, u64); 3]);

/// Those of an image; `place`: where a path of it leads now.
pub fn taken(file: &ImageFile, policy: Files, place: impl Fn(&Path) -> PathBuf) -> Result<Streams, Failure> {
    let image = Checked::new(file.checked()?.image).map_err(|fault| file.fault(fault))?;
    let record = |id: U32| image.table::<Regular>().iter().find(|record| record.id == id);
    let of = |fd: u32| image.table::<Descriptor>().iter().find(|d| d.fd.get() == fd).map(|d| d.file);
    let path = |record: &Regular| place(Path::new(OsStr::from_bytes(image.string(record.path))));
    let found = |stream: u32, record: &Regular| {
        let own = sys::fs::fstat(stream.cast_signed()).ok()?;
        let path = path(record);
        let found = classify(record, &path, &own, policy)?;
        let words = found.why.map(|why| {
            let (name, path) = (["input", "output", "error"].get(stream as usize).unwrap_or(&""), text::path(&path));
            format!("standard {name}: {path} {why}: it is that of this command now")
        });
        Some((found.left.then_some(record.id.get()), words))
    };
    let (mut all, mut reopened) = (Vec::new(), [(0, 0); 3]);
    if let Some(job) = image.table::<Job>().first().filter(|job| job.told == 1) {
        for ((stream, id), reopened) in (0..).zip(job.streams).zip(&mut reopened) {
            let (left, words) = match record(id) {
                _ if id == NO_STREAM => continue,
                Some(record) => match found(stream, record) {
                    Some(found) => found,
                    None => {
                        let again = sys::fs::stat_path(path(record).as_os_str().as_bytes());
                        *reopened = again.map_or((0, 0), |stat| (stat.dev, stat.ino));
                        continue;
                    }
                },
                None if is_outside(&image, id.get()) && sys::fs::fstat(stream.cast_signed()).is_ok() => (None, None),
                None => continue,
            };
            // Two streams that were one may be two by now: each number gets its own.
            let same = (of(stream) == Some(id)).then_some(To::Same);
            all.extend(same.map(|to| Taken { stream, to, left, words: None }));
            all.push(Taken { stream, to: To::All(id.get()), left, words });
        }
        all.sort_by_key(|one| one.to != To::Same);
        return Ok((all, reopened));
    }
    // The image does not say which they were: those of the first process, where they are what this command has.
    for stream in 0..=2 {
        let Some(record) = of(stream).and_then(record) else { continue };
        let (named, path) = (image.string(record.path), path(record));
        // What the image has was no stream of `ckpt run`, and is made again.
        if sys::fs::stat_path(path.as_os_str().as_bytes()).is_err_and(|e| e == sys::Errno::ENOENT)
            && image.table::<Content>().iter().any(|content| image.string(content.name) == named)
        {
            continue;
        }
        if let Some((left, words)) = found(stream, record) {
            all.push(Taken { stream, to: To::Same, left, words });
        }
    }
    Ok((all, reopened))
}

/// Whether an open file is a terminal, or a pipe whose other end nobody of the job has.
fn is_outside(image: &Checked<'_>, id: u32) -> bool {
    let pipe = |pipe: &Pipe| pipe.named == 0 && !state::pipe::is_inner(image, pipe);
    image.open_file(id).is_some_and(|file| file.of::<Terminal>().is_some() || file.of().is_some_and(pipe))
}

/// Why a stream is this command's own.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The file that the program had is left as it is.
    left: bool,
    /// What one wants to know, if it is not as it was.
    why: Option<&'static str>,
}

fn classify(record: &Regular, path: &Path, own: &Stat, policy: Files) -> Option<Found> {
    let flags = record.flags.get();
    if flags & O_PATH != 0 {
        return None;
    }
    let mode = flags & O_ACCMODE;
    let access = match mode {
        O_RDONLY => Access::READ_OK,
        O_RDWR => Access::READ_OK | Access::WRITE_OK,
        _ => Access::WRITE_OK,
    };
    let other = |why| Some(Found { left: true, why: Some(why) });
    let named = match sys::fs::stat_path(path.as_os_str().as_bytes()) {
        Ok(named) => named,
        Err(sys::Errno::ENOENT | sys::Errno::ENOTDIR) => return other("is not there any more"),
        Err(_) => return other("cannot be found"),
    };
    let same = (named.dev, named.ino) == (own.dev, own.ino);
    let may = |access| accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
    let (opens, writes) = (may(access), mode != O_RDONLY);
    let left = !same || writes && !may(Access::READ_OK | Access::WRITE_OK);
    let why = match compare(&record.identity, &named, writes) {
        // The old one is as it was, or is cut back to that.
        Change::None if same || opens => return same.then_some(Found { left, why: None }),
        Change::Grown if matches!(policy, Files::Verify) => return None,
        Change::Grown if same && left => "has grown, and cannot be cut back by this user",
        Change::Grown if same || opens => return same.then_some(Found { left, why: None }),
        Change::None | Change::Grown => "cannot be opened by this user",
        // What it reads must be what it was.
        Change::Shrank | Change::Replaced if !writes => return None,
        Change::Shrank => "is shorter than it was at the save",
        Change::Replaced => "was replaced, or written, since the save",
    };
    Some(Found { left, why: Some(why) })
}
