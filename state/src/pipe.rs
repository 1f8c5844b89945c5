//! Pipes and FIFOs to the outside: at restart the program gets what the restart itself has under that number.

use image_format::record::pipe::Pipe;
use image_format::{Checked, ExitCode, NoteType};
use sys::abi::{O_ACCMODE, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, S_IFIFO, S_IFMT};
use sys::fs::Owned;
use sys::text::{Decimal, Shown};

use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Result, Save, Target};

/// Refuses a pipe whose both ends are inside.
///
/// # Errors
/// Such a pipe.
pub fn check(file: &OpenFile, path: &[u8], others: &[OpenFile]) -> Result<()> {
    let end = |f: &OpenFile| f.flags & O_ACCMODE;
    let both = |a: u32, b: u32| a == O_RDWR || (a == O_RDONLY && b == O_WRONLY) || (a == O_WRONLY && b == O_RDONLY);
    let same = |f: &&OpenFile| (f.dev, f.ino) == (file.dev, file.ino) && both(end(f), end(file));
    let Some(other) = others.iter().find(same) else { return Ok(()) };
    Err(Error::refused(
        format_args!("descriptors {} and {} ({})", other.fd, file.fd, Shown(path)),
        "are the two ends of a pipe inside the process, which cannot be carried yet",
        "close it before the save",
    ))
}

/// Writes the table.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.notes.begin(NoteType::Pipe)?;
    for file in files.iter().filter(|f| f.is_first(Kind::Pipe)) {
        let (id, flags) = (file.id.into(), file.flags.into());
        let named = u32::from(file.named != 0).into();
        save.notes.push(&Pipe { id, flags, ino: file.ino.into(), path: file.path, named, reserved: 0.into() })?;
    }
    save.notes.end()?;
    Ok(())
}

/// Opens a FIFO again by its name, without waiting for the other end; its flags are set when it is in place. (A pipe
/// without a name is inherited, see the restart.)
///
/// # Errors
/// Missing, no FIFO, or opened for writing while nobody reads.
pub fn restore(image: &Checked<'_>, pipe: &Pipe, fd: u32) -> Result<Owned> {
    let path = image.string(pipe.path);
    let failed = |why, e| {
        Error::failed(format_args!("descriptor {} (FIFO {})", Decimal(fd), Shown(path)), why, e)
            .code(ExitCode::FileMissing)
            .remedy("create it and start its other end, or --fd N=PATH")
    };
    let opened =
        sys::fs::open_path(path, pipe.flags.get() | O_NONBLOCK, 0).map_err(|e| failed("cannot be opened", e))?;
    let stat = sys::fs::fstat(opened.fd()).map_err(|e| failed("cannot be examined", e))?;
    if stat.mode & S_IFMT != S_IFIFO {
        return Err(failed("is no FIFO any more", sys::Errno::ENXIO).code(ExitCode::FileChanged));
    }
    Ok(opened)
}
