//! Files that a restart cuts back to their size at the save: which they are, and what is said of them afterwards.
//!
//! Must never cut one itself: the restart does.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use image_format::record::regular::Regular;
use rustix::fs::{SeekFrom, fstat, seek};
use sys::abi::{O_ACCMODE, O_PATH, O_RDONLY};

use crate::failure::Failure;
use crate::image::ImageFile;
use crate::text;

/// A file that is longer than it was at the save.
#[derive(Debug)]
struct Grown {
    path: PathBuf,
    id: (u64, u64),
    saved: u64,
    now: u64,
    /// Where what was written since will be.
    tail: PathBuf,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Rollback(Vec<Grown>);

impl Rollback {
    /// Those of an image whose program writes them; `place`: where a path of it leads now; `left`: those that are left as they are.
    pub fn of(file: &ImageFile, place: impl Fn(&Path) -> PathBuf, left: impl Fn(u32) -> bool) -> Result<Self, Failure> {
        let checked = file.checked()?;
        let mut all = Vec::new();
        for record in checked.image.table::<Regular>().map_err(|fault| file.fault(fault))? {
            let flags = record.flags.get();
            if flags & O_ACCMODE == O_RDONLY || flags & O_PATH != 0 || left(record.id.get()) {
                continue;
            }
            let path = checked.image.string(record.path).map_err(|fault| file.fault(fault))?;
            let path = place(Path::new(std::ffi::OsStr::from_bytes(path)));
            let Ok(meta) = fs::metadata(&path) else { continue };
            let (saved, now, id) = (record.identity.size.get(), meta.len(), (meta.dev(), meta.ino()));
            if meta.is_file() && now > saved && !all.iter().any(|grown: &Grown| grown.id == id) {
                all.push(Grown { tail: free_name(&path), path, id, saved, now });
            }
        }
        Ok(Self(all))
    }

    /// What became of them: a line each.
    pub fn words(&self) -> Vec<String> {
        let word = |grown: &Grown| {
            let kept = fs::metadata(&grown.tail).is_ok_and(|meta| meta.len() >= grown.now - grown.saved);
            kept.then(|| {
                let since = text::size(grown.now - grown.saved);
                let (path, tail) = (text::path(&grown.path), text::path(&grown.tail));
                format!(
                    "{path}: cut back to what it was at the save: the {since} that were written since are in {tail}"
                )
            })
        };
        self.0.iter().filter_map(word).collect()
    }

    /// Whether standard error is one of them, which has lost what this command has said there. It is then written at its end.
    pub fn has_cut_our_words(&self) -> bool {
        let stderr = std::io::stderr();
        let Ok(own) = fstat(stderr.as_fd()) else { return false };
        let is_ours = self.0.iter().any(|grown| grown.id == (own.st_dev, own.st_ino));
        if is_ours {
            // Where it is not opened for appending, it would write behind a hole.
            let _ = seek(stderr.as_fd(), SeekFrom::End(0));
        }
        is_ours
    }
}

/// The name under which a restart keeps what it cuts off.
fn free_name(path: &Path) -> PathBuf {
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".after-restart.{n}"));
        PathBuf::from(name)
    };
    (1..).map(name).find(|name| name.symlink_metadata().is_err()).unwrap_or_else(|| path.to_owned())
}
