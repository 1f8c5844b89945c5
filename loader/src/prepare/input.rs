//! The image file: trusted or not, read into memory as far as headers and notes go.

use image_format::reader::PROBE_LEN;
use image_format::{Checked, ExitCode, Fault, Image, Need, Part, seal};
use loader::options::Options;
use state::restart::{Error, Result};
use sys::abi::mm::{MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use sys::abi::{O_RDONLY, S_IFMT, S_IFREG, Stat};
use sys::fs::Fd;

/// An open image with its prefix and seal in memory.
#[derive(Debug)]
pub struct Input {
    /// The file; stays open for as long as this program runs.
    pub file: Fd,
    /// Where the image begins in it.
    pub base: u64,
    /// The image's length in bytes.
    pub len: u64,
    /// Headers and notes.
    pub prefix: &'static [u8],
    /// The same, parsed.
    image: Checked<'static>,
    /// The seal.
    pub seal: &'static [u8],
}

/// An image in a file.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Where it begins.
    at: u64,
    /// Its bytes.
    len: u64,
    /// The checksum of its seal, where another image tells it.
    sum: u64,
}

unsafe extern "C" {
    /// This program's ELF header.
    static __stub_start: [u32; 16];
}

/// Where the image begins in its file: 0, or behind this program, when `ckpt bundle` has joined the two and said so in `e_flags` of the ELF header.
pub fn start() -> u64 {
    // SAFETY: the linker's symbol, where the header is mapped; volatile, as somebody writes there after the compiler.
    unsafe { (&raw const __stub_start).cast::<u32>().add(12).read_volatile() }.into()
}

/// Reads a part of the image.
///
/// # Errors
/// As pread(2).
#[inline(never)] // So that it exists once.
pub fn pread(file: Fd, to: &mut [u8], at: u64) -> sys::Result<()> {
    sys::fs::pread_exact(file, to, start() + at)
}

/// Opens the file that the options name, and reads and checks the image in it.
///
/// # Errors
/// What is wrong with it.
pub fn open(options: &Options<'_>) -> Result<Input> {
    let failed = |why, e| Error::with_reason(ExitCode::NoImage, "image @", 0, options.image, e, [why, ""]);
    let file = sys::fs::open_path(options.image, O_RDONLY, 0).map_err(|e| failed("cannot be opened", e))?;
    let stat = sys::fs::fstat(file.fd()).map_err(|e| failed("cannot be examined", e))?;
    if stat.mode & S_IFMT != S_IFREG {
        return Err(failed("is no regular file", sys::Errno::EINVAL));
    }
    if !options.trust {
        check_owner(&stat, options.image)?;
    }
    Input::read(file.release(), options, Span { at: 0, len: (stat.size as u64).wrapping_sub(start()), sum: 0 })
}

impl Input {
    /// Reads and checks the image in this part of the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(file: Fd, options: &Options<'_>, Span { at: base, len, sum }: Span) -> Result<Self> {
        let failed = |e| Error::about(ExitCode::NoImage, "image @: cannot be read (!)", 0u32, options.image, e);
        let bad = |fault| Error::of_image(options.image, fault);
        let mut first = [0; PROBE_LEN];
        let have = PROBE_LEN.min(len as usize);
        let first = first.get_mut(..have).unwrap_or_default();
        pread(file, first, base).map_err(failed)?;
        let need = Need::probe(first, len).map_err(bad)?;
        let prefix = read(file, need.prefix_len, base).map_err(failed)?;
        let image = Image::parse(prefix, len).map_err(bad)?;
        let (at, seal_len) = image.seal_span();
        let seal = read(file, seal_len, base + at).map_err(failed)?;
        image.check_seal(seal).map_err(bad)?;
        if sum != 0 && sum != seal::sum(seal) {
            return Err(bad(Fault::Checksum(Part::Seal)));
        }
        let image = Checked::new(image).map_err(bad)?;
        Ok(Self { file, base, len, prefix, image, seal })
    }

    /// The image of the process at this place of the tree, from the same file.
    ///
    /// # Errors
    /// This image's seal cannot be read; what is wrong with the other one.
    #[inline(never)] // So that it exists once.
    pub fn member(&self, options: &Options<'_>, place: u32) -> Result<Self> {
        let found = seal::read(self.seal, self.image.image().seal_span().0).and_then(|(_, sums)| {
            let (segment, sum) = self.image.member(place as usize, sums).ok_or(Fault::Checksum(Part::Seal))?;
            Ok(Span { at: segment.offset, len: segment.len, sum })
        });
        let part = found.map_err(|fault| Error::of_image(options.image, fault))?;
        Self::read(self.file, options, part)
    }

    /// Keeps the file under a number of at least `base`.
    ///
    /// # Errors
    /// The limit of descriptors.
    pub fn move_above(&mut self, base: sys::fs::Fd) -> Result<()> {
        let moved = sys::fs::dup_above(self.file, base).map_err(|e| {
            Error::about(
                ExitCode::Kernel,
                "descriptor #: is above the limit of descriptors (!): raise it (ulimit -n)",
                base as u32,
                b"",
                e,
            )
        })?;
        // SAFETY: moved to another number.
        unsafe { sys::fs::close(self.file) };
        self.file = moved;
        Ok(())
    }

    /// The checked image.
    pub const fn image(&self) -> &Checked<'static> {
        &self.image
    }
}

/// Zeroed memory that is never given back.
pub fn memory(len: u64) -> sys::Result<&'static mut [u8]> {
    let len = usize::try_from(len).map_err(|_| sys::Errno::ENOMEM)?;
    // SAFETY: a new mapping at a free place.
    let addr = unsafe { sys::memory::map(0, len.max(1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) }?;
    // SAFETY: just mapped, this long, zeroed, and never unmapped before the program takes over.
    Ok(unsafe { core::slice::from_raw_parts_mut(addr as *mut u8, len) })
}

/// Reads a part of the file into memory of its own.
fn read(file: Fd, len: u64, at: u64) -> sys::Result<&'static [u8]> {
    let bytes = memory(len)?;
    pread(file, bytes, at)?;
    Ok(bytes)
}

/// An image is code: whoever may write it may run as the caller.
#[inline(never)] // A smaller frame has shorter addresses.
fn check_owner(stat: &Stat, path: &[u8]) -> Result<()> {
    let me = sys::process::effective_uid();
    let refuse = |what| Err(Error::about(ExitCode::Untrusted, what, 0u32, path, None));
    if stat.uid != 0 && stat.uid != me {
        return refuse("image @: belongs to another user: --trust, if you trust that user");
    }
    if stat.mode & 0o022 != 0 {
        return refuse("image @: may be written by others: chmod go-w, or --trust");
    }
    Ok(())
}
