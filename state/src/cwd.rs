//! The working directory.

use image_format::record::cwd::Cwd;
use image_format::{Checked, ExitCode};
use sys::fs::Fd;
use sys::packed;
use sys::text::Shown;

use crate::{Error, Result, Save, Target};

/// Saves its path; a directory that was removed has none and is refused.
///
/// # Errors
/// Removed, or unreadable.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>) -> Result<()> {
    let mut buffer = [0; 4096];
    let proc = save.target.memory_proc();
    let path = sys::fs::read_link_at(proc, c"cwd", &mut buffer)
        .map_err(|e| Error::failed(format_args!("working directory"), "its name cannot be read", e))?;
    if path.ends_with(b" (deleted)") && !leads_there(proc, path) || !path.starts_with(b"/") {
        return Err(Error::refused(
            format_args!("working directory ({})", Shown(path)),
            "was removed, or cannot be reached",
            "change to another directory first",
        ));
    }
    let path = save.notes.string(path)?;
    let mut buffer = [0; 4096];
    // Seen from outside; a process inside another root sees that as its root.
    let root = sys::fs::read_link_at(proc, c"root", &mut buffer).unwrap_or(b"/");
    if root != b"/" {
        let object = format_args!("root directory ({})", Shown(root));
        return Err(Error::refused(object, "is another one (chroot), which cannot be carried", "save it from inside"));
    }
    save.notes.table(&[Cwd { path }])?;
    Ok(())
}

/// Whether a name that looks like that of a removed directory is the directory's.
fn leads_there(proc: Fd, path: &[u8]) -> bool {
    let there = sys::fs::open_at(proc, c"cwd", sys::abi::O_PATH, 0).and_then(|cwd| sys::fs::fstat(cwd.fd()));
    let (Ok(there), Ok(named)) = (there, sys::fs::stat_path(path)) else { return false };
    (there.dev, there.ino) == (named.dev, named.ino)
}

/// Changes to it.
///
/// # Errors
/// It is not there, or not allowed.
pub fn restore(image: &Checked<'_>) -> Result<()> {
    let path = image.string(image.single::<Cwd>().path);
    sys::fs::chdir(path).map_err(|e| {
        Error::about(packed!("working directory (@): cannot be entered (!)"), 0u32, path, e)
            .code(ExitCode::FileMissing)
            .remedy("create it again")
    })
}
