//! Standard streams of a job that goes on: the old files where they are as they were, else those that `ckpt run` has itself now.
//!
//! Must never give a program another input than it had.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use image_format::record::content::Content;
use image_format::record::descriptor::Descriptor;
use image_format::record::regular::Regular;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use state::WithFiles;
use state::regular::{Change, compare};
use sys::abi::{O_ACCMODE, O_PATH, O_RDONLY, O_RDWR, Stat};

use crate::failure::Failure;
use crate::image::ImageFile;
use crate::stub::Files;
use crate::text;

/// A standard stream that is this command's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub fd: u32,
    /// The file that the program had, if it is left as it is: not cut back.
    pub left: Option<u32>,
    /// What is to be said of it.
    pub words: Option<String>,
}

/// Which files are carried without being asked for: small ones, but not this command's own standard streams. Who rotates a log does not want it
/// back.
pub fn but_own() -> WithFiles {
    let own = |fd| sys::fs::fstat(fd).map_or((0, 0), |stat| (stat.dev, stat.ino));
    WithFiles::Small([own(0), own(1), own(2)])
}

/// Those of an image; `place`: where a path of it leads now.
pub fn taken(file: &ImageFile, policy: Files, place: impl Fn(&Path) -> PathBuf) -> Result<Vec<Taken>, Failure> {
    let checked = file.checked()?;
    let (image, fault) = (&checked.image, |fault| file.fault(fault));
    let (descriptors, regular) =
        (image.table::<Descriptor>().map_err(fault)?, image.table::<Regular>().map_err(fault)?);
    let contents = image.table::<Content>().map_err(fault)?;
    let mut all = Vec::new();
    for fd in 0..=2 {
        let Some(id) = descriptors.iter().find(|d| d.fd.get() == fd).map(|d| d.file) else { continue };
        let Some(record) = regular.iter().find(|record| record.id == id) else { continue };
        let named = image.string(record.path).map_err(fault)?;
        let path = place(Path::new(OsStr::from_bytes(named)));
        // What the image has was no stream of `ckpt run`, and is made again.
        if sys::fs::stat_path(path.as_os_str().as_bytes()).is_err_and(|e| e == sys::Errno::ENOENT)
            && contents.iter().any(|content| image.string(content.name) == Ok(named))
        {
            continue;
        }
        let Ok(own) = sys::fs::fstat(fd.cast_signed()) else { continue };
        let Some(found) = classify(record, &path, &own, policy) else { continue };
        let words = found.why.map(|why| {
            let (name, path) = (["input", "output", "error"].get(fd as usize).unwrap_or(&""), text::path(&path));
            format!("standard {name}: {path} {why}: it is that of this command now")
        });
        all.push(Taken { fd, left: found.left.then_some(id.get()), words });
    }
    Ok(all)
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
