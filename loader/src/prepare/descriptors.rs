//! The program's descriptors: opened again, or taken from what this process was given, kept out of the way for now.

use image_format::record::descriptor::Descriptor;
use image_format::record::device::Device;
use image_format::record::directory::Directory;
use image_format::record::lock::{Lock, LockKind};
use image_format::record::memory::Backing;
use image_format::record::pipe::Pipe;
use image_format::record::regular::Regular;
use image_format::record::terminal::Terminal;
use image_format::{Checked, ExitCode};
use loader::options::Options;
use state::{Error, Result};
use sys::abi::{O_ACCMODE, O_RDONLY, O_RDWR, S_IFIFO, S_IFMT};
use sys::fs::Fd;
use sys::text::{Decimal, Plain, Shown};

use super::files::Files;
use crate::heap;

/// The first number above all of the program's: what is opened now waits there.
///
/// # Errors
/// The limit of descriptors leaves no room.
pub fn first_free_above(image: &Checked<'_>) -> Result<Fd> {
    let top = image.table::<Descriptor>().last().map_or(0, |d| d.fd.get());
    // Those that this process was started with are found by their numbers, which lie below, too.
    Fd::try_from(top.max(63) + 1).map_err(|_| {
        Error::refused(format_args!("descriptor {}", Decimal(top)), "is too large", "").code(ExitCode::Malformed)
    })
}

/// Opens or takes what each descriptor shall be.
///
/// # Errors
/// The descriptor that cannot be had.
pub fn open(image: &Checked<'_>, options: &Options<'_>, base: Fd) -> Result<Files> {
    let table = image.table::<Descriptor>();
    let backings = heap::descriptors(image.table::<Backing>().len())?;
    let files = Files { backings, descriptors: heap::descriptors(table.len())?, exe: -1 };
    for (index, descriptor) in table.iter().enumerate() {
        let (fd, id) = (descriptor.fd.get(), descriptor.file.get());
        let inherited = is_inherited(image, id);
        // Descriptors of one description share it again, except that standard input, output and error are given
        // to a program one by one, and may be redirected one by one.
        let before = table.iter().zip(&*files.descriptors).take(index);
        let twin = before.into_iter().find(|(d, _)| d.file.get() == id && !(inherited && fd <= 2));
        let open = match (asked_for(options, fd), twin) {
            (Some(path), _) => by_option(image, fd, id, path)?,
            (None, Some((_, open))) => sys::fs::dup_above(*open, base),
            (None, None) if inherited => inherit(image, fd, id)?,
            (None, None) => reopen(image, options, fd, id)?,
        };
        let failed = |e| {
            Error::failed(format_args!("descriptor {}", Decimal(fd)), "cannot be kept", e).code(ExitCode::Descriptor)
        };
        let open = open.and_then(|open| move_above(open, base)).map_err(failed)?;
        if let Some(slot) = files.descriptors.get_mut(index) {
            *slot = open;
        }
    }
    for lock in image.table::<Lock>() {
        let found = table.iter().zip(&*files.descriptors).find(|(d, _)| d.fd == lock.fd);
        let Some((_, open)) = found else {
            let object = format_args!("lock on descriptor {}", Decimal(lock.fd));
            return Err(Error::refused(object, "is on no descriptor", "").code(ExitCode::Malformed));
        };
        // Taken now so that a conflict is known in time; the process's own are taken again at the end, since
        // closing any descriptor of a file gives them up (fcntl(2)).
        state::lock::restore(lock, *open)?;
    }
    Ok(files)
}

/// Whether a lock is lost when any descriptor of its file is closed.
#[must_use]
pub fn is_fragile(lock: &Lock) -> bool {
    lock.kind.get() == LockKind::Posix as u32
}

/// Moves a descriptor out of the way of the program's numbers.
fn move_above(fd: Fd, base: Fd) -> sys::Result<Fd> {
    if fd >= base {
        return Ok(fd);
    }
    let moved = sys::fs::dup_above(fd, base)?;
    sys::fs::close(fd);
    Ok(moved)
}

fn asked_for<'o>(options: &Options<'o>, fd: u32) -> Option<&'o [u8]> {
    options.fds.iter().flatten().find(|(n, _)| *n == fd).map(|(_, path)| *path)
}

fn by_option(image: &Checked<'_>, fd: u32, id: u32, path: &[u8]) -> Result<sys::Result<Fd>> {
    let flags = image.table::<Pipe>().iter().find(|p| p.id.get() == id).map(|p| p.flags.get());
    let flags = flags.or(image.table::<Regular>().iter().find(|p| p.id.get() == id).map(|p| p.flags.get()));
    let mode = flags.map_or(O_RDWR, |f| f & O_ACCMODE);
    let opened = sys::fs::open_path(path, mode, 0).map_err(|e| {
        Error::failed(format_args!("--fd {}={}", Decimal(fd), Shown(path)), "cannot be opened", e)
            .code(ExitCode::Descriptor)
    })?;
    Ok(Ok(opened.release()))
}

/// Takes this process's own descriptor of the same number; a terminal's also from any of the first three that is one.
fn inherit(image: &Checked<'_>, fd: u32, id: u32) -> Result<sys::Result<Fd>> {
    let terminal = image.table::<Terminal>().iter().find(|t| t.id.get() == id);
    let number = Fd::try_from(fd).unwrap_or(-1);
    // Standard input, output and error may have been redirected to anything; behind other numbers only a pipe is
    // what the program had.
    let is_open = |fd: Fd| sys::fs::fstat(fd).is_ok_and(|s| fd <= 2 || s.mode & S_IFMT == S_IFIFO);
    // Numbers above 2 may be anything of the caller's shell; for a pipe the number is all there is.
    let own = if terminal.is_some() && fd > 2 { None } else { Some(number).filter(|n| is_open(*n)) };
    if let Some(own) = own {
        return Ok(sys::fs::dup_above(own, 64));
    }
    if let Some(terminal) = terminal {
        if let Ok(tty) = sys::fs::open(c"/dev/tty", terminal.flags.get() & (O_ACCMODE | sys::abi::O_NONBLOCK), 0) {
            return Ok(Ok(tty.release()));
        }
        if let Some(tty) = (0..3).find(|n| sys::terminal::settings(*n).is_ok()) {
            return Ok(sys::fs::dup_above(tty, 64));
        }
    }
    if let Some(standard) = unclaimed(image, id) {
        return Ok(sys::fs::dup_above(standard, 64));
    }
    let (kind, path) = match (terminal, image.table::<Pipe>().iter().find(|p| p.id.get() == id)) {
        (Some(t), _) => ("terminal", image.string(t.path)),
        (None, Some(p)) => ("pipe", image.string(p.path)),
        (None, None) => ("nothing", b"" as &[u8]),
    };
    let object = format_args!("descriptor {} ({} {})", Decimal(fd), Plain(kind), Shown(path));
    Err(Error::refused(
        object,
        "was open to the outside, and this restart has no such descriptor",
        "--fd N=PATH gives it one",
    )
    .code(ExitCode::Descriptor))
}

/// A standard descriptor of this process that the program has put aside: a shell that redirects a builtin keeps its own
/// input or output under a high number meanwhile, and the low one is a file.
fn unclaimed(image: &Checked<'_>, id: u32) -> Option<Fd> {
    let pipe = image.table::<Pipe>().iter().find(|p| p.id.get() == id)?;
    let mut candidates = if pipe.flags.get() & O_ACCMODE == O_RDONLY { 0..1 } else { 1..3 };
    candidates.find(|n| {
        let own = image.table::<Descriptor>().iter().find(|d| d.fd.get() == *n as u32);
        let claimed = own.is_some_and(|d| is_inherited(image, d.file.get()));
        !claimed && sys::fs::fstat(*n).is_ok()
    })
}

/// Whether a description leads outside, so that its descriptors are taken from this process.
fn is_inherited(image: &Checked<'_>, id: u32) -> bool {
    image.table::<Terminal>().iter().any(|t| t.id.get() == id)
        || image.table::<Pipe>().iter().any(|p| p.id.get() == id && p.named.get() == 0)
}

#[inline(never)] // A smaller frame has shorter addresses.
fn reopen(image: &Checked<'_>, options: &Options<'_>, fd: u32, id: u32) -> Result<sys::Result<Fd>> {
    let opened = if let Some(file) = image.table::<Regular>().iter().find(|f| f.id.get() == id) {
        state::regular::restore(image, file, fd, options.files)?
    } else if let Some(file) = image.table::<Directory>().iter().find(|f| f.id.get() == id) {
        state::directory::restore(image, file, fd)?
    } else if let Some(file) = image.table::<Device>().iter().find(|f| f.id.get() == id) {
        state::device::restore(image, file, fd)?
    } else if let Some(file) = image.table::<Pipe>().iter().find(|f| f.id.get() == id) {
        state::pipe::restore(image, file, fd)?
    } else {
        return Err(Error::refused(format_args!("descriptor {}", Decimal(fd)), "points to no open file", "")
            .code(ExitCode::Malformed));
    };
    Ok(Ok(opened.release()))
}
