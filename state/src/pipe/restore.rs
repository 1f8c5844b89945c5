//! Pipes and FIFOs at the restart: those inside are made with what they held, then each end is opened as it was.

use image_format::record::pipe::{HUNG_UP, OPENED, Pipe, PipeData};
use image_format::{Checked, ExitCode};
use sys::Errno;
use sys::abi::{F_SETFL, F_SETPIPE_SZ, O_ACCMODE, O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, S_IFIFO, S_IFMT};
use sys::fs::Owned;

use crate::content::{DELETED, nameless, open_again};
use crate::owner;
use crate::restart::{Error, Result};

fn mode(pipe: &Pipe) -> u32 {
    pipe.flags.get() & O_ACCMODE
}

fn find<'i>(image: &Checked<'i>, id: u32) -> Option<&'i Pipe> {
    image.open_file(id).and_then(|file| file.of::<Pipe>())
}

/// The ends of the pipe with this first one.
fn ends<'i>(image: &Checked<'i>, first: u32) -> impl Iterator<Item = &'i Pipe> + Clone {
    let image = *image;
    core::iter::successors(find(&image, first), move |end| find(&image, end.next.get()))
}

/// The records of what a pipe inside holds; none: it lies outside.
fn inner<'i>(image: &Checked<'i>, pipe: u32) -> impl Iterator<Item = &'i PipeData> {
    image.each::<PipeData>().with(pipe)
}

/// Whether it is the pipe of an end that lies inside.
#[must_use]
pub fn is_inner(image: &Checked<'_>, end: &Pipe) -> bool {
    image.each::<PipeData>().place(end.pipe.get()).is_some()
}

/// Makes all pipes that lie inside; `place` gets each end with its id.
///
/// # Errors
/// The kernel's: a buffer above the limit of this user, or a FIFO that is not there; what `place` returns.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn restore_all(image: &Checked<'_>, place: &mut dyn FnMut(u32, Owned) -> Result<()>) -> Result<()> {
    let mut done = None;
    for data in image.each::<PipeData>() {
        if done.replace(data.pipe) == Some(data.pipe) {
            continue;
        }
        // The image's rules promise one.
        let Some(first) = find(image, data.pipe.get()) else { continue };
        let pipe = New { image, data, first, path: image.string(first.path) };
        if pipe.path.starts_with(b"/") { pipe.fifo(place)? } else { pipe.pipe(place)? }
    }
    Ok(())
}

/// A pipe that is made again.
struct New<'i> {
    image: &'i Checked<'i>,
    /// The first record of what it holds.
    data: &'i PipeData,
    /// Its first end.
    first: &'i Pipe,
    path: &'i [u8],
}

impl New<'_> {
    #[cold]
    fn failed(&self, why: &'static str, e: Errno) -> Error {
        let kind = if self.path.starts_with(b"/") { "FIFO @" } else { "pipe @" };
        Error::descriptor(ExitCode::Descriptor, self.first.id.get(), kind, self.path, e, [why, ""])
    }

    fn not_made(&self) -> impl Fn(Errno) -> Error {
        |e| self.failed("cannot be made again", e)
    }

    /// Puts into it what it held, unless it holds something already: then somebody else has kept it open.
    fn fill(&self, write: &Owned) -> sys::Result<()> {
        if sys::fs::waiting(write.fd())? != 0 {
            return Ok(());
        }
        sys::fs::fcntl(write.fd(), F_SETPIPE_SZ, self.data.size.get() as usize)?;
        let packets = if self.data.packet.get() != 0 { O_DIRECT } else { 0 };
        sys::fs::fcntl(write.fd(), F_SETFL, (O_NONBLOCK | packets) as usize)?;
        for part in inner(self.image, self.data.pipe.get()) {
            sys::fs::write_all(write.fd(), self.image.contents(part.bytes))?;
        }
        Ok(())
    }

    /// One of its ends, open by now, gets its flags and its place.
    fn give(&self, end: &Pipe, made: Owned, place: &mut dyn FnMut(u32, Owned) -> Result<()>) -> Result<()> {
        sys::fs::fcntl(made.fd(), F_SETFL, end.flags.get() as usize).map_err(self.not_made())?;
        place(end.id.get(), made)
    }

    fn own(&self, made: &Owned) -> Result<()> {
        let Self { image, data, .. } = self;
        let owned = owner::restore(image, made.fd(), data.uid.get(), data.gid.get());
        owned.and_then(|()| sys::fs::chmod(made.fd(), data.mode.get())).map_err(self.not_made())
    }

    /// A pipe without a name: what pipe(2) makes, and what is opened again by way of that.
    fn pipe(&self, place: &mut dyn FnMut(u32, Owned) -> Result<()>) -> Result<()> {
        let [read, write] = sys::fs::pipe(0).map_err(self.not_made())?;
        self.fill(&write).map_err(|e| self.failed("cannot hold what it held", e))?;
        let opened = |end: &&Pipe| end.how.get() & OPENED != 0;
        let ends = ends(self.image, self.data.pipe.get());
        for end in ends.clone().filter(opened) {
            let again = open_again(read.fd(), mode(end) | O_NONBLOCK).map_err(self.not_made())?;
            self.give(end, again, place)?;
        }
        self.own(&read)?;
        for (made, wanted) in [(read, O_RDONLY), (write, O_WRONLY)] {
            // The image's rules promise one at most.
            if let Some(end) = ends.clone().find(|end| !opened(end) && mode(end) == wanted) {
                self.give(end, made, place)?;
            }
        }
        Ok(())
    }

    /// A FIFO, with its name or without.
    fn fifo(&self, place: &mut dyn FnMut(u32, Owned) -> Result<()>) -> Result<()> {
        let named = self.first.named.get() != 0;
        // It keeps what the FIFO holds, and is at the other side of each end that is opened meanwhile.
        let mut holder = if named {
            match sys::fs::open_path(self.path, O_RDWR | O_NONBLOCK, 0) {
                // Who may only read it has nothing to put into it.
                Err(Errno::EACCES) if self.data.bytes.len.get() == 0 => None,
                opened => Some(checked(opened, self.path, self.first.id.get())?),
            }
        } else {
            Some(self.nameless()?)
        };
        if let Some(holder) = &holder {
            self.fill(holder).map_err(|e| self.failed("cannot hold what it held", e))?;
        }
        let open = |holder: &Option<Owned>, end: &Pipe, mode: u32| match holder {
            Some(holder) if !named => open_again(holder.fd(), mode | O_NONBLOCK).map_err(self.not_made()),
            _ => open_named(self.path, end.id.get(), mode),
        };
        let ends = ends(self.image, self.data.pipe.get());
        // An end that was opened while there was no writer sees no hang-up.
        let is_quiet = |end: &&Pipe| mode(end) == O_RDONLY && end.how.get() & HUNG_UP == 0;
        let quiet = ends.clone().all(|end| mode(end) == O_RDONLY);
        for end in ends.clone().filter(|end| !quiet || !is_quiet(end)) {
            self.give(end, open(&holder, end, mode(end))?, place)?;
        }
        for end in ends.filter(|end| quiet && is_quiet(end)) {
            holder = Some(open(&holder, end, O_RDONLY)?);
            self.give(end, open(&holder, end, O_RDONLY)?, place)?;
        }
        match holder {
            Some(holder) if !named => self.own(&holder),
            _ => Ok(()),
        }
    }

    /// A FIFO without a name, open for both: in its old directory or, where that takes none, in another one, or a pipe.
    fn nameless(&self) -> Result<Owned> {
        let path = self.path.strip_suffix(DELETED).unwrap_or(self.path);
        let pipe = |_| {
            let [read, _write] = sys::fs::pipe(0)?;
            open_again(read.fd(), O_RDWR | O_NONBLOCK)
        };
        nameless(path, O_RDWR | O_NONBLOCK, &|name| sys::fs::make_fifo(name, 0o600))
            .or_else(pipe)
            .map_err(self.not_made())
    }
}

/// Opens a FIFO that leads outside by its name, without waiting for the other side; its flags are set when it is in place. (A pipe
/// without a name is inherited, see the restart.)
///
/// # Errors
/// Missing, no FIFO, or opened for writing while nobody reads.
pub fn restore(image: &Checked<'_>, pipe: &Pipe, fd: u32) -> Result<Owned> {
    open_named(image.string(pipe.path), fd, pipe.flags.get())
}

/// Whether a FIFO that leads outside is there under its name.
///
/// # Errors
/// It is missing, or no FIFO.
pub fn is_there(image: &Checked<'_>, pipe: &Pipe, fd: u32) -> Result<()> {
    let path = image.string(pipe.path);
    match sys::fs::stat_path(path) {
        Ok(stat) if stat.mode & S_IFMT == S_IFIFO => Ok(()),
        Ok(_) => Err(not_opened(path, fd)(ExitCode::FileMissing, "is no FIFO any more", Errno::EINVAL)),
        Err(e) => Err(not_opened(path, fd)(ExitCode::FileMissing, "cannot be opened", e)),
    }
}

/// The error of an end that led outside, where the restart has nothing in its place.
#[must_use]
pub fn led_outside(image: &Checked<'_>, pipe: &Pipe, fd: u32) -> Error {
    let why = "led outside, and this restart has no such descriptor";
    Error::descriptor(ExitCode::Descriptor, fd, "pipe @", image.string(pipe.path), None, [why, OUTSIDE])
}

/// What is to be done about a descriptor that led outside.
pub const OUTSIDE: &str = "--fd #=PATH gives it one, --fd #=closed an end whose other side is gone";

fn not_opened(path: &[u8], fd: u32) -> impl Fn(ExitCode, &'static str, Errno) -> Error {
    move |code, why, e| {
        let remedy = "create it and start its other end, or --fd #=PATH";
        Error::descriptor(code, fd, "FIFO @", path, e, [why, remedy])
    }
}

fn open_named(path: &[u8], fd: u32, flags: u32) -> Result<Owned> {
    checked(sys::fs::open_path(path, flags | O_NONBLOCK, 0), path, fd)
}

/// What was opened, if it is a FIFO.
fn checked(opened: sys::Result<Owned>, path: &[u8], fd: u32) -> Result<Owned> {
    let failed = not_opened(path, fd);
    let opened = opened.map_err(|e| failed(ExitCode::FileMissing, "cannot be opened", e))?;
    let stat = sys::fs::fstat(opened.fd()).map_err(|e| failed(ExitCode::FileMissing, "cannot be examined", e))?;
    if stat.mode & S_IFMT != S_IFIFO {
        return Err(failed(ExitCode::FileChanged, "is no FIFO any more", Errno::ENXIO));
    }
    Ok(opened)
}
