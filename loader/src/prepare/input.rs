//! The image file: trusted or not, read into memory as far as headers and notes go.

use image_format::reader::PROBE_LEN;
use image_format::{Checked, ExitCode, Image, Need};
use loader::options::Options;
use state::{Error, Result};
use sys::abi::mm::{MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use sys::abi::{O_RDONLY, S_IFMT, S_IFREG, Stat};
use sys::fs::Owned;
use sys::packed;

/// An open image with its prefix and seal in memory.
#[derive(Debug)]
pub struct Input {
    /// The file.
    pub file: Owned,
    /// Its length in bytes.
    pub len: u64,
    /// Headers and notes.
    pub prefix: &'static [u8],
    /// The same, parsed.
    image: Image<'static>,
    /// The seal.
    pub seal: &'static [u8],
}

impl Input {
    /// Opens, judges, reads and checks the image.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(options: &Options<'_>) -> Result<Self> {
        let failed = |why, e| Error::about(packed!("image @"), 0u32, options.image, e).code(ExitCode::NoImage).why(why);
        let file =
            sys::fs::open_path(options.image, O_RDONLY, 0).map_err(|e| failed(packed!("cannot be opened"), e))?;
        let stat = sys::fs::fstat(file.fd()).map_err(|e| failed(packed!("cannot be examined"), e))?;
        if stat.mode & S_IFMT != S_IFREG {
            return Err(failed(packed!("is no regular file"), sys::Errno::EINVAL));
        }
        if !options.trust {
            judge(&stat, options.image)?;
        }
        let len = stat.size as u64;
        let bad = |fault| Error::of_image(options.image, fault);
        let mut first = [0; PROBE_LEN];
        let have = PROBE_LEN.min(len as usize);
        let first = first.get_mut(..have).unwrap_or_default();
        sys::fs::pread_exact(file.fd(), first, 0).map_err(|e| failed(packed!("cannot be read"), e))?;
        let need = Need::probe(first, len).map_err(bad)?;
        let prefix = read(&file, need.prefix_len, 0).map_err(|e| failed(packed!("cannot be read"), e))?;
        let image = Image::parse(prefix, len).map_err(bad)?;
        let (at, seal_len) = image.seal_span();
        let seal = read(&file, seal_len, at).map_err(|e| failed(packed!("cannot be read"), e))?;
        image.check_seal(seal).map_err(bad)?;
        Ok(Self { file, len, prefix, image, seal })
    }

    /// Keeps the file under a number of at least `base`.
    ///
    /// # Errors
    /// The limit of descriptors.
    pub fn move_above(&mut self, base: sys::fs::Fd) -> Result<()> {
        let moved = sys::fs::dup_above(self.file.fd(), base).map_err(|e| {
            Error::about(
                packed!("descriptor #: is above the limit of descriptors (!): raise it (ulimit -n)"),
                base as u32,
                b"",
                e,
            )
            .code(ExitCode::Kernel)
        })?;
        self.file = Owned::new(moved);
        Ok(())
    }

    /// The checked image.
    ///
    /// # Errors
    /// A rule between its tables is broken.
    pub fn image(&self, options: &Options<'_>) -> Result<Checked<'static>> {
        Checked::new(self.image).map_err(|fault| Error::of_image(options.image, fault))
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
fn read(file: &Owned, len: u64, at: u64) -> sys::Result<&'static [u8]> {
    let bytes = memory(len)?;
    sys::fs::pread_exact(file.fd(), bytes, at)?;
    Ok(bytes)
}

/// An image is code: whoever may write it may run as the caller.
#[inline(never)] // A smaller frame has shorter addresses.
fn judge(stat: &Stat, path: &[u8]) -> Result<()> {
    let me = sys::process::effective_uid();
    let refuse = |what| Err(Error::about(what, 0u32, path, None).code(ExitCode::Untrusted));
    if stat.uid != 0 && stat.uid != me {
        return refuse(packed!("image @: belongs to another user: --trust, if you trust that user"));
    }
    if stat.mode & 0o022 != 0 {
        return refuse(packed!("image @: may be written by others: chmod go-w, or --trust"));
    }
    Ok(())
}
