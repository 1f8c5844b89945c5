//! What describes the image inside a compressed stream: headers, notes and seal, its own and those of the images inside it.
//!
//! Must never keep anything else: the memory is passed over as it is unpacked, however long it is.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use image_format::reader::PROBE_LEN;
use image_format::{Fault, Image, Need, Rule};
use zerocopy::IntoBytes;

use crate::compress::{Packed, room};
use crate::failure::Failure;

/// Parts of an image, each with its place there.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The image's length in bytes.
    pub len: u64,
    parts: Arc<Vec<(u64, Vec<u8>)>>,
}

/// What is to be kept at a place, behind that place so that they come in the stream's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    /// The seal of the image that begins there: so many bytes.
    Seal(u64),
    /// An image of this length.
    Image(u64),
}

impl Parts {
    /// Passes over a stream to its end, and keeps what describes the images in it.
    pub fn of(name: &Path, from: impl Read) -> Result<Self, Failure> {
        let fault = |fault| Failure::image(name, fault);
        let mut stream = Packed::open(name, from)?;
        let (mut parts, mut at) = (Vec::new(), stream.begin().len() as u64);
        let mut wanted = BTreeSet::new();
        parts.push((0, stream.begin().to_vec()));
        describe(stream.prefix(), (0, stream.whole), &mut wanted).map_err(fault)?;
        while let Some((place, what)) = wanted.pop_first() {
            let beyond = Fault::malformed(Rule::PartsLieEachOther, place);
            stream.pass(place.checked_sub(at).ok_or_else(|| fault(beyond))?)?;
            match what {
                Wanted::Seal(len) => parts.push((place, stream.take(Vec::new(), len)?)),
                Wanted::Image(len) => {
                    let first = stream.take(Vec::new(), len.min(PROBE_LEN as u64))?;
                    let need = Need::probe(&first, len).map_err(fault)?;
                    let rest = need.prefix_len.saturating_sub(first.len() as u64);
                    let prefix = stream.take(first, rest)?;
                    // Program headers are read where they lie aligned.
                    let mut words = vec![0u64; prefix.len().div_ceil(8)];
                    let bytes = words.as_mut_bytes().get_mut(..prefix.len()).unwrap_or_default();
                    bytes.copy_from_slice(&prefix);
                    let begin = bytes.get(..usize::try_from(need.prefix_len).unwrap_or(usize::MAX));
                    describe(begin.unwrap_or_default(), (place, len), &mut wanted).map_err(fault)?;
                    parts.push((place, prefix));
                }
            }
            at = parts.last().map_or(place, |(place, bytes)| place + bytes.len() as u64);
        }
        stream.pass(stream.whole.saturating_sub(at))?;
        stream.ends()?;
        Ok(Self { len: stream.whole, parts: Arc::new(parts) })
    }

    /// Fills `out` from a place of the image.
    ///
    /// # Errors
    /// That is no part which was kept.
    pub fn read(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        let found = self.parts.iter().find_map(|(place, bytes)| {
            let from = usize::try_from(at.checked_sub(*place)?).ok()?;
            bytes.get(from..from.checked_add(out.len())?)
        });
        found.map(|bytes| out.copy_from_slice(bytes)).ok_or(io::ErrorKind::UnexpectedEof.into())
    }
}

/// What else describes an image at this place, with these headers and notes.
fn describe(prefix: &[u8], (base, len): (u64, u64), wanted: &mut BTreeSet<(u64, Wanted)>) -> Result<(), Fault> {
    let image = Image::parse(prefix, len)?;
    let (at, seal) = image.seal_span();
    wanted.insert((base + at, Wanted::Seal(seal)));
    wanted.extend(image.processes().map(|part| (base + part.offset, Wanted::Image(part.len))));
    Ok(())
}

impl<R: Read> Packed<'_, R> {
    /// Takes so many bytes, behind those that are there.
    fn take(&mut self, mut bytes: Vec<u8>, len: u64) -> Result<Vec<u8>, Failure> {
        room(self.name, len)?;
        let read = self.decoder().take(len).read_to_end(&mut bytes);
        match read.map_err(|e| self.broken(&e))? {
            got if got as u64 == len => Ok(bytes),
            _ => Err(self.ended()),
        }
    }

    /// Passes over so many bytes.
    fn pass(&mut self, len: u64) -> Result<(), Failure> {
        let passed = io::copy(&mut self.decoder().take(len), &mut io::sink());
        match passed.map_err(|e| self.broken(&e))? {
            got if got == len => Ok(()),
            _ => Err(self.ended()),
        }
    }
}
