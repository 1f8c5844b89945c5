//! Forged images: a sound one with bytes changed, sealed again where the fault is not to be the checksum's.

use anyhow::{Context, Result, ensure};
use image_format::elf::{SIZEOF_EHDR, SIZEOF_PHDR};
use image_format::note::{CKPT, HEAD};
use image_format::{NoteType, seal};
use xxhash_rust::xxh3::xxh3_64;

use crate::image::Bytes;

/// The bytes of an image under the knife.
#[derive(Clone, Debug)]
pub struct Forgery {
    /// All of it.
    pub bytes: Vec<u8>,
    prefix_len: usize,
    seal_at: usize,
}

impl Forgery {
    /// Takes a sound image with less than 65,535 program headers.
    ///
    /// # Errors
    /// It is not sound.
    pub fn of(sound: &Bytes) -> Result<Self> {
        let image = sound.image().context("the image that shall be forged")?;
        let forgery = Self {
            bytes: sound.as_slice().to_vec(),
            prefix_len: image.prefix().len(),
            seal_at: usize::try_from(image.seal_span().0)?,
        };
        ensure!(forgery.segments() < 65_000, "too many segments");
        Ok(forgery)
    }

    /// Bytes of headers and notes.
    #[must_use]
    pub fn prefix_len(&self) -> usize {
        self.prefix_len
    }

    /// Offset of the seal.
    #[must_use]
    pub fn seal_at(&self) -> usize {
        self.seal_at
    }

    /// Number of segments, by the ELF header.
    #[must_use]
    pub fn segments(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[56], self.bytes[57]])) - 2
    }

    /// Overwrites bytes.
    #[must_use]
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Flips one bit.
    #[must_use]
    pub fn flip(mut self, at: usize, bit: u32) -> Self {
        self.bytes[at] ^= 1 << bit;
        self
    }

    /// Offset of a word of a segment's program header, by its place there (16: address, 32: size in the file …).
    #[must_use]
    pub fn segment_word(&self, index: usize, at: usize) -> usize {
        SIZEOF_EHDR + (index + 1) * SIZEOF_PHDR + at
    }

    /// Offset of the contents of this project's note of that type, and their length.
    ///
    /// # Errors
    /// There is none.
    pub fn note(&self, kind: NoteType) -> Result<(usize, usize)> {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| self.bytes[at + i])) as usize;
        let mut at = SIZEOF_EHDR + (self.segments() + 2) * SIZEOF_PHDR;
        while at < self.prefix_len {
            let (name, desc) = (word(at), word(at + 4));
            let body = at + HEAD + name.next_multiple_of(4);
            if self.bytes[at + HEAD..].starts_with(CKPT) && word(at + 8) == kind as usize {
                return Ok((body, desc));
            }
            at = body + desc.next_multiple_of(4);
        }
        anyhow::bail!("no note {kind:?}")
    }

    /// Recomputes the checksums of prefix and seal, so that only the forged rule is broken.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        let sum = xxh3_64(&self.bytes[..self.prefix_len]);
        let fixed = self.seal_at + HEAD + 8;
        self.bytes[fixed + 24..fixed + 32].copy_from_slice(&sum.to_le_bytes());
        let own = self.seal_at + usize::try_from(seal::size(self.segments() as u64)).unwrap_or(0) - 8;
        let sum = xxh3_64(&self.bytes[fixed..own]);
        self.bytes[own..own + 8].copy_from_slice(&sum.to_le_bytes());
        self
    }
}
