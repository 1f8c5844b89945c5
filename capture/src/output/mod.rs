//! The image on its way: contents, seal, and then its name. Never half an image under the name.

mod file;
mod older;
#[cfg(feature = "std")]
mod parallel;
mod progress;
mod stream;
#[cfg(feature = "std")]
mod written;

use image_format::Layout;
use image_format::elf::PF_FILE_BYTES;
use image_format::record::header::{Header, Traces};
use image_format::seal::Sum;
use image_format::writer::Full;
use state::content::Contents;
use state::{Error, ErrorKind, Result, Scratch, Target};
use sys::Errno;
use sys::fs::{Fd, Owned};

use self::file::NewFile;
pub use self::file::{Placing, begins_image};
pub use self::progress::Progress;
use crate::pages::Run;
use crate::traces::Search;

/// Bytes that are checksummed and written at a time: they stay in the core's cache in between.
const CHUNK: usize = 128 << 10;

/// Bytes whose way from the page cache to the disk begins at a time, while others are still being written: so little is left for fsync(2) to
/// wait for.
const WRITEBACK: u64 = 1 << 20;

/// Longest path of an image, bytes.
pub const PATH_MAX: usize = 4096;

/// What the writer of memory must know besides: pages with rseq areas, which the kernel may change at any time; and the search for traces
/// of the process's ids.
pub type Marks<'a> = (&'a [u64], Option<&'a Search<'a>>);

/// Where an image is written to; what is unfinished is gone when this value is dropped.
#[derive(Debug)]
pub struct Output {
    to: To,
    /// Where the image begins that is being written: those of a tree's other processes lie within the root's.
    base: u64,
    /// Tells that nobody wants it any more.
    given_up: Option<fn() -> bool>,
    /// Where it says how far it is.
    progress: Option<&'static Progress>,
    /// What describes the image is checked before it is complete.
    is_checked: bool,
}

/// Fails when the save was given up.
fn check(given_up: Option<fn() -> bool>) -> Result<()> {
    if given_up.is_some_and(|given_up| given_up()) {
        return Err(Error::refused(
            format_args!("the save"),
            "was given up: who asked for it has ended, or was told to",
            "save again",
        ));
    }
    Ok(())
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "exists once, on the stack, where there is no allocator")]
enum To {
    /// A file that has no name yet that anybody would restart.
    File(NewFile),
    /// A pipe: bytes can only follow each other; how many did so far.
    Stream { fd: Fd, at: u64 },
    /// The file has its name, and the image that had it before is held.
    Done(Option<Owned>),
}

impl Output {
    /// To a file of this path, which must be absolute; the file is created with the first byte.
    ///
    /// # Errors
    /// The directory is not there or not writable; what has the name is no image.
    pub fn create(path: &[u8], placing: Placing) -> Result<Self> {
        Ok(Self {
            to: To::File(NewFile::new(path, placing)?),
            base: 0,
            given_up: None,
            progress: None,
            is_checked: false,
        })
    }

    /// Writes to a descriptor of the caller's that need not be a file.
    #[must_use]
    pub const fn stream(fd: Fd) -> Self {
        Self { to: To::Stream { fd, at: 0 }, base: 0, given_up: None, progress: None, is_checked: false }
    }

    /// Its file, which is created by the first call; none of a stream.
    ///
    /// # Errors
    /// No file can be created.
    pub fn file(&mut self) -> Result<Option<Fd>> {
        match &mut self.to {
            To::File(file) => file.open().map(Some),
            _ => Ok(None),
        }
    }

    /// Its descriptors, which are not the program's.
    #[must_use]
    pub fn descriptors(&self) -> [Fd; 2] {
        match &self.to {
            To::File(file) => file.descriptors(),
            To::Stream { fd, .. } => [*fd, -1],
            To::Done(_) => [-1, -1],
        }
    }

    fn failed(&self, errno: Errno) -> Error {
        match &self.to {
            To::File(file) => file.failed(errno),
            _ => Error::failed(format_args!("image"), "cannot be written to the stream", errno),
        }
    }

    /// Writes bytes that belong at this offset. Offsets ascend; gaps are zero.
    fn put(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let offset = self.base + offset;
        let given_up = self.given_up;
        check(given_up)?;
        let done = match &mut self.to {
            To::File(file) => sys::fs::pwrite_all(file.open()?, bytes, offset),
            To::Stream { fd, at } => {
                let gap = usize::try_from(offset.saturating_sub(*at)).unwrap_or(usize::MAX);
                let zeros = [0; image_format::PAGE as usize];
                *at = offset + bytes.len() as u64;
                let gap = zeros.get(..gap).ok_or(Errno::ESPIPE);
                gap.and_then(|gap| stream::write(*fd, gap, given_up)).and_then(|()| stream::write(*fd, bytes, given_up))
            }
            To::Done(_) => Err(Errno::EBADF),
        };
        if let Some(progress) = self.progress {
            progress.add(bytes.len() as u64);
        }
        done.or_else(|e| check(given_up).and(Err(self.failed(e))))
    }

    /// Begins anew after a failed attempt.
    ///
    /// # Errors
    /// A stream has begun: what is written is written.
    pub fn restart(&mut self) -> Result<()> {
        if let Some(progress) = self.progress {
            progress.restart();
        }
        match &mut self.to {
            To::File(file) => file.restart().map_err(|e| self.failed(e)),
            To::Stream { at: 0, .. } => Ok(()),
            _ => Err(self.failed(Errno::ESPIPE).remedy("save to a file, or with --freeze")),
        }
    }

    /// The next image begins at this offset.
    pub const fn begin_at(&mut self, base: u64) {
        self.base = base;
    }

    /// Writes a whole image, headers, notes, segments and seal; returns the seal's checksum.
    ///
    /// # Errors
    /// No space, an I/O error, memory that cannot be read.
    pub fn write<T: Target>(
        &mut self,
        target: &T,
        layout: &Layout,
        prefix: &mut [u8],
        (runs, contents): (&[Run], &Contents<'_>),
        marks: Marks<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<u64> {
        let sums = scratch.take::<u64>(runs.len())?;
        self.write_body(target, layout, prefix, (runs, contents, sums), marks, scratch)?;
        self.seal(layout, prefix, sums, scratch)
    }

    /// Writes all but the seal, and the segments' checksums into `sums`. `prefix` begins with the headers.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write_body<T: Target>(
        &mut self,
        target: &T,
        layout: &Layout,
        prefix: &mut [u8],
        (runs, contents, sums): (&[Run], &Contents<'_>, &mut [u64]),
        marks: Marks<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<()> {
        if let Some(progress) = self.progress {
            progress.at_least(self.base + layout.file_len());
        }
        #[cfg(feature = "std")]
        let written =
            !T::IN_PROCESS && self.write_other(target, self.base + layout.segments, (runs, contents, sums), marks.1)?;
        #[cfg(not(feature = "std"))]
        let written = false;
        // What was found in memory stands before it, in the header.
        let streams = matches!(self.to, To::Stream { .. });
        if !written && !streams {
            self.write_runs(target, layout.segments, (runs, contents), sums, marks, scratch)?;
        }
        if let Some(search) = marks.1 {
            let (traces, at) = search.found().map_or((Traces::None, 0), |at| (Traces::Found, at));
            Header::tell_traces(prefix, layout.headers_len(), traces, at)?;
        }
        self.put(prefix, 0)?;
        if !written && streams {
            self.write_runs(target, layout.segments, (runs, contents), sums, (marks.0, None), scratch)?;
        }
        Ok(())
    }

    /// Writes the seal over these checksums, and returns its own.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn seal(&mut self, layout: &Layout, prefix: &[u8], sums: &[u64], scratch: &mut Scratch<'_>) -> Result<u64> {
        let len = usize::try_from(layout.seal_len).map_err(|_| Full)?;
        let seal = image_format::seal::write(scratch.bytes(len)?, layout.file_len(), prefix, sums)?;
        #[cfg(feature = "std")]
        if self.is_checked {
            written::check(prefix, layout.file_len(), seal).map_err(written::refused)?;
        }
        self.put(seal, layout.seal)?;
        Ok(image_format::seal::sum(seal))
    }

    /// Writes another process's memory, unless it goes to a stream, and looks for traces of its ids. False: the memory is still to be
    /// written.
    #[cfg(feature = "std")]
    fn write_other<T: Target>(
        &mut self,
        target: &T,
        at: u64,
        (runs, contents, sums): (&[Run], &Contents<'_>, &mut [u64]),
        search: Option<&Search<'_>>,
    ) -> Result<bool> {
        let file = match &mut self.to {
            To::File(file) => Some(file.open()?),
            _ => None,
        };
        if file.is_some() || search.is_some() {
            let (given_up, progress) = (self.given_up, self.progress);
            parallel::Job { file, target, contents, search, given_up, progress, failed: &|e| self.failed(e) }
                .run(at, runs, sums)?;
        }
        Ok(file.is_some())
    }

    fn write_runs<T: Target>(
        &mut self,
        target: &T,
        mut at: u64,
        (runs, contents): (&[Run], &Contents<'_>),
        sums: &mut [u64],
        marks: Marks<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<()> {
        let bounce = scratch.bytes(CHUNK)?;
        let mut begun = at;
        for (run, sum) in runs.iter().zip(sums.iter_mut()) {
            *sum = self.write_run(target, (run, contents), at, marks, bounce)?;
            at += run.stored();
            if let To::File(file) = &mut self.to
                && at - begun >= WRITEBACK
            {
                sys::fs::begin_writeback(file.open()?, self.base + begun, at - begun);
                begun = at;
            }
        }
        Ok(())
    }

    /// Writes one run and returns its checksum.
    fn write_run<T: Target>(
        &mut self,
        target: &T,
        (run, contents): (&Run, &Contents<'_>),
        mut at: u64,
        (rseq_pages, search): Marks<'_>,
        bounce: &mut [u8],
    ) -> Result<u64> {
        let mut sum = Sum::new();
        let end = run.addr + run.len;
        // What the kernel or another process may change meanwhile is copied first, so that checksum and file agree:
        // the pages of rseq areas, and pages of files.
        let moving = run.flags & PF_FILE_BYTES != 0
            || run.readable == 0
            || run.content().is_some()
            || !T::IN_PROCESS
            || rseq_pages.iter().any(|p| (run.addr..end).contains(p));
        let mut addr = run.addr;
        while addr < end {
            let len = ((end - addr) as usize).min(CHUNK);
            let bytes = if moving {
                let copy = bounce.get_mut(..len).ok_or(Full)?;
                read(target, contents, run, addr, copy)?;
                &*copy
            } else {
                // SAFETY: the run is mapped, readable, and all threads that could change it stand still. It is no
                // Rust object's memory for longer than this loop turn.
                unsafe { core::slice::from_raw_parts(addr as *const u8, len) }
            };
            sum.update(bytes);
            if let Some(search) = search.filter(|_| run.is_own()) {
                search.memory(addr, bytes);
            }
            // The parent's pages are in its image.
            if !run.is_inherited() {
                self.put(bytes, at)?;
            }
            addr += len as u64;
            at += len as u64;
        }
        Ok(sum.digest())
    }

    /// Whether anybody still wants the image.
    ///
    /// # Errors
    /// Nobody does.
    pub fn check(&self) -> Result<()> {
        check(self.given_up)
    }

    /// Reads the file, and checks headers, notes and seals as a restart does.
    ///
    /// # Errors
    /// It cannot be read, or breaks a rule.
    #[cfg(feature = "std")]
    pub fn check_written(&mut self) -> Result<()> {
        match self.file()? {
            Some(file) => written::check_file(file, |e| self.failed(e)),
            None => Ok(()),
        }
    }

    /// From here on `given_up` is asked whether anybody still wants the image, which is checked before it is complete, and `progress` says how
    /// far it is. Not for a process that saves itself.
    pub const fn asks(&mut self, given_up: Option<fn() -> bool>, progress: Option<&'static Progress>) {
        self.given_up = given_up;
        self.progress = progress;
        self.is_checked = true;
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// The kernel's; then the old image is whole.
    pub fn finish(&mut self) -> Result<()> {
        self.check()?;
        if let To::File(file) = &mut self.to {
            file.finish()?;
            self.to = To::Done(file.take_replaced());
        }
        // A pipe takes the bytes and tells nothing; a file behind standard output can be made durable.
        if let To::Stream { fd, .. } = &self.to
            && let Err(e @ (Errno::EIO | Errno::ENOSPC | Errno::EDQUOT)) = sys::fs::fsync(*fd)
        {
            return Err(self.failed(e));
        }
        Ok(())
    }

    /// The image whose name the new one has got, unless there was none: the kernel frees what it occupies when this is dropped, which takes time.
    pub const fn take_replaced(&mut self) -> Option<Owned> {
        match &mut self.to {
            To::Done(replaced) => replaced.take(),
            _ => None,
        }
    }
}

/// Reads a part of a run, from this address or offset on.
fn read<T: Target>(target: &T, contents: &Contents<'_>, run: &Run, at: u64, to: &mut [u8]) -> Result<()> {
    match run.content() {
        None => {
            if run.flags & PF_FILE_BYTES == 0 { target.read_memory(at, to) } else { target.read_file_pages(at, to) }
                .map_err(|e| {
                    Error::failed(format_args!("memory at {at:#x}"), "cannot be read", e).kind(ErrorKind::Changed)
                })
        }
        Some(index) => contents.read(target, index, at, to).map_err(|e| {
            Error::failed(format_args!("shared contents {index}"), "cannot be read", e).kind(ErrorKind::Changed)
        }),
    }
}
