//! The names that a job's images have, and what becomes of them when the job is done, begins anew, or finds one damaged.
//!
//! Must never remove an image that a job may still need.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image_format::ExitCode;

use crate::failure::{Failure, reason};
use crate::text;

/// Most images of a job that are kept.
pub const KEPT_MAX: u32 = 99;

/// A name behind which something stands.
fn with(image: &Path, end: impl AsRef<OsStr>) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// What the last image of a job is called that has ended well.
pub fn done(image: &Path) -> PathBuf {
    with(image, ".done")
}

/// The name of an image with a free number, behind a word.
fn numbered(image: &Path, word: &str) -> PathBuf {
    let name = |n: u32| with(image, format!(".{word}.{n}"));
    (1..).map(name).find(|name| name.symlink_metadata().is_err()).unwrap_or_else(|| with(image, format!(".{word}")))
}

/// What an image is to its job, as its name tells, and the name of the job's newest one.
pub fn state(image: &Path) -> (PathBuf, &'static str) {
    let (Some(base), Some(end)) = (image.file_stem(), image.extension().and_then(OsStr::to_str)) else {
        return (image.to_owned(), "newest");
    };
    let base = image.with_file_name(base);
    let is_number = !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit());
    match (end, base.extension().and_then(OsStr::to_str)) {
        ("done", _) => (base, "done"),
        (_, Some("aside")) if is_number => (base.with_extension(""), "aside"),
        (_, Some("damaged")) if is_number => (base.with_extension(""), "damaged"),
        _ if is_number => (base, "older"),
        _ => (image.to_owned(), "newest"),
    }
}

/// Those that are there, the newest first.
pub fn all(image: &Path) -> VecDeque<PathBuf> {
    let older = (1..KEPT_MAX).map(|n| with(image, format!(".{n}")));
    std::iter::once(image.to_owned()).chain(older).filter(|name| name.symlink_metadata().is_ok()).collect()
}

/// Whether one with this exit code is damaged, so that an older one may serve.
pub fn is_damage(code: u8) -> bool {
    const DAMAGE: [ExitCode; 6] = [
        ExitCode::Empty,
        ExitCode::Truncated,
        ExitCode::Damaged,
        ExitCode::Malformed,
        ExitCode::BadAddress,
        ExitCode::DamagedMemory,
    ];
    DAMAGE.iter().any(|one| *one as u8 == code)
}

/// Refuses what no image can be: a save would put one in its place.
pub fn refuse_others(image: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(image) {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(_) => {
            let what =
                format_args!("{}: is no regular file: choose another image with -o", text::path(image)).to_string();
            Err(Failure::new(ExitCode::SaveFailed, what))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Failure::unreadable(image, "the image cannot be examined", &e)),
    }
}

/// The job has ended well: its image gets another name, so that the next run begins anew, and older ones that are `its` are removed. Returns
/// that name, if there was an image.
pub fn finish(image: &Path, its: impl Fn(&Path) -> bool) -> io::Result<Option<PathBuf>> {
    let mut images = all(image);
    let Some(newest) = images.pop_front() else { return Ok(None) };
    let done = done(image);
    fs::rename(&newest, &done)?;
    images.iter().filter(|older| its(older)).try_for_each(fs::remove_file)?;
    Ok(Some(done))
}

/// Another job begins in the place of the one whose images these are. Returns the name under which the newest is kept.
pub fn set_aside(image: &Path) -> Result<Option<PathBuf>, Failure> {
    let mut first = None;
    for old in all(image) {
        let name = numbered(image, "aside");
        rename(&old, &name)?;
        first.get_or_insert(name);
    }
    Ok(first)
}

/// An image is damaged: it leaves its place to an older one. Returns the name under which it is kept.
pub fn is_damaged(image: &Path) -> Result<PathBuf, Failure> {
    let name = numbered(image, "damaged");
    rename(image, &name).map(|()| name)
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::rename(from, to).map_err(|e| {
        let what = format_args!("{}: cannot be renamed: {}", text::path(from), reason(&e)).to_string();
        Failure::new(ExitCode::SaveFailed, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_an_image_is() {
        for (name, base, is) in [
            ("a/job.ckpt", "a/job.ckpt", "newest"),
            ("a/job.ckpt.1", "a/job.ckpt", "older"),
            ("a/job.ckpt.done", "a/job.ckpt", "done"),
            ("a/job.ckpt.aside.2", "a/job.ckpt", "aside"),
            ("a/job.ckpt.damaged.10", "a/job.ckpt", "damaged"),
            ("a/job", "a/job", "newest"),
        ] {
            assert_eq!(state(Path::new(name)), (PathBuf::from(base), is), "{name}");
        }
    }

    #[test]
    fn the_newest_comes_first() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let image = dir.path().join("job.ckpt");
        assert!(all(&image).is_empty());
        for end in [".2", "", ".1", ".100", ".done"] {
            fs::write(with(&image, end), end)?;
        }
        assert_eq!(all(&image), [image.clone(), with(&image, ".1"), with(&image, ".2")]);
        assert_eq!(finish(&image, |older| older != with(&image, ".2"))?, Some(done(&image)));
        assert!(!image.exists() && !with(&image, ".1").exists() && with(&image, ".2").exists());
        assert_eq!(fs::read(done(&image))?, b"");
        Ok(())
    }
}
