//! An image file as a test sees it: whether it is there, whether it is a new one, and its parsed contents.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use image_format::{Fault, Image};

/// Tells one image from the next under the same name: saves come by rename, so the inode changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(Option<(u64, i64, i64)>);

impl Mark {
    /// What lies there now, if anything.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec())))
    }

    /// Whether there is an image at all.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }
}

/// A whole image in memory, aligned as the reader wants its prefix.
#[derive(Clone, Debug)]
pub struct Bytes {
    words: Vec<u64>,
    len: usize,
}

impl Bytes {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::new(&fs::read(path)?))
    }

    /// Copies bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_ne_bytes(eight);
        }
        Self { words, len: bytes.len() }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        zerocopy_bytes(&self.words, self.len)
    }

    /// Parses and checks headers, notes and seal.
    ///
    /// # Errors
    /// Not a sound image.
    pub fn image(&self) -> Result<Image<'_>, Fault> {
        let image = Image::parse(self.as_slice(), self.len as u64)?;
        let (at, len) = image.seal_span();
        let seal = self.as_slice().get(at as usize..(at + len) as usize).ok_or(Fault::Unsealed)?;
        image.check_seal(seal)?;
        Ok(image)
    }
}

/// The shortest file that a save takes for an image, and replaces: headers, and the beginning of the first note.
#[must_use]
pub fn beginning() -> Vec<u8> {
    let (mut out, mut strings) = ([0; 256], [0; 0]);
    let mut notes = image_format::Notes::new(&mut out, &mut strings);
    let written = notes.begin(image_format::NoteType::Header).and_then(|()| notes.end()).and_then(|()| notes.finish());
    let note = out.get(..written.unwrap_or(0)).unwrap_or_default();
    let layout = image_format::Layout::new(0, 0, note.len() as u64);
    let mut bytes = vec![0; usize::try_from(layout.headers_len()).unwrap_or(0)];
    layout.write_headers(&mut bytes, std::iter::empty()).unwrap_or_default();
    [&bytes, note, &b"the old image".repeat(10)].concat()
}

fn zerocopy_bytes(words: &[u64], len: usize) -> &[u8] {
    let bytes = zerocopy::IntoBytes::as_bytes(words);
    bytes.get(..len).unwrap_or(bytes)
}

/// Checks what every finished save must leave: a sound image of mode 0400, and no other new file beside it.
///
/// # Errors
/// The rule that is broken.
pub fn expect_sound(path: &Path) -> Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o400, "{} has mode {mode:o}, not 400", path.display());
    let bytes = Bytes::read(path)?;
    bytes.image().with_context(|| path.display().to_string())?;
    Ok(())
}
