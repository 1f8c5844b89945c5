//! The image file on its way: a temporary name, contents, seal, fsync, rename. Never half an image under the name.

use image_format::Layout;
use image_format::seal::Sum;
use image_format::writer::Full;
use state::{Error, Result, Scratch, Target};
use sys::Errno;
use sys::abi::{O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDWR};
use sys::fs::{Fd, Owned};
use sys::text::Text;

use crate::pages::Run;

/// Bytes that are checksummed and written at a time: they stay in the core's cache in between.
const CHUNK: usize = 128 << 10;

/// Longest path of an image, bytes.
pub const PATH_MAX: usize = 4096;

/// A file that has no name yet that anybody would restart; removed when it is dropped unfinished.
#[derive(Debug)]
pub struct Output {
    dir: Owned,
    file: Option<Owned>,
    temporary: Text<272>,
    name: Text<256>,
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
        Ok(Self { dir, file: Some(file), temporary, name })
    }

    /// Its descriptors, which are not the program's.
    #[must_use]
    pub fn descriptors(&self) -> [Fd; 2] {
        [self.dir.fd(), self.fd()]
    }

    fn fd(&self) -> Fd {
        self.file.as_ref().map_or(-1, Owned::fd)
    }

    fn failed(&self, errno: Errno) -> Error {
        Error::failed(format_args!("image {}", self.name), "cannot be written", errno)
    }

    /// Writes headers, notes, segments and seal. `notes` begins with room for the headers, [`Layout::headers_len`] bytes.
    ///
    /// # Errors
    /// No space, an I/O error, memory that cannot be read.
    pub fn write<T: Target>(
        &self,
        target: &T,
        layout: &Layout,
        prefix: &[u8],
        runs: &[Run],
        rseq_pages: &[u64],
        scratch: &mut Scratch<'_>,
    ) -> Result<()> {
        sys::fs::pwrite_all(self.fd(), prefix, 0).map_err(|e| self.failed(e))?;
        let sums = scratch.take::<u64>(runs.len())?;
        let bounce = scratch.bytes(CHUNK)?;
        let mut at = layout.segments;
        for (run, sum) in runs.iter().zip(sums.iter_mut()) {
            *sum = self.write_run(target, run, at, rseq_pages, bounce)?;
            at += run.len;
        }
        let len = usize::try_from(layout.seal_len).map_err(|_| Full)?;
        let seal = image_format::seal::write(scratch.bytes(len)?, layout.file_len(), prefix, sums)?;
        sys::fs::pwrite_all(self.fd(), seal, layout.seal).map_err(|e| self.failed(e))
    }

    /// Writes one run and returns its checksum.
    fn write_run<T: Target>(
        &self,
        target: &T,
        run: &Run,
        mut at: u64,
        rseq_pages: &[u64],
        bounce: &mut [u8],
    ) -> Result<u64> {
        let mut sum = Sum::new();
        let end = run.addr + run.len;
        // What the kernel or another process may change meanwhile is copied first, so that checksum and file agree:
        // the pages of rseq areas, and pages of files.
        let moving = run.flags & image_format::elf::PF_FILE_BYTES != 0
            || run.readable == 0
            || !T::IN_PROCESS
            || rseq_pages.iter().any(|p| (run.addr..end).contains(p));
        let mut addr = run.addr;
        while addr < end {
            let len = ((end - addr) as usize).min(CHUNK);
            let bytes = if moving {
                let copy = bounce.get_mut(..len).ok_or(Full)?;
                target
                    .read_memory(addr, copy)
                    .map_err(|e| Error::failed(format_args!("memory at {addr:#x}"), "cannot be read", e))?;
                &*copy
            } else {
                // SAFETY: the run is mapped, readable, and all threads that could change it stand still. It is no
                // Rust object's memory for longer than this loop turn.
                unsafe { core::slice::from_raw_parts(addr as *const u8, len) }
            };
            sum.update(bytes);
            sys::fs::pwrite_all(self.fd(), bytes, at).map_err(|e| self.failed(e))?;
            addr += len as u64;
            at += len as u64;
        }
        Ok(sum.digest())
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// The kernel's; then the old image is whole.
    pub fn finish(mut self) -> Result<()> {
        let fd = self.fd();
        sys::fs::chmod(fd, 0o400).map_err(|e| self.failed(e))?;
        sys::fs::fsync(fd).map_err(|e| self.failed(e))?;
        sys::fs::rename_at(self.dir.fd(), self.temporary.as_c_str(), self.name.as_c_str())
            .map_err(|e| self.failed(e))?;
        self.file = None;
        // The name is in place already: a directory that cannot be synced (some network file systems) is no failure.
        let _ = sys::fs::fsync(self.dir.fd());
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = sys::fs::unlink_at(self.dir.fd(), self.temporary.as_c_str());
        }
    }
}
