//! An image as a CPU would have had it saved whose XSAVE areas are laid out in another way: written anew by the format's own writer,
//! with shorter or longer notes, and sealed.
//!
//! Must change nothing but these areas and what says where they are.

use std::collections::BTreeMap;
use std::fmt::Display;

use anyhow::{Context, Result, anyhow, ensure};
use image_format::elf::{PF_CONTENT, SIZEOF_EHDR, SIZEOF_PHDR};
use image_format::note::{CKPT, LINUX, standard};
use image_format::record::frame::{Component, Frame};
use image_format::{Image, Layout, NoteType, Notes, Record, Segment, seal};
use zerocopy::{FromBytes, IntoBytes};

use crate::image::Bytes;

/// Offsets in an XSAVE area: the components that the CPU has (XCR0, in a core), those that are in it, the end of what is the same
/// everywhere.
const XCR0: usize = 464;
const XSTATE_BV: usize = 512;
const FIXED: usize = 576;

/// Where a component shall be: its number, the number that it has in the image that is read, offset, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its number.
    pub number: u32,
    /// That of the component whose bytes it has.
    pub like: u32,
    /// Offset in the area.
    pub at: u32,
    /// Bytes; more than there are, are zero.
    pub len: u32,
}

/// The components of an image, as they are.
///
/// # Errors
/// It is not sound.
pub fn components(sound: &Bytes) -> Result<Vec<Place>> {
    let image = sound.image()?;
    let table = image.table::<Component>().map_err(|fault| anyhow!("{fault}"))?;
    let place =
        |c: &Component| Place { number: c.number.get(), like: c.number.get(), at: c.at.get(), len: c.len.get() };
    Ok(table.iter().map(place).collect())
}

/// Writes an image anew with these components, in ascending order of numbers, in areas of `total` bytes.
///
/// # Errors
/// It is not sound, or has no full frames.
pub fn relaid(sound: &Bytes, places: &[Place], total: usize) -> Result<Vec<u8>> {
    let image = sound.image()?;
    let (at, len) = image.seal_span();
    let sums = image.check_seal(&sound.as_slice()[usize::try_from(at)?..usize::try_from(at + len)?])?;
    let sums: Vec<u64> = sums.iter().map(|sum| sum.get()).collect();
    ensure!(sums.len() < 65_000, "too many segments");
    let old = components(sound)?;
    // First to see where the areas go, then to say so.
    let (_, moved) = self::notes(&image, &old, places, total, &BTreeMap::new())?;
    let (notes, _) = self::notes(&image, &old, places, total, &moved)?;

    let segments: Vec<Segment> = image.segments().chain(image.content_segments()).collect();
    let word = |at: usize| sound.as_slice()[at..at + 4].iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    let flags = |index: usize| {
        let header = SIZEOF_EHDR + (index + 1) * SIZEOF_PHDR;
        word(header + 4) | if index < image.segments().len() { 0 } else { PF_CONTENT }
    };
    let bytes = segments.iter().map(|segment| segment.len).sum();
    let layout = Layout::new(segments.len() as u64, bytes, notes.len() as u64);
    let mut made = vec![0; usize::try_from(layout.headers_len())?];
    let headers = segments.iter().enumerate().map(|(i, segment)| (segment.addr, segment.len, flags(i)));
    layout.write_headers(&mut made, headers).map_err(full)?;
    made.extend(&notes);
    let mut sealed = vec![0; usize::try_from(seal::size(sums.len() as u64))?];
    let sealed = seal::write(&mut sealed, layout.file_len(), &made, &sums).map_err(full)?;
    made.resize(usize::try_from(layout.segments)?, 0);
    for segment in &segments {
        let at = usize::try_from(segment.offset)?;
        made.extend(&sound.as_slice()[at..at + usize::try_from(segment.len)?]);
    }
    made.extend(sealed);
    Ok(made)
}

fn full(why: impl Display) -> anyhow::Error {
    anyhow!("{why}")
}

/// All notes anew, and where areas that were at one offset are now.
fn notes(
    image: &Image<'_>,
    old: &[Place],
    places: &[Place],
    total: usize,
    moved: &BTreeMap<u64, u64>,
) -> Result<(Vec<u8>, BTreeMap<u64, u64>)> {
    let segments = (image.segments().len() + image.content_segments().len()) as u64;
    let start = image.prefix().as_ptr().addr() + usize::try_from(Layout::new(segments, 0, 0).notes)?;
    let mut out = vec![0; image.prefix().len() + (total + 64) * image.table::<Frame>().map_or(0, <[_]>::len)];
    let mut made = BTreeMap::new();
    let mut notes = Notes::new(&mut out, &mut []);
    for note in image.notes() {
        let note = note.map_err(|fault| anyhow!("{fault}"))?;
        let own = note.owner == CKPT;
        notes.open(note.owner, note.kind).map_err(full)?;
        let contents = if note.owner == LINUX && note.kind == standard::NT_X86_XSTATE {
            made.insert((note.desc.as_ptr().addr() - start) as u64, notes.position());
            area(note.desc, old, places, total)?
        } else if own && note.kind == Component::TYPE as u32 {
            let row = |place: &Place| Component {
                number: place.number.into(),
                at: place.at.into(),
                len: place.len.into(),
                reserved: 0.into(),
            };
            places.iter().flat_map(|place| row(place).as_bytes().to_vec()).collect()
        } else if own && note.kind == NoteType::Frame as u32 {
            frames(note.desc, total, moved)?
        } else if own && note.kind == NoteType::SignalFrame as u32 {
            // What lies in memory stays as it is here; that it is moved is seen elsewhere.
            Vec::new()
        } else {
            note.desc.to_vec()
        };
        notes.bytes(&contents).map_err(full)?;
        notes.end().map_err(full)?;
    }
    let len = usize::try_from(notes.position())?;
    ensure!(!made.is_empty(), "no full frames");
    out.truncate(len);
    Ok((out, made))
}

/// An area in the other layout.
fn area(area: &[u8], old: &[Place], places: &[Place], total: usize) -> Result<Vec<u8>> {
    let mut made = area.get(..FIXED).context("a short area")?.to_vec();
    made.resize(total, 0);
    let before = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| area[XSTATE_BV + i]));
    let (mut has, mut uses) = (0b11u64, before & 0b11);
    for place in places {
        let from = old.iter().find(|old| old.number == place.like).context("no such component")?;
        let bytes = area.get(from.at as usize..(from.at + from.len) as usize).unwrap_or_default();
        let len = bytes.len().min(place.len as usize);
        made[place.at as usize..place.at as usize + len].copy_from_slice(&bytes[..len]);
        has |= 1 << place.number;
        uses |= (before >> place.like & 1) << place.number;
    }
    made[XCR0..XCR0 + 8].copy_from_slice(&has.to_le_bytes());
    made[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&uses.to_le_bytes());
    Ok(made)
}

fn frames(bytes: &[u8], total: usize, moved: &BTreeMap<u64, u64>) -> Result<Vec<u8>> {
    let frames = <[Frame]>::ref_from_bytes(bytes).map_err(|_| anyhow!("torn frames"))?;
    let mut made = Vec::new();
    for frame in frames {
        let mut frame = *frame;
        if frame.xstate_len.get() != 0 {
            frame.xstate_at = moved.get(&frame.xstate_at.get()).copied().unwrap_or(0).into();
            frame.xstate_len = u32::try_from(total)?.into();
        }
        made.extend(frame.as_bytes());
    }
    Ok(made)
}
