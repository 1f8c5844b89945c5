//! Opens an image and reads what describes it: headers, notes and seal, never the memory.
//!
//! Must never hand out an image whose seal or records were not checked.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use image_format::reader::PROBE_LEN;
use image_format::{ExitCode, Fault, Image, Need, Part, Segment, check};
use rustix::fs::OFlags;
use zerocopy::IntoBytes;

use crate::bundle;
use crate::described::Parts;
use crate::failure::Failure;
use crate::spool;
use crate::text;

/// An image file and its prefix.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    store: Store,
    /// Where it begins in the file: a tree's root holds the images of the others.
    base: u64,
    len: u64,
    /// Size of the compressed file that it came out of.
    stored: Option<u64>,
    /// Words, since the program headers must lie aligned to 8 bytes.
    prefix: Vec<u64>,
}

/// An image whose headers, seal and records keep all rules.
#[derive(Debug)]
pub struct Checked<'a> {
    /// The image over the file's prefix.
    pub image: Image<'a>,
    /// The checksum of each segment, in order.
    pub sums: Vec<u64>,
}

/// Where its bytes are.
#[derive(Debug)]
enum Store {
    /// All of them, in a file, and where they begin there: behind the stub of a bundle, or at 0.
    File(File, u64),
    /// Those that describe it, of a compressed one.
    Parts(Parts),
}

impl ImageFile {
    /// Opens `path` and reads its prefix. Of a compressed image all is unpacked.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let (file, stored) = Self::regular(path)?;
        Ok(match spool::unpacked(path, &file, false)? {
            Some(unpacked) => Self { stored: Some(stored), ..Self::of(path, unpacked)? },
            None => Self::of(path, file)?,
        })
    }

    /// The same for who wants to know what is in the image, and not its memory: that of a compressed one is passed over.
    pub fn describe(path: &Path) -> Result<Self, Failure> {
        let (file, stored) = Self::regular(path)?;
        Ok(match spool::described(path, &file)? {
            Some(parts) => Self { stored: Some(stored), ..Self::of_parts(path, parts)? },
            None => Self::of(path, file)?,
        })
    }

    /// A compressed image of which only what describes it is there.
    pub fn of_parts(path: &Path, parts: Parts) -> Result<Self, Failure> {
        let len = parts.len;
        Self::part(path, Store::Parts(parts), (0, len))
    }

    /// Opens a regular file; also its size.
    fn regular(path: &Path) -> Result<(File, u64), Failure> {
        // Without O_NONBLOCK the open of a FIFO would wait for a writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)
            .map_err(|e| Failure::unreadable(path, "the image cannot be opened", &e))?;
        let meta = file.metadata().map_err(|e| Failure::unreadable(path, "the image cannot be examined", &e))?;
        if !meta.is_file() {
            let what = format_args!("{}: not a regular file: give the path of an image", text::path(path)).to_string();
            return Err(Failure::new(ExitCode::NoImage, what));
        }
        Ok((file, meta.len()))
    }

    /// Reads the prefix of an open file that messages call `path`.
    pub fn of(path: &Path, file: File) -> Result<Self, Failure> {
        let meta = file.metadata().map_err(|e| Failure::unreadable(path, "the image cannot be examined", &e))?;
        let start = bundle::start(&file).map_err(|e| Failure::unreadable(path, "the image cannot be read", &e))?;
        Self::part(path, Store::File(file, start), (0, meta.len() - start))
    }

    /// The images of the tree's other processes, whose checksums are right.
    pub fn others(&self) -> Result<Vec<Self>, Failure> {
        let checked = self.checked()?;
        let sums = checked.sums.iter().skip(checked.sums.len() - checked.image.processes().len());
        let mut all = Vec::new();
        for (segment, sum) in checked.image.processes().zip(sums) {
            let store = match &self.store {
                Store::File(file, start) => file.try_clone().map(|file| Store::File(file, *start)),
                Store::Parts(parts) => Ok(Store::Parts(parts.clone())),
            };
            let store = store.map_err(|e| Failure::unreadable(&self.path, "the image cannot be opened again", &e))?;
            let one = Self::part(&self.path, store, (segment.offset, segment.len))?;
            let own = one.checked()?;
            let (at, len) = own.image.seal_span();
            let mut seal = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            one.read(&mut seal, at)?;
            if image_format::seal::sum(&seal) != *sum || u64::from(own.image.header().pid.get()) != segment.addr {
                return Err(self.fault(Fault::Checksum(Part::Seal)));
            }
            drop(own);
            all.push(one);
        }
        Ok(all)
    }

    fn part(path: &Path, store: Store, (base, len): (u64, u64)) -> Result<Self, Failure> {
        let mut this = Self { path: path.to_owned(), store, base, len, stored: None, prefix: Vec::new() };
        let mut first = vec![0; PROBE_LEN.min(usize::try_from(len).unwrap_or(PROBE_LEN))];
        this.read(&mut first, 0)?;
        let need = Need::probe(&first, len).map_err(|fault| this.fault(fault))?;
        let words = usize::try_from(need.prefix_len.div_ceil(8)).unwrap_or(usize::MAX);
        let mut prefix = vec![0u64; words];
        let bytes = usize::try_from(need.prefix_len).unwrap_or(usize::MAX);
        this.read(prefix.as_mut_bytes().get_mut(..bytes).unwrap_or_default(), 0)?;
        this.prefix = prefix;
        Ok(this)
    }

    /// Parses the prefix and checks seal and records.
    pub fn checked(&self) -> Result<Checked<'_>, Failure> {
        let fault = |fault| self.fault(fault);
        let image = Image::parse(self.prefix.as_bytes(), self.len).map_err(fault)?;
        image.check_inherited(self.base).map_err(fault)?;
        let (at, len) = image.seal_span();
        let mut seal = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.read(&mut seal, at)?;
        let sums = image.check_seal(&seal).map_err(fault)?.iter().map(|sum| sum.get()).collect();
        check::records(&image).map_err(fault)?;
        Ok(Checked { image, sums })
    }

    /// Fills `out` from byte `skip` of a segment.
    pub fn read_segment(&self, out: &mut [u8], segment: &Segment, skip: u64) -> Result<(), Failure> {
        self.read_file(out, segment.place(self.base) + skip)
    }

    /// Fills `out` from `offset` of the image.
    pub fn read(&self, out: &mut [u8], offset: u64) -> Result<(), Failure> {
        self.read_file(out, self.base + offset)
    }

    fn read_file(&self, out: &mut [u8], offset: u64) -> Result<(), Failure> {
        let read = match &self.store {
            Store::File(file, start) => file.read_exact_at(out, start + offset),
            Store::Parts(parts) => parts.read(out, offset),
        };
        read.map_err(|e| Failure::unreadable(&self.path, "the image cannot be read", &e))
    }

    /// A fault of this image, with its path.
    pub fn fault(&self, fault: Fault) -> Failure {
        Failure::image(&self.path, fault)
    }

    /// Its path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, if all of the image is in one.
    pub fn file(&self) -> Option<&File> {
        match &self.store {
            Store::File(file, _) => Some(file),
            Store::Parts(_) => None,
        }
    }

    /// Where the image begins in that file.
    pub fn start(&self) -> u64 {
        if let Store::File(_, start) = self.store { start } else { 0 }
    }

    /// Size of the compressed file, if it is one.
    pub fn stored(&self) -> Option<u64> {
        self.stored
    }

    /// Size of the image in bytes, not compressed.
    pub fn len(&self) -> u64 {
        self.len
    }
}
