//! The program's descriptors: opened again, or taken from what this process was given, kept out of the way for now.

use image_format::record::content::ContentFile;
use image_format::record::descriptor::Descriptor;
use image_format::record::epoll::Watch;
use image_format::record::lock::{Lock, LockKind};
use image_format::record::pipe::{Pipe, PipeData};
use image_format::record::process::FD_MASK;
use image_format::record::pty::Pty;
use image_format::record::socket::Socket;
use image_format::record::terminal::Terminal;
use image_format::{Checked, ExitCode, NoteType, OpenFile};
use loader::options::Options;
use state::{Error, Result};
use sys::abi::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, F_SETFL, O_ACCMODE, O_APPEND, O_RDONLY, S_IFIFO, S_IFMT};
use sys::fs::Fd;
use sys::{Errno, packed};

use super::files::Files;
use crate::heap;

/// The first number above all of the program's: what is opened now waits there.
#[must_use]
pub fn first_free_above(image: &Checked<'_>) -> Fd {
    // Those that this process was started with are found by their numbers, which lie below, too.
    let mut top = image.each::<Descriptor>().fold(63, |top, d| top.max(d.fd.get() & FD_MASK));
    // Numbers under which epoll sets watch what the program has closed: they are used for a moment.
    for watch in image.each::<Watch>() {
        top = top.max(watch.fd.get());
    }
    // The image's rules keep them below the greatest number.
    top as Fd + 1
}

/// Opens or takes what each descriptor shall be.
///
/// # Errors
/// The descriptor that cannot be had.
pub fn open(image: &Checked<'_>, options: &Options<'_>, base: Fd, files: &mut Files) -> Result<()> {
    let table = image.table::<Descriptor>();
    (files.descriptors, files.exe) = (heap::descriptors(table.len())?, -1);
    for data in image.each::<PipeData>() {
        // Stays open until all is in place.
        state::pipe::restore_fifo(image, data)?.map(|fifo| move_above(fifo.release(), base));
    }
    for pty in image.each::<Pty>().filter(|pty| pty.id == pty.master) {
        let made = state::pty::restore(pty).and_then(|made| move_above(made, base)).map_err(no_terminal)?;
        if let Some((_, place)) = table.iter().zip(&mut *files.descriptors).find(|(d, _)| d.file == pty.id) {
            *place = made;
        }
    }
    for (index, descriptor) in table.iter().enumerate() {
        let (fd, id) = (descriptor.fd.get() & FD_MASK, descriptor.file.get());
        // The image's rules promise one.
        let Some(file) = image.open_file(id) else { continue };
        let inherited = is_inherited(image, id);
        // Descriptors of one description share it again, except that standard input, output and error are given
        // to a program one by one, and may be redirected one by one.
        let known = state::descriptor::now(image, files.descriptors, id);
        let known = if inherited && fd <= 2 { None } else { known };
        let open = if let Some(path) = asked_for(options, fd) {
            by_option(fd, file, path)?
        } else if files.descriptors.get(index).is_some_and(|open| *open >= 0) {
            // An end of a pipe that was made with the other one.
            continue;
        } else if let Some(known) = known {
            sys::fs::dup_above(known, base)
        } else if inherited {
            inherit(image, fd, file)?
        } else if file.kind == NoteType::Socket || is_again(file) {
            // Made when all others are there: descriptors may wait in them.
            continue;
        } else if let Some(data) = inner(image, id) {
            make_pipe(image, data, base, files, index)
        } else {
            reopen(image, options, (fd, file), files)?
        };
        let failed =
            |e| Error::about(packed!("descriptor #: cannot be kept (!)"), fd, b"", e).code(ExitCode::Descriptor);
        let open = open.and_then(|open| move_above(open, base)).map_err(failed)?;
        if let Some(place) = files.descriptors.get_mut(index) {
            *place = open;
        }
    }
    #[cfg(feature = "tree")]
    opened_again(image, base, files)?;
    state::pty::finish(image, files.descriptors).map_err(no_terminal)?;
    Ok(())
}

/// Whether it is an end of a pipe that is there already.
fn is_again(file: OpenFile<'_>) -> bool {
    cfg!(feature = "tree") && file.of::<Pipe>().is_some_and(|pipe| pipe.again.get() != 0)
}

/// Opens ends of pipes again, when these are there.
#[cfg(feature = "tree")]
fn opened_again(image: &Checked<'_>, base: Fd, files: &mut Files) -> Result<()> {
    for (index, descriptor) in image.table::<Descriptor>().iter().enumerate() {
        let (fd, id) = (descriptor.fd.get() & FD_MASK, descriptor.file.get());
        let Some(pipe) = image.open_file(id).filter(|file| is_again(*file)).and_then(|file| file.of::<Pipe>()) else {
            continue;
        };
        if files.descriptors.get(index).is_none_or(|open| *open >= 0) {
            continue;
        }
        let open = match state::descriptor::now(image, files.descriptors, id) {
            Some(known) => sys::fs::dup_above(known, base),
            None => state::pipe::restore_again(image, pipe, files.descriptors).and_then(|open| move_above(open, base)),
        };
        let failed =
            |e| Error::about(packed!("descriptor #: cannot be kept (!)"), fd, b"", e).code(ExitCode::Descriptor);
        let open = open.map_err(failed)?;
        if let Some(place) = files.descriptors.get_mut(index) {
            *place = open;
        }
    }
    Ok(())
}

/// Does what takes all of them, and the working directory: makes sockets, takes locks, tries what is to be watched.
///
/// # Errors
/// What cannot be had.
pub fn connect(image: &Checked<'_>, base: Fd, files: &mut Files) -> Result<()> {
    let table = image.table::<Descriptor>();
    sockets(image, base, files)?;
    for lock in image.each::<Lock>() {
        let found = table.iter().zip(&*files.descriptors).find(|(d, _)| d.fd == lock.fd);
        // Taken now so that a conflict is known in time; the process's own are taken again at the end, since
        // closing any descriptor of a file gives them up (fcntl(2)).
        state::lock::restore(lock, found.map_or(-1, |(_, open)| *open))?;
    }
    // Epoll sets watch for a moment what they are to watch, so that what cannot be is known in time: a file in the
    // place of a pipe.
    for operation in [EPOLL_CTL_ADD, EPOLL_CTL_DEL] {
        state::epoll::control(image, operation, files.descriptors).map_err(|(fd, e)| {
            Error::about(
                packed!(
                    "descriptor #: cannot be watched by epoll any more (!): --fd N=PATH, with a pipe or a terminal"
                ),
                fd as u32,
                b"",
                e,
            )
            .code(ExitCode::Descriptor)
        })?;
    }
    Ok(())
}

fn no_terminal(e: Errno) -> Error {
    let what = packed!("pseudo-terminal: cannot be made again (!): try setsid(1)");
    Error::about(what, 0u32, b"", e).code(ExitCode::Descriptor)
}

/// Makes the sockets, each for all of its descriptors that have nothing yet.
fn sockets(image: &Checked<'_>, base: Fd, files: &mut Files) -> Result<()> {
    let table = image.table::<Socket>();
    let made = heap::descriptors(table.len())?;
    state::socket::restore(image, made, files.descriptors)?;
    for (descriptor, place) in image.table::<Descriptor>().iter().zip(&mut *files.descriptors) {
        let own = table.iter().zip(&*made).find(|(s, _)| *place < 0 && s.id == descriptor.file);
        if let Some((_, own)) = own {
            *place = sys::fs::dup_above(*own, base).unwrap_or(-1);
        }
    }
    Ok(())
}

/// The contents of a pipe inside the process, by either end.
fn inner<'i>(image: &Checked<'i>, id: u32) -> Option<&'i PipeData> {
    if image.open_file(id)?.of::<Pipe>()?.named.get() != 0 {
        return None;
    }
    image.each::<PipeData>().find(|d| d.read.get() == id || d.write.get() == id)
}

/// Makes such a pipe for the descriptor at `index`; the other end waits for the first descriptor that leads to it.
fn make_pipe(image: &Checked<'_>, data: &PipeData, base: Fd, files: &mut Files, index: usize) -> sys::Result<Fd> {
    let ends = state::pipe::restore_inner(image, data)?;
    let mut own = -1;
    for (end, id) in ends.into_iter().zip([data.read, data.write]) {
        let flags = image.open_file(id.get()).map_or(0, |file| file.flags());
        // Away from the low numbers, where it would be taken for what this process was given.
        let open = move_above(end, base)?;
        sys::fs::fcntl(open, F_SETFL, flags as usize)?;
        let first = image.each::<Descriptor>().position(|d| d.file == id);
        if first == Some(index) {
            own = open;
        } else if let Some(place) = first.and_then(|first| files.descriptors.get_mut(first)) {
            *place = open;
        }
    }
    Ok(own)
}

/// Whether a lock is lost when any descriptor of its file is closed, or its owner is the process that takes it.
#[must_use]
pub fn is_fragile(lock: &Lock) -> bool {
    [LockKind::Posix as u32, LockKind::Lease as u32].contains(&lock.kind.get())
}

/// Moves a descriptor out of the way of the program's numbers.
pub fn move_above(fd: Fd, base: Fd) -> sys::Result<Fd> {
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

fn by_option(fd: u32, file: OpenFile<'_>, path: &[u8]) -> Result<sys::Result<Fd>> {
    let mode = file.flags() & O_ACCMODE;
    // Standard output and error may be led to the same file; and nothing that is there is lost.
    let flags = if mode == O_RDONLY { mode } else { mode | O_APPEND };
    let opened = sys::fs::open_path(path, flags, 0)
        .map_err(|e| Error::about(packed!("--fd #=@: cannot be opened (!)"), fd, path, e).code(ExitCode::Descriptor))?;
    Ok(Ok(opened.release()))
}

/// Takes this process's own descriptor of the same number; a terminal's also from any of the first three that is one.
fn inherit(image: &Checked<'_>, fd: u32, file: OpenFile<'_>) -> Result<sys::Result<Fd>> {
    let (terminal, pipe) = (file.of::<Terminal>(), file.of::<Pipe>());
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
    if let Some(standard) = pipe.and_then(|pipe| unclaimed(image, pipe)) {
        return Ok(sys::fs::dup_above(standard, 64));
    }
    let (kind, path) = match (terminal, pipe) {
        (Some(t), _) => (packed!("terminal"), image.string(t.path)),
        (None, Some(p)) => (packed!("pipe"), image.string(p.path)),
        (None, None) => (packed!("nothing"), b"" as &[u8]),
    };
    let why = packed!("led outside, and this restart has no such descriptor");
    Err(Error::descriptor(fd, kind, path, why, None)
        .code(ExitCode::Descriptor)
        .hint(packed!("--fd N=PATH gives it one")))
}

/// A standard descriptor of this process that the program has put aside: a shell that redirects a builtin keeps its own
/// input or output under a high number meanwhile, and the low one is a file.
fn unclaimed(image: &Checked<'_>, pipe: &Pipe) -> Option<Fd> {
    let mut candidates = if pipe.flags.get() & O_ACCMODE == O_RDONLY { 0..1 } else { 1..3 };
    candidates.find(|n| {
        let own = image.each::<Descriptor>().find(|d| d.fd.get() == *n as u32);
        let claimed = own.is_some_and(|d| is_inherited(image, d.file.get()));
        !claimed && sys::fs::fstat(*n).is_ok()
    })
}

/// Whether a description leads outside, so that its descriptors are taken from this process.
fn is_inherited(image: &Checked<'_>, id: u32) -> bool {
    image.open_file(id).is_some_and(|file| {
        file.kind == NoteType::Terminal
            || !is_again(file) && file.of::<Pipe>().is_some_and(|p| p.named.get() == 0 && inner(image, id).is_none())
    })
}

fn reopen(
    image: &Checked<'_>,
    options: &Options<'_>,
    (fd, file): (u32, OpenFile<'_>),
    files: &Files,
) -> Result<sys::Result<Fd>> {
    let opened = if let Some(file) = file.of() {
        state::regular::restore(image, file, fd, options.files)?
    } else if let Some(file) = file.of() {
        state::directory::restore(image, file, fd)?
    } else if let Some(file) = file.of() {
        state::device::restore(image, file, fd)?
    } else if let Some(file) = file.of() {
        state::pipe::restore(image, file, fd)?
    } else if let Some(file) = file.of::<ContentFile>() {
        let made = files.contents.get(file.content.get() as usize).copied().unwrap_or(-1);
        return Ok(state::content::restore(file, made));
    } else {
        let made = if let Some(pty) = file.of() {
            state::pty::restore_slave(image, pty, files.descriptors)
        } else if let Some(inotify) = file.of() {
            state::inotify::restore(image, inotify)?
        } else if let Some(pidfd) = file.of() {
            state::pidfd::restore(pidfd)
        } else if let Some(eventfd) = file.of() {
            state::eventfd::restore(eventfd)
        } else if let Some(timer) = file.of() {
            state::timerfd::restore(timer)
        } else if let Some(signalfd) = file.of() {
            state::signalfd::restore(signalfd)
        } else {
            state::epoll::restore()
        };
        return Ok(made.and_then(|made| sys::fs::fcntl(made, F_SETFL, file.flags() as usize).map(|_| made)));
    };
    Ok(Ok(opened.release()))
}
