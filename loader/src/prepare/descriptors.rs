//! The program's descriptors: opened again, or taken from what this process was given, kept out of the way for now.

use image_format::record::content::ContentFile;
use image_format::record::descriptor::Descriptor;
use image_format::record::epoll::Watch;
use image_format::record::lock::{Lock, LockKind};
use image_format::record::pipe::Pipe;
use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::record::pty::Pty;
use image_format::record::socket::Socket;
use image_format::record::terminal::Terminal;
use image_format::{Checked, ExitCode, NoteType, OpenFile};
use loader::options::Options;
use state::restart::{Error, Result};
use state::wait::Wait;
use sys::Errno;
use sys::abi::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, F_SETFL, O_ACCMODE, O_RDONLY, S_IFIFO, S_IFMT, TIOCGPTN};
use sys::fs::Fd;

use super::files::Files;
use super::given;
use crate::heap;
use crate::start::tell;

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
    state::pipe::restore_all(image, &mut |id, end| {
        // Away from the low numbers, where it would be taken for what this process was given.
        let open = move_above(end.release(), base).map_err(|e| not_kept(id, e))?;
        put(image, files, id, open);
        Ok(())
    })?;
    for pty in image.each::<Pty>().filter(|pty| pty.id == pty.master) {
        let made = state::pty::restore(pty).and_then(|made| move_above(made, base)).map_err(no_terminal)?;
        let number = pty.number.get();
        if sys::terminal::number(made, TIOCGPTN).is_ok_and(|now| now != number) {
            // Links to it lead elsewhere.
            tell(2, "/dev/pts/#: is taken: the program's pseudo-terminal gets another number", number.into(), b"", 0);
        }
        put(image, files, pty.id.get(), made);
    }
    for (index, descriptor) in table.iter().enumerate() {
        let (fd, id) = (descriptor.fd.get() & FD_MASK, descriptor.file.get());
        // The image's rules promise one.
        let Some(file) = image.open_file(id) else { continue };
        let inherited = !is_in_transit(image, descriptor) && is_inherited(image, id);
        // Descriptors of one description share it again, except that standard input, output and error are given
        // to a program one by one, and may be redirected one by one.
        let known = state::descriptor::now(image, files.descriptors, id);
        let known = if inherited && fd <= 2 { None } else { known };
        let root = given::shared_with(image, options, descriptor).and_then(|root| files.descriptors.get(root).copied());
        let open = if let Some(what) = given::asked_for(image, options, descriptor) {
            Ok(given::open(image, fd, file, what)?)
        } else if let Some(root) = root {
            sys::fs::dup_above(root, base)
        } else if files.descriptors.get(index).is_some_and(|open| *open >= 0) {
            // Pipes inside and terminals are there already.
            continue;
        } else if let Some(known) = known {
            sys::fs::dup_above(known, base)
        } else if inherited {
            inherit(image, fd, file)?
        } else if matches!(file.kind, NoteType::Socket | NoteType::IoUring) {
            // Made when all others are there: descriptors may wait in them. Or by the process whose it is.
            continue;
        } else {
            reopen(image, options, (fd, file), files)?
        };
        let open = open.and_then(|open| move_above(open, base)).map_err(|e| not_kept(fd, e))?;
        if let Some(place) = files.descriptors.get_mut(index) {
            *place = open;
        }
    }
    state::pty::finish(image, files.descriptors).map_err(no_terminal)?;
    Ok(())
}

/// Whether nobody has it but a message in transit.
#[must_use]
pub fn is_in_transit(image: &Checked<'_>, descriptor: &Descriptor) -> bool {
    (descriptor.fd.get() >> FD_BITS) as usize > image.processes().len()
}

fn not_kept(fd: u32, e: Errno) -> Error {
    Error::descriptor(ExitCode::Descriptor, fd, "", b"", e, ["cannot be kept", ""])
}

/// What an open file's first descriptor is to be.
fn put(image: &Checked<'_>, files: &mut Files, id: u32, open: Fd) {
    let place = state::descriptor::first(image, id).and_then(|index| files.descriptors.get_mut(index));
    place.into_iter().for_each(|place| *place = open);
}

/// Does what takes all of them, and the working directory: makes sockets, takes locks, tries what is to be watched.
///
/// # Errors
/// What cannot be had.
pub fn connect(image: &Checked<'_>, options: &Options<'_>, base: Fd, files: &mut Files) -> Result<()> {
    let mut wait = Wait::of_seconds(options.retry.unsigned_abs());
    sockets(image, base, files, &mut wait)?;
    for lock in image.each::<Lock>() {
        let found = image.each::<Descriptor>().place(lock.fd.get());
        // Taken now so that a conflict is known in time; the process's own are taken again at the end, since
        // closing any descriptor of a file gives them up (fcntl(2)).
        let open = found.and_then(|index| files.descriptors.get(index)).map_or(-1, |open| *open);
        while let Err(e) = state::lock::restore(lock, open) {
            if !matches!(e, Errno::EAGAIN | Errno::EACCES) || !wait.again(b"a lock") {
                return Err(state::lock::not_taken(lock, e));
            }
        }
    }
    // Epoll sets watch for a moment what they are to watch, so that what cannot be is known in time: a file in the
    // place of a pipe.
    for operation in [EPOLL_CTL_ADD, EPOLL_CTL_DEL] {
        state::epoll::control(image, operation, files.descriptors).map_err(|(fd, e)| {
            let words = ["cannot be watched by epoll any more", "--fd #=PATH, with a pipe or a terminal"];
            let fd = fd as u32;
            Error::descriptor(ExitCode::Descriptor, fd, "", b"", e, words)
        })?;
    }
    Ok(())
}

fn no_terminal(e: Errno) -> Error {
    let what = "pseudo-terminal: cannot be made again (!): try setsid(1)";
    Error::about(ExitCode::Descriptor, what, 0u32, b"", e)
}

/// Makes the sockets, each for all of its descriptors that have nothing yet.
fn sockets(image: &Checked<'_>, base: Fd, files: &mut Files, wait: &mut Wait) -> Result<()> {
    let table = image.table::<Socket>();
    let made = heap::descriptors(table.len())?;
    state::socket::restore(image, made, files.descriptors, wait)?;
    for (descriptor, place) in image.table::<Descriptor>().iter().zip(&mut *files.descriptors) {
        let index = image.each::<Socket>().place(descriptor.file.get());
        if let Some(own) = index.and_then(|index| made.get(index)).filter(|_| *place < 0) {
            *place = sys::fs::dup_above(*own, base).unwrap_or(-1);
        }
    }
    Ok(())
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
    // SAFETY: moved to another number.
    unsafe { sys::fs::close(fd) };
    Ok(moved)
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
    if let Some(pipe) = pipe {
        return Err(state::pipe::led_outside(image, pipe, fd));
    }
    let path = terminal.map_or(b"" as &[u8], |t| image.string(t.path));
    let why = "led outside, and this restart has no such descriptor";
    Err(Error::descriptor(ExitCode::Descriptor, fd, "terminal @", path, None, [why, state::pipe::OUTSIDE]))
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
            || file.of::<Pipe>().is_some_and(|p| p.named.get() == 0 && !state::pipe::is_inner(image, p))
    })
}

#[inline(never)] // A smaller frame has shorter addresses.
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
