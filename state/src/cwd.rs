//! The working directory.

use image_format::record::cwd::Cwd;
use image_format::{Checked, ExitCode};
use sys::Errno;
use sys::abi::O_PATH;
use sys::fs::Fd;
use sys::text::Shown;

use crate::content::DELETED;
use crate::{Error, Result, Save, Target, directory, restart};

/// Saves its path; that of a directory that was removed ends with a slash.
///
/// # Errors
/// It cannot be reached, or is another root's.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>) -> Result<()> {
    let mut buffer = [0; 4096];
    let proc = save.target.memory_proc();
    let path = sys::fs::read_link_at(proc, c"cwd", &mut buffer)
        .map_err(|e| Error::failed(format_args!("working directory"), "its name cannot be read", e))?;
    let is_gone = path.ends_with(DELETED) && !leads_there(proc, path);
    let is_removed = is_gone && directory::is_removed(proc, c"cwd");
    if is_gone && !is_removed || !path.starts_with(b"/") {
        return Err(Error::refused(
            format_args!("working directory ({})", Shown(path)),
            "cannot be reached",
            "change to another directory first",
        ));
    }
    // What cannot be reached by its name at all is for the restart to say.
    if !is_removed && !matches!(sys::fs::stat_path(path), Err(Errno::EACCES)) && !leads_there(proc, path) {
        let object = format_args!("working directory ({})", Shown(path));
        return Err(Error::refused(object, "lies in mounts of the process's own", FROM_INSIDE));
    }
    let path = if is_removed {
        save.notes.string(directory::removed_name(path).as_bytes())?
    } else {
        save.notes.string(path)?
    };
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

/// What to do where the saver sees other mounts than the process.
pub(crate) const FROM_INSIDE: &str = "save it from inside (nsenter -m -t PID)";

/// Whether this name is the directory's here, where the saver is.
fn leads_there(proc: Fd, path: &[u8]) -> bool {
    let (Ok(there), Ok(named)) = (sys::fs::stat_at(proc, c"cwd", 0), sys::fs::stat_path(path)) else { return false };
    (there.dev, there.ino) == (named.dev, named.ino)
}

/// Changes to it.
///
/// # Errors
/// It is not there, or not allowed.
pub fn restore(image: &Checked<'_>) -> restart::Result<()> {
    let path = image.string(image.single::<Cwd>().path);
    let entered = match directory::removed(path) {
        Some(path) => directory::restore_removed(path, O_PATH).and_then(|made| sys::fs::enter(made.fd())),
        None => sys::fs::chdir(path),
    };
    entered.map_err(|e| {
        restart::Error::about(
            ExitCode::FileMissing,
            "working directory (@): cannot be entered (!): create it again",
            0u32,
            path,
            e,
        )
    })
}
