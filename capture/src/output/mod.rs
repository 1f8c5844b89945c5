//! The image file on its way: a temporary name, contents, seal, fsync, rename. Never half an image under the name.

#[cfg(feature = "std")]
mod evidence;
#[cfg(feature = "std")]
mod held;
#[cfg(feature = "std")]
mod parallel;
#[cfg(feature = "std")]
mod touched;

use core::ops::Range;

use image_format::Layout;
use image_format::elf::PF_FILE_BYTES;
use image_format::record::memory::Vma;
use image_format::seal::Sum;
use image_format::writer::Full;
use state::content::Contents;
use state::{Error, Result, Scratch, Target};
use sys::Errno;
use sys::abi::{O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDWR};
use sys::fs::{Fd, Owned};
use sys::text::Text;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::core_notes::REGS;
use crate::pages::Run;

/// Bytes that are checksummed and written at a time: they stay in the core's cache in between.
const CHUNK: usize = 128 << 10;

/// Longest path of an image, bytes.
pub const PATH_MAX: usize = 4096;

/// A thread, as far as the search for the locks that it holds needs it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Holder {
    /// Its id.
    pub tid: u64,
    /// Its thread pointer.
    pub fs: u64,
    /// `user_regs_struct`.
    pub regs: [u64; REGS],
}

/// Threads' ids, as far as the writer needs them.
#[derive(Debug)]
pub struct Ids<'a> {
    /// Pages with rseq areas, which the kernel may change at any time.
    pub rseq_pages: &'a [u64],
    /// All threads; none where the process saves itself, or keeps its ids anyway.
    pub threads: &'a [Holder],
    /// All mappings.
    pub vmas: &'a [Vma],
    /// Where the table for [`image_format::record::id_word::IdWord`] lies, all zero, in the prefix.
    pub table: Range<usize>,
}

/// Where an image is written to; what is unfinished is removed when this value is dropped.
#[derive(Debug)]
pub struct Output {
    to: To,
    /// Where the image begins that is being written: those of a tree's other processes lie within the root's.
    base: u64,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "exists once, on the stack, where there is no allocator")]
enum To {
    /// A file that has no name yet that anybody would restart.
    File { dir: Owned, file: Owned, temporary: Text<272>, name: Text<256> },
    /// A pipe: bytes can only follow each other; how many did so far.
    Stream { fd: Fd, at: u64 },
    /// The file has its name.
    Done,
}

impl Output {
    /// Creates the temporary file beside `path`, which must be absolute.
    ///
    /// # Errors
    /// The directory is not there or not writable.
    pub fn create(path: &[u8]) -> Result<Self> {
        let failed = |why| move |e| Error::failed(format_args!("image {}", sys::text::Shown(path)), why, e);
        let cut = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
        let (dir, base) = path.split_at_checked(cut).unwrap_or((b"", path));
        let mut dir_name = Text::<PATH_MAX>::new();
        dir_name.push(if dir.is_empty() { b"." } else { dir });
        let mut name = Text::<256>::new();
        name.push(base);
        if base.is_empty() || name.is_cut() || dir_name.is_cut() {
            return Err(failed("is no name of a file")(Errno::ENAMETOOLONG));
        }
        let dir =
            sys::fs::open(dir_name.as_c_str(), O_DIRECTORY, 0).map_err(failed("its directory cannot be opened"))?;
        let mut random = [0; 6];
        sys::process::random(&mut random).map_err(failed("no random number for its temporary name"))?;
        let mut temporary = Text::<272>::of(format_args!(".ckpt-"));
        for byte in random {
            temporary.push(Text::<4>::of(format_args!("{byte:02x}")).as_bytes());
        }
        let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
        let file = sys::fs::open_at(dir.fd(), temporary.as_c_str(), flags, 0o600)
            .map_err(failed("no file can be created in its directory"))?;
        Ok(Self { to: To::File { dir, file, temporary, name }, base: 0 })
    }

    /// Writes to a descriptor of the caller's that need not be a file.
    #[must_use]
    pub const fn stream(fd: Fd) -> Self {
        Self { to: To::Stream { fd, at: 0 }, base: 0 }
    }

    /// Its descriptors, which are not the program's.
    #[must_use]
    pub fn descriptors(&self) -> [Fd; 2] {
        match &self.to {
            To::File { dir, file, .. } => [dir.fd(), file.fd()],
            To::Stream { fd, .. } => [*fd, -1],
            To::Done => [-1, -1],
        }
    }

    fn failed(&self, errno: Errno) -> Error {
        match &self.to {
            To::File { name, .. } => Error::failed(format_args!("image {name}"), "cannot be written", errno),
            _ => Error::failed(format_args!("image"), "cannot be written to the stream", errno),
        }
    }

    /// Writes bytes that belong at this offset. Offsets ascend; gaps are zero.
    fn put(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let offset = self.base + offset;
        let done = match &mut self.to {
            To::File { file, .. } => sys::fs::pwrite_all(file.fd(), bytes, offset),
            To::Stream { fd, at } => {
                let gap = usize::try_from(offset.saturating_sub(*at)).unwrap_or(usize::MAX);
                let zeros = [0; image_format::PAGE as usize];
                *at = offset + bytes.len() as u64;
                let gap = zeros.get(..gap).ok_or(Errno::ESPIPE);
                gap.and_then(|gap| sys::fs::write_all(*fd, gap)).and_then(|()| sys::fs::write_all(*fd, bytes))
            }
            To::Done => Err(Errno::EBADF),
        };
        done.map_err(|e| self.failed(e))
    }

    /// Begins anew after a failed attempt.
    ///
    /// # Errors
    /// A stream has begun: what is written is written.
    pub fn restart(&mut self) -> Result<()> {
        match &self.to {
            To::File { file, .. } => sys::fs::truncate(file.fd(), 0).map_err(|e| self.failed(e)),
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
        ids: &Ids<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<u64> {
        let sums = scratch.take::<u64>(runs.len())?;
        self.write_body(target, layout, prefix, (runs, contents, sums), ids, scratch)?;
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
        ids: &Ids<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<()> {
        #[cfg(feature = "std")]
        let written = !T::IN_PROCESS
            && self.write_other(target, self.base + layout.segments, prefix, (runs, contents, sums), ids)?;
        #[cfg(not(feature = "std"))]
        let written = false;
        self.put(prefix, 0)?;
        if !written {
            self.write_runs(target, layout.segments, (runs, contents), sums, ids.rseq_pages, scratch)?;
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
        self.put(seal, layout.seal)?;
        Ok(image_format::seal::sum(seal))
    }

    /// Writes another process's memory, unless it goes to a stream, and what was found in it into the table that was kept
    /// free. False: the memory is still to be written.
    #[cfg(feature = "std")]
    fn write_other<T: Target>(
        &self,
        target: &T,
        at: u64,
        prefix: &mut [u8],
        (runs, contents, sums): (&[Run], &Contents<'_>, &mut [u64]),
        ids: &Ids<'_>,
    ) -> Result<bool> {
        if ids.threads.is_empty() && matches!(self.to, To::Stream { .. }) {
            return Ok(false);
        }
        let holders = held::Holders::new(target, ids.threads);
        let touched = touched::Touched::new(target, runs);
        let file = match &self.to {
            To::File { file, .. } => Some(file.fd()),
            _ => None,
        };
        let job =
            parallel::Job { file, target, touched: &touched, contents, holders: &holders, failed: &|e| self.failed(e) };
        let mut found = job.run(at, runs, sums)?;
        holders.cached(target, ids.threads, &mut found);
        let found = found.confirmed(&touched, ids.threads, ids.vmas);
        let room = prefix.get_mut(ids.table.clone()).unwrap_or_default();
        let bytes = found.as_bytes();
        room.get_mut(..bytes.len())
            .ok_or_else(|| {
                let why = "are held at this moment";
                Error::refused(
                    format_args!("{} locks", found.len()),
                    why,
                    "save it at another moment, or with fewer threads",
                )
            })?
            .copy_from_slice(bytes);
        Ok(file.is_some())
    }

    fn write_runs<T: Target>(
        &mut self,
        target: &T,
        mut at: u64,
        (runs, contents): (&[Run], &Contents<'_>),
        sums: &mut [u64],
        rseq_pages: &[u64],
        scratch: &mut Scratch<'_>,
    ) -> Result<()> {
        let bounce = scratch.bytes(CHUNK)?;
        for (run, sum) in runs.iter().zip(sums.iter_mut()) {
            *sum = self.write_run(target, (run, contents), at, rseq_pages, bounce)?;
            at += run.len;
        }
        Ok(())
    }

    /// Writes one run and returns its checksum.
    fn write_run<T: Target>(
        &mut self,
        target: &T,
        (run, contents): (&Run, &Contents<'_>),
        mut at: u64,
        rseq_pages: &[u64],
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
            self.put(bytes, at)?;
            addr += len as u64;
            at += len as u64;
        }
        Ok(sum.digest())
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// The kernel's; then the old image is whole.
    pub fn finish(&mut self) -> Result<()> {
        if let To::File { dir, file, temporary, name } = &self.to {
            sys::fs::chmod(file.fd(), 0o400)
                .and_then(|()| sys::fs::fsync(file.fd()))
                .and_then(|()| sys::fs::rename_at(dir.fd(), temporary.as_c_str(), name.as_c_str()))
                .map_err(|e| self.failed(e))?;
            // The name is in place already: a directory that cannot be synced (some network file systems) is no failure,
            // but one that could not be written is.
            if let Err(e @ (Errno::EIO | Errno::ENOSPC | Errno::EDQUOT)) = sys::fs::fsync(dir.fd()) {
                return Err(self.failed(e));
            }
            self.to = To::Done;
        }
        // A pipe takes the bytes and tells nothing; a file behind standard output can be made durable.
        if let To::Stream { fd, .. } = &self.to
            && let Err(e @ (Errno::EIO | Errno::ENOSPC | Errno::EDQUOT)) = sys::fs::fsync(*fd)
        {
            return Err(self.failed(e));
        }
        Ok(())
    }
}

/// Reads a part of a run, from this address or offset on.
fn read<T: Target>(target: &T, contents: &Contents<'_>, run: &Run, at: u64, to: &mut [u8]) -> Result<()> {
    match run.content() {
        None => {
            if run.flags & PF_FILE_BYTES == 0 { target.read_memory(at, to) } else { target.read_file_pages(at, to) }
                .map_err(|e| Error::failed(format_args!("memory at {at:#x}"), "cannot be read", e))
        }
        Some(index) => contents
            .read(target, index, at, to)
            .map_err(|e| Error::failed(format_args!("shared contents {index}"), "cannot be read", e)),
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let To::File { dir, temporary, .. } = &self.to {
            let _ = sys::fs::unlink_at(dir.fd(), temporary.as_c_str());
        }
    }
}
